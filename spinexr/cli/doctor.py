"""`spinexr doctor`: is everything here that an analysis needs?"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from spinexr import memory, spool, tokens
from spinexr.cli.common import FAILED, weights_option
from spinexr.errors import SpineXRError
from spinexr.server import check_listening
from spinexr.settings import PROJECT_ROOT, Settings

_LOWEST_PYTHON = (3, 11)


@click.command()
@weights_option
def doctor(weights: Path | None) -> None:
    """Check interpreter, packages, settings, memory, weights and port; one line each.

    Exit status 1 when something is wrong.
    """
    wrong = False
    for name, check in _checks(weights):
        try:
            click.echo(f"ok    {name}: {check()}")
        except _Trouble as e:
            wrong = True
            click.echo(f"WRONG {name}: {e}")
    sys.exit(FAILED if wrong else 0)


class _Trouble(Exception):  # noqa: N818  (it is a finding, not an error)
    """What is wrong and what to do."""


def _checks(weights: Path | None) -> Iterator[tuple[str, Callable[[], str]]]:
    yield "python", _python
    yield "packages", _packages
    yield "torchvision", _torchvision
    try:
        settings = Settings.from_env(os.environ)
    except SpineXRError as error:
        message = error.message

        def refused() -> str:
            raise _Trouble(message)

        yield "settings", refused
        settings = Settings()  # so that the rest can still be looked at
    else:
        yield "settings", lambda: "all SPINEXR_ variables are valid"
    if settings.tokens_file:
        yield "tokens", lambda: _tokens(settings.tokens_file)
    yield "memory", _memory
    yield "uploads", lambda: _uploads(settings.uploads)
    yield "weights", lambda: _weights(weights or settings.weights, settings)
    yield "port", lambda: _port(settings.host, settings.port)


def _python() -> str:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _LOWEST_PYTHON:
        raise _Trouble(f"{version} is too old; 3.11 or newer is needed")
    return version


def _packages() -> str:
    pins = _pins((PROJECT_ROOT / "requirements.txt").read_text(encoding="utf-8"))
    problems = []
    for package, wanted in pins.items():
        try:
            found = importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            problems.append(f"{package} is not installed")
            continue
        if found != wanted:
            problems.append(f"{package} is {found}, not {wanted}")
    if problems:
        raise _Trouble("; ".join(problems) + " (pip install -r requirements.txt)")
    return f"{len(pins)} as in requirements.txt"


def _pins(requirements: str) -> dict[str, str]:
    """Package → version of the lines that apply to this platform."""
    pins = {}
    for line in requirements.splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)(.*)", line)
        if match and not ("win32" in match[3] and sys.platform == "win32"):
            pins[match[1]] = match[2]
    return pins


def _torchvision() -> str:
    try:
        from spinexr.inference.engines import torch_runtime

        substituted = torch_runtime.check_operators()
    # Whatever a broken installation raises on import is the finding.
    except Exception as e:
        raise _Trouble(f"{type(e).__name__}: {e}") from e
    if substituted:
        return "operators answer; substituted, as its own library does not fit this torch"
    return "operators answer"


def _tokens(file: Path | None) -> str:
    assert file is not None  # noqa: S101  (it is only asked for where there is one)
    try:
        return f"{len(tokens.read(file).names_by_hash)} may get in by {file.name}"
    except SpineXRError as e:
        raise _Trouble(e.message) from e


def _memory() -> str:
    available = memory.available_mb()
    if too_little := memory.shortage(available):
        raise _Trouble(too_little)
    return "not known on this system" if available is None else f"{available} MB may be used"


def _uploads(folder: Path) -> str:
    try:
        spool.prepare(folder)
    except SpineXRError as e:
        raise _Trouble(e.message) from e
    return f"{folder} can be written"


def _weights(root: Path, settings: Settings) -> str:
    try:
        from spinexr.inference.loading import load_predictor

        predictor = load_predictor(root, settings.engine_options)
    except SpineXRError as e:
        raise _Trouble(f"{e.message} Looked below {root}") from e
    # As with torchvision: whatever a broken installation raises is the finding.
    except Exception as e:
        raise _Trouble(f"{type(e).__name__}: {e}") from e
    predictor.close()
    caveat = predictor.summary.caveat
    engine = predictor.engine
    answered = f"{len(engine.models)} models answered by {engine.name} on {engine.device}"
    return f"{answered}. {caveat}" if caveat else answered


def _port(host: str, port: int) -> str:
    try:
        check_listening(host, port)
    except SpineXRError as e:
        raise _Trouble(e.message) from e
    return f"{host}:{port} is free"
