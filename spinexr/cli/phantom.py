"""`spinexr phantom`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from spinexr.cli.common import fail
from spinexr.errors import SpineXRError


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--studies", type=click.IntRange(min=2), required=True, help="Number of studies.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed.")
@click.option("--rows", type=click.IntRange(128, 6000), default=1200, show_default=True)
@click.option("--columns", type=click.IntRange(128, 6000), default=800, show_default=True)
@click.option(
    "--test-share",
    type=click.FloatRange(0, 1),
    default=0.25,
    show_default=True,
    help="Share of the studies that become the test part; at least one study for each part.",
)
@click.option("--alone", is_flag=True, help="One class of findings in a patient, not up to three.")
@click.option(
    "--oftener",
    type=(str, click.FloatRange(0, 100, min_open=True)),
    multiple=True,
    metavar="CLASS FACTOR",
    help="Give this class FACTOR times its weight; may be given for several.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Processes.  [default: one per core]")
def phantom(
    out: Path,
    studies: int,
    seed: int,
    rows: int,
    columns: int,
    test_share: float,
    alone: bool,
    oftener: tuple[tuple[str, float], ...],
    workers: int | None,
) -> None:
    """Write a dataset of synthetic radiographs with known findings to OUT.

    The layout is that of VinDr-SpineXR; the same seed gives the same files.
    """
    from spinexr.datasets.phantoms import Plan, generate
    from spinexr.datasets.vindr import CLASSES

    # Here, since reading the classes' module with the commands would slow every one of them.
    known = {name.lower(): name for name in CLASSES}
    for name, _factor in oftener:
        if name.lower() not in known:
            raise click.UsageError(f"--oftener: {name!r} is none of {', '.join(CLASSES)}.")
    weights = tuple((known[name.lower()], factor) for name, factor in oftener)
    plan = Plan(out, studies, seed, rows, columns, test_share, alone, weights)
    images = 0
    try:
        with click.progressbar(
            generate(plan, workers=workers or os.cpu_count() or 1),
            length=studies,
            label="Exposing",
            file=sys.stderr,
            show_pos=True,
        ) as progress:
            for made in progress:
                images += made
    except SpineXRError as e:
        fail(e.message)
    except OSError as e:
        fail(str(e))
    click.echo(f"Wrote {images} images of {studies} studies to {out}.")
