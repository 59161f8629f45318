"""`spinexr token`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from spinexr.cli.common import fail
from spinexr.errors import SpineXRError


@click.command()
@click.argument("name")
@click.option(
    "--file", "file", type=click.Path(dir_okay=False, path_type=Path),
    help="Add it to this file, which SPINEXR_TOKENS_FILE names.  [default: print the line]",
)  # fmt: skip
def token(name: str, file: Path | None) -> None:
    """Make an access token for NAME and print it, this once.

    Servers keep only its hash. Programs send `Authorization: Bearer TOKEN`, people log in with it.
    """
    from spinexr import tokens

    made = tokens.new()
    try:
        line = tokens.line(name, made)
        if file is None:
            click.echo(f"For the file: {line}", err=True)
        else:
            # Names of people who may log in are nobody else's business.
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "a", encoding="utf-8") as stream:
                stream.write(f"{line}\n")
            click.echo(f"Added to {file}; servers read it when they start.", err=True)
    except SpineXRError as e:
        fail(e.message)
    except OSError as e:
        fail(f"{file} cannot be written: {e.strerror}.")
    click.echo(made)
