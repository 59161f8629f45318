"""Bring the catalogues in translations/ in step with the page, and compile them.

    python -m tools.translations

Texts come from the templates, from gettext calls in spinexr/web/, and from what the core hands to
pages word for word. New ones are left empty in each messages.po, for people to translate.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

from spinexr.web.language import LANGUAGES, texts_of_the_core

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "translations"
_LEFT_OUT = (
    b'"POT-Creation-Date', b'"PO-Revision-Date', b'"Last-Translator', b'"Language-Team',
    b'"Report-Msgid', b'"Project-Id', b'"Generated-By',
)  # fmt: skip
_KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2)}


def main() -> None:
    """Rewrite every language's messages.po and messages.mo."""
    source = collected()
    for code in LANGUAGES:
        if code != "en":
            file = po_file(code)
            file.parent.mkdir(parents=True, exist_ok=True)
            catalog = updated(code, source)
            file.write_bytes(as_po(catalog))
            file.with_suffix(".mo").write_bytes(as_mo(catalog))


def collected() -> Catalog:
    """All texts of the page, in English."""
    catalog = Catalog(project="SpineXR")
    for folder, method in (("templates", "jinja2"), ("spinexr/web", "python")):
        pattern = [("**.html" if method == "jinja2" else "**.py", method)]
        for _file, _line, message, _comments, _context in sorted(
            extract_from_dir(str(ROOT / folder), pattern, keywords=_KEYWORDS)
        ):
            catalog.add(message)
    for text in texts_of_the_core():
        catalog.add(text)
    return catalog


def updated(code: str, source: Catalog) -> Catalog:
    """A language's catalogue with exactly the texts of the source."""
    known = read(code)
    comment = "# SpineXR, MIT licence."
    catalog = Catalog(locale=code, project="SpineXR", header_comment=comment, fuzzy=False)
    for message in source:
        if message.id:
            old = known.get(message.id)
            catalog.add(message.id, old.string if old else None)
    return catalog


def read(code: str) -> Catalog:
    """A language's catalogue as it is; empty where there is none yet."""
    file = po_file(code)
    if not file.exists():
        return Catalog(locale=code)
    with file.open("rb") as stream:
        return read_po(stream, locale=code)


def po_file(code: str) -> Path:
    """Where a language's texts are."""
    return FOLDER / code / "LC_MESSAGES" / "messages.po"


def as_po(catalog: Catalog) -> bytes:
    """The text form, without dates and people, so that the same texts give the same file."""
    stream = BytesIO()
    write_po(stream, catalog, omit_header=False, sort_output=True, width=100)
    lines = stream.getvalue().split(b"\n")
    return b"\n".join(line for line in lines if not line.startswith(_LEFT_OUT))


def as_mo(catalog: Catalog) -> bytes:
    """The compiled form that Flask-Babel reads."""
    stream = BytesIO()
    write_mo(stream, catalog)
    return stream.getvalue()


if __name__ == "__main__":
    main()
