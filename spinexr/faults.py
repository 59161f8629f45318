"""How a fault of the program is written down."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe(error: BaseException) -> str:
    """Type and places of an unexpected error, without its message, which may quote a patient."""
    places: list[Any] = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return f"{type(error).__name__} at " + " < ".join(reversed(places))
