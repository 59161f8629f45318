"""`spinexr benchmark-batch`."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from spinexr.cli.common import fail, untrained_detector_option
from spinexr.errors import SpineXRError


@click.group("benchmark-batch")
def benchmark_batch() -> None:
    """Measure batches on this machine; figures as JSON. Leave it alone meanwhile."""


@benchmark_batch.command()
@click.option("--inputs", type=click.IntRange(100), default=1_000_000, show_default=True)
def driver(inputs: int) -> None:
    """What the driver costs beside the analyses, and a resume over all of them."""
    from spinexr.benchmark import batches

    with TemporaryDirectory(prefix="spinexr-benchmark-") as folder:
        click.echo(json.dumps(batches.of_driver(Path(folder), inputs), indent=2))


@benchmark_batch.command()
@click.option("--inputs", type=click.IntRange(100), default=10_000, show_default=True)
def cluster(inputs: int) -> None:
    """What a Dask cluster on this machine costs beside the analyses."""
    from spinexr.benchmark import batches

    try:
        with TemporaryDirectory(prefix="spinexr-benchmark-") as folder:
            click.echo(json.dumps(batches.of_cluster(Path(folder), inputs), indent=2))
    except SpineXRError as e:
        fail(e.message)
    except ImportError as e:
        fail(f"This needs the package {e.name}: pip install -r requirements-dask.txt")


@benchmark_batch.command()
@click.option("--images", type=click.IntRange(1), default=500, show_default=True)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["exact", "bf16"]),
    multiple=True,
    default=("exact", "bf16"),
    show_default=True,
    help="May be given more than once.",
)
@click.option(
    "--dask", is_flag=True, help="Also with the workers of a Dask cluster on this machine."
)
@untrained_detector_option
def local(images: int, precisions: tuple[str, ...], dask: bool, detector: str) -> None:
    """A batch on this machine against a plain loop, and two workers against one, in one run."""
    from spinexr.benchmark import batches
    from spinexr.inference.engines.precision import Precision

    wanted = tuple(map(Precision, precisions))
    try:
        with TemporaryDirectory(prefix="spinexr-benchmark-") as folder:
            found = batches.of_local(Path(folder), images, wanted, detector=detector, dask=dask)
    except SpineXRError as e:
        fail(e.message)
    click.echo(json.dumps(found, indent=2))
