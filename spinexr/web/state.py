"""What the application holds, in one typed place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from spinexr.domain import Read
from spinexr.reporting.codes import Codes
from spinexr.settings import Settings
from spinexr.tokens import Tokens
from spinexr.web.metrics import Metrics
from spinexr.web.models import Models

EXTENSION = "spinexr"


@dataclass(frozen=True, slots=True)
class State:
    settings: Settings
    models: Models
    read: Read
    metrics: Metrics
    codes: Codes
    tokens: Tokens | None = None


def state() -> State:
    """The state of the current application."""
    return cast(State, current_app.extensions[EXTENSION])
