"""`spinexr serve`."""

from __future__ import annotations

from pathlib import Path

import click

from spinexr.cli.common import settings_with, weights_option


@click.command()
@click.option("--host", help="Address to listen on.  [default: SPINEXR_HOST, else 127.0.0.1]")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Port to listen on.  [default: PORT, else 5000]"
)
@weights_option
def serve(host: str | None, port: int | None, weights: Path | None) -> None:
    """Serve the page and the API."""
    from spinexr.server import serve as run

    run(settings_with(host=host, port=port, weights=weights))
