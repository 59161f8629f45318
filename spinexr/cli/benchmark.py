"""`spinexr benchmark`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from spinexr.cli.common import fail, untrained_detector_option
from spinexr.errors import SpineXRError


@click.command()
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for benchmark.md and benchmark.json.",
)
@untrained_detector_option
@click.option(
    "--precision",
    "precisions",
    type=click.Choice(["exact", "bf16", "int8"]),
    multiple=True,
    default=("exact",),
    show_default=True,
    help="May be given more than once.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
@click.option("--requests", type=click.IntRange(min=2), default=24, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
def benchmark(
    out: Path,
    detector: str,
    precisions: tuple[str, ...],
    rounds: int,
    requests: int,
    seed: int,
) -> None:
    """Measure SpineXR against a plain server, on this machine, in one run.

    Both serve the same untrained networks. Leave the machine alone meanwhile.
    """
    from spinexr.benchmark import report, run
    from spinexr.inference.engines.precision import Precision

    plan = run.Plan(detector, tuple(map(Precision, precisions)), rounds, requests, seed)
    try:
        out.mkdir(parents=True, exist_ok=True)
        results = run.run(plan, lambda line: click.echo(line, err=True))
        (out / "benchmark.json").write_text(json.dumps(results, indent=2) + "\n", "utf-8")
        table = report.as_markdown(results)
        (out / "benchmark.md").write_text(table, encoding="utf-8")
    except SpineXRError as e:
        fail(e.message)
    except OSError as e:
        fail(str(e))
    click.echo(table)
