"""What several commands share."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click

from spinexr.errors import SpineXRError
from spinexr.settings import Settings

FAILED = 1

weights_option = click.option(
    "--weights",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that holds “ensemble output” and “detection output”.  [default: SPINEXR_WEIGHTS, "
    "else the project folder]",
)


def settings_with(**given: object) -> Settings:
    """The environment's settings with the options that were given put over them."""
    try:
        settings = Settings.from_env(os.environ)
    except SpineXRError as e:
        fail(e.message)
    return replace(settings, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]


def fail(message: str) -> NoReturn:
    """Say what went wrong on standard error and end with exit status 1."""
    click.echo(f"Error: {message}", err=True)
    sys.exit(FAILED)
