"""The codes of the DICOM objects: codes.toml beside this file, and what a deployer puts over it."""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spinexr.errors import ConfigurationError

DEFAULT = Path(__file__).with_name("codes.toml")
_LONGEST_VALUE, _LONGEST_SCHEME, _LONGEST_MEANING = 16, 16, 64  # SH, SH and LO in PS3.5
_GROUPS = ("concepts", "findings", "regions")
_FIELDS = ("value", "scheme", "meaning")


@dataclass(frozen=True, slots=True)
class Code:
    """A coded concept; the scheme is that of PS3.16 section 8, or a private 99…."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Codes:
    """All codes of the objects, and the private scheme that some of them are of."""

    scheme: str
    scheme_name: str
    concepts: Mapping[str, Code]
    findings: Mapping[str, Code]
    regions: Mapping[str, Code]
    digest: str  # hex SHA-256 of everything above

    def finding(self, label: str) -> Code:
        """The code of a class of findings, made from its name where the table has none."""
        made = hashlib.sha256(label.encode()).hexdigest()[:10].upper()
        return self.findings.get(label) or Code(
            f"SX-F-{made}", self.scheme, _one_line(label)[:_LONGEST_MEANING] or "Finding"
        )


def read(file: Path | None = None) -> Codes:
    """The default table, entries of `file` put over it.

    Raises:
        ConfigurationError: the file cannot be read, or has an entry that is no code.
    """
    table = _load(DEFAULT)
    scheme = table["scheme"]
    tables = {group: dict(table[group]) for group in _GROUPS}
    own = dict.fromkeys(_GROUPS, scheme["designator"])
    codes = _codes(tables, own, DEFAULT)
    if file is not None:
        given = _load(file)
        if unknown := given.keys() - {*_GROUPS, "scheme"}:
            raise _refusal(
                file, f"{sorted(unknown)[0]!r} is not one of scheme, {', '.join(_GROUPS)}"
            )
        for name, value in _section(given, "scheme", file).items():
            if name not in scheme or not isinstance(value, str) or not value:
                raise _refusal(file, f"scheme.{name} must be designator or name, and a text")
            scheme[name] = value
        if not 1 <= len(scheme["designator"]) <= _LONGEST_SCHEME:
            raise _refusal(file, f"scheme.designator may have {_LONGEST_SCHEME} characters")
        # The default's private codes go along with the scheme's own name.
        codes = _codes(tables, dict.fromkeys(_GROUPS, scheme["designator"]), DEFAULT)
        replaced = _codes({g: _section(given, g, file) for g in _GROUPS}, {}, file)
        if unknown := replaced["concepts"].keys() - codes["concepts"].keys():
            raise _refusal(file, f"concepts.{sorted(unknown)[0]} is not a concept of the objects")
        codes = {group: codes[group] | replaced[group] for group in _GROUPS}
    named = repr((sorted(scheme.items()), [(g, sorted(codes[g].items())) for g in _GROUPS]))
    return Codes(
        scheme=scheme["designator"],
        scheme_name=scheme["name"],
        digest=hashlib.sha256(named.encode()).hexdigest(),
        **codes,
    )


def _codes(
    tables: Mapping[str, Mapping[str, Any]], schemes: Mapping[str, str], file: Path
) -> dict[str, dict[str, Code]]:
    return {
        group: {
            name: _code(entry, f"{group}.{name}", schemes.get(group), file)
            for name, entry in tables[group].items()
        }
        for group in _GROUPS
    }


def _code(entry: object, name: str, scheme: str | None, file: Path) -> Code:
    given = {"scheme": scheme, **entry} if isinstance(entry, dict) else {}
    if given.keys() != set(_FIELDS):
        raise _refusal(file, f"{name} needs {', '.join(_FIELDS)}, and nothing else")
    longest = (_LONGEST_VALUE, _LONGEST_SCHEME, _LONGEST_MEANING)
    for field, most in zip(_FIELDS, longest, strict=True):
        text = given[field]
        if not isinstance(text, str) or not 1 <= len(text) <= most or _one_line(text) != text:
            raise _refusal(file, f"{name}.{field} must be a text of 1 to {most} characters")
    return Code(**given)


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() and c != "\\" else " " for c in text).split())


def _section(document: Mapping[str, Any], name: str, file: Path) -> Mapping[str, Any]:
    section = document.get(name, {})
    if not isinstance(section, dict):
        raise _refusal(file, f"{name} must be a table")
    return section


def _load(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise _refusal(file, e.strerror or type(e).__name__) from e
    except ValueError as e:
        raise _refusal(file, f"it is not TOML: {e}") from e


def _refusal(file: Path, why: str) -> ConfigurationError:
    return ConfigurationError(f"The codes in {file} cannot be used: {why}.")
