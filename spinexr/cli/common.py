"""What several commands share."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click

from spinexr.errors import SpineXRError
from spinexr.settings import Settings

FAILED = 1
_SECONDS_BETWEEN_LINES = 0.5

weights_option = click.option(
    "--weights",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that holds “ensemble output” and “detection output”.  [default: SPINEXR_WEIGHTS, "
    "else the project folder]",
)

untrained_detector_option = click.option(
    "--detector",
    type=click.Choice(["yolo11n", "yolo11s", "yolo11m", "yolo11l", "yolo11x"]),
    default="yolo11l",
    show_default=True,
    help="Scale of the untrained detector.",
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


class ProgressLine:
    """One line with the share done and the time left; nothing without a terminal."""

    def __init__(self) -> None:
        self._what = ""
        self._started = self._shown = 0.0

    def say(self, line: str) -> None:
        self._clear()
        click.echo(line)

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._what:
            self._what, self._started = what, now
        if not sys.stderr.isatty() or (now - self._shown < _SECONDS_BETWEEN_LINES and done < total):
            return
        self._shown = now
        left = (now - self._started) / done * (total - done)
        text = f"{what}: {done}/{total}, {int(left // 60)}:{int(left % 60):02d} left"
        click.echo(f"\r\x1b[K{text}", nl=False, err=True)
        if done == total:
            self._clear()

    def _clear(self) -> None:
        if sys.stderr.isatty():
            click.echo("\r\x1b[K", nl=False, err=True)
