"""`spinexr weights`: bundles on disk."""

from __future__ import annotations

from pathlib import Path

import click

from spinexr.cli.common import fail


@click.group()
def weights() -> None:
    """Make and manage bundles of weights."""


@weights.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--detector",
    type=click.Choice(["yolo11n", "yolo11s", "yolo11m", "yolo11l", "yolo11x"]),
    default="yolo11n",
    show_default=True,
    help="Scale of the lesion detector.",
)
@click.option(
    "--size",
    type=click.IntRange(32, 1024),
    default=224,
    show_default=True,
    help="Side of the classifiers' input in pixels.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random weights.")
@click.option(
    "--abnormal/--normal",
    default=None,
    help="Shift the classifiers so that most images come out so.  [default: undecided]",
)
@click.option(
    "--boxes",
    type=click.IntRange(min=0),
    help="Shift the detector towards about this many raw boxes, 0 for none.  [default: as random]",
)
def untrained(
    folder: Path, detector: str, size: int, seed: int, abnormal: bool | None, boxes: int | None
) -> None:
    """Write a bundle of random weights to FOLDER, for tests, benchmarks and load.

    Its manifest says that it is untrained, and so does every result it makes.
    """
    from spinexr.training.untrained import write_untrained_bundle

    try:
        write_untrained_bundle(
            folder, detector=detector, size=size, seed=seed, abnormal=abnormal, boxes=boxes
        )
    except OSError as e:
        fail(str(e))
    click.echo(f"Wrote an untrained bundle to {folder}. Serve it: SPINEXR_WEIGHTS={folder}")
