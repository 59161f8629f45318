"""gettext as Flask-Babel has it, with types. Calls write texts out, so that they are collected."""

from __future__ import annotations

import flask_babel


def gettext(text: str, **values: object) -> str:
    """The text in the page's language, its %(names)s replaced by values."""
    return str(flask_babel.gettext(text, **values))


def ngettext(one: str, several: str, count: int, **values: object) -> str:
    """As `gettext`, in the form for a count."""
    return str(flask_babel.ngettext(one, several, count, **values))
