"""The page's language: what the cookie says, else what the browser asks for, else English.

English is the catalogue: `translations/` holds the others, which `tools/translations.py` keeps in
step. Only pages are translated; documents, logs and error details stay English.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from flask import Blueprint, Flask, Response, abort, redirect, request, url_for
from flask_babel import Babel, get_locale
from markupsafe import Markup

from spinexr import DISCLAIMER
from spinexr.domain import CAVEATS
from spinexr.errors import all_error_classes
from spinexr.settings import PROJECT_ROOT
from spinexr.web.words import gettext

LANGUAGES: Mapping[str, str] = MappingProxyType({"en": "English", "vi": "Tiếng Việt"})
_COOKIE = "language"
_YEAR_S = 365 * 24 * 3600

blueprint = Blueprint("language", __name__)


def register(app: Flask) -> None:
    """Translate the templates, and let people choose."""
    Babel(
        app,
        default_translation_directories=str(PROJECT_ROOT / "translations"),
        locale_selector=_chosen,
    )
    app.jinja_env.globals.update(
        language=_current, languages=LANGUAGES, translated=translated, in_english=_in_english
    )
    app.register_blueprint(blueprint)


@blueprint.get("/language/<code>")
def choose(code: str) -> Response:
    if code not in LANGUAGES:
        abort(404)
    response = redirect(url_for("pages.index"), 303)
    response.set_cookie(_COOKIE, code, max_age=_YEAR_S, samesite="Lax", httponly=True)
    assert isinstance(response, Response)  # noqa: S101  (Flask's redirect says Werkzeug's)
    return response


def translated(text: str) -> str:
    """A text of the core in the page's language; as it is where there is no translation.

    Caveats come several to a text, so they are translated one by one.
    """
    for caveat in CAVEATS:
        text = text.replace(caveat, gettext(caveat))
    return gettext(text)


def texts_of_the_core() -> tuple[str, ...]:
    """What the core hands to pages word for word, for the catalogue."""
    # Late, and for the catalogue only: the server itself never imports what reads DICOM.
    from spinexr.analysis import UNFAMILIAR
    from spinexr.datasets.vindr import CLASSES
    from spinexr.imaging import display, gate
    from spinexr.imaging.header import shown_names
    from spinexr.web.presentation import NUMBERS, PLAIN_NAMES
    from spinexr.web.samples import shipped

    notices = (
        UNFAMILIAR, gate.BODY_PART_UNKNOWN, gate.BURNED_IN, gate.FOR_PROCESSING,
        display.MODALITY_LUT_IGNORED, display.VOI_LUT_IGNORED, display.WINDOW_IGNORED,
    )  # fmt: skip

    return tuple(
        dict.fromkeys(
            (
                DISCLAIMER,
                *CAVEATS,
                *(cls.title for cls in all_error_classes()),
                *(notice.message for notice in notices),
                *NUMBERS,
                *(PLAIN_NAMES.get(keyword, name) for keyword, name in shown_names().items()),
                *(sample.title for sample in shipped()),
                *CLASSES,
            )
        )
    )


def _chosen() -> str:
    cookie = request.cookies.get(_COOKIE, "")
    if cookie in LANGUAGES:
        return cookie
    return request.accept_languages.best_match(LANGUAGES) or "en"


def _current() -> str:
    return str(get_locale() or "en")


def _in_english() -> Markup:
    """The attribute that marks untranslated text on a page of another language."""
    return Markup("") if _current() == "en" else Markup(' lang="en"')
