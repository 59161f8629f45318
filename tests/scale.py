"""How much of it: a short form with every test run, the long one by `make soak`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TypeVar

LONG = os.environ.get("TEST_SCALE") == "long"
_FIGURES = os.environ.get("TEST_FIGURES")

_T = TypeVar("_T")


def pick(short: _T, long: _T) -> _T:
    """What this run takes."""
    return long if LONG else short


def record(test: str, **figures: object) -> None:
    """Keep what was measured, for docs/reliability.md, where `TEST_FIGURES` names a file."""
    if _FIGURES:
        line = json.dumps({"test": test, "scale": pick("short", "long"), **figures})
        with Path(_FIGURES).open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
