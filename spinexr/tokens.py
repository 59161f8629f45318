"""Access tokens: random, shown once, kept as SHA-256.

A token has 256 random bits, so a fast hash keeps it: there is nothing to guess. The file has a line
`name sha256` for each; empty lines and those that begin with # are passed over.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from spinexr.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LINE = re.compile(rf"(?P<name>{_NAME.pattern})\s+(?P<hash>[0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class Tokens:
    """The names that have a token."""

    names_by_hash: dict[str, str]

    def owner(self, token: str) -> str | None:
        """Whose token it is; None where it is nobody's."""
        given = _hash(token)
        found = None
        for known, name in self.names_by_hash.items():  # all of them: the time says nothing
            if hmac.compare_digest(known, given):
                found = name
        return found

    def knows(self, name: str) -> bool:
        """Whether somebody of that name has a token."""
        return name in self.names_by_hash.values()


def read(file: Path) -> Tokens:
    """The tokens of a file.

    Raises:
        ConfigurationError: it cannot be read, holds none, or a line is not one of `line`; quotes
            no line, since it may be a token by mistake.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigurationError(f"SPINEXR_TOKENS_FILE={file} cannot be read: {e}.") from e
    names: dict[str, str] = {}
    for number, text in enumerate(lines, 1):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(text.strip())
        if found is None:
            raise ConfigurationError(
                f"Line {number} of {file} is not a name and a SHA-256: make lines with "
                "python -m spinexr token NAME."
            )
        names[found["hash"]] = found["name"]
    if not names:
        raise ConfigurationError(
            f"{file} holds no token: make one with python -m spinexr token NAME --file {file.name}."
        )
    return Tokens(names)


def new() -> str:
    """A token."""
    return secrets.token_urlsafe(32)


def line(name: str, token: str) -> str:
    """What the file says of a token.

    Raises:
        ConfigurationError: the name has other characters than letters, digits, dot, dash and _.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} is no name for a token: up to 64 letters, digits, dots, dashes or _."
        )
    return f"{name} {_hash(token)}"


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
