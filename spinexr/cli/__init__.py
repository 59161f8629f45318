"""The command line. Bodies import lazily, so `--help` is instant."""

from __future__ import annotations

import click

from spinexr import DISCLAIMER, __version__
from spinexr.cli.analyse import analyse
from spinexr.cli.batch import batch
from spinexr.cli.benchmark import benchmark
from spinexr.cli.benchmark_batch import benchmark_batch
from spinexr.cli.compile import compile_bundle
from spinexr.cli.doctor import doctor
from spinexr.cli.evaluate import evaluate
from spinexr.cli.node import node
from spinexr.cli.phantom import phantom
from spinexr.cli.serve import serve
from spinexr.cli.token import token
from spinexr.cli.train import train
from spinexr.cli.weights import weights


@click.group(epilog=DISCLAIMER)
@click.version_option(__version__, prog_name="SpineXR")
def main() -> None:
    """Radiograph AI on the spine: classify, find lesions, serve."""


for _command in (
    analyse,
    batch,
    serve,
    node,
    doctor,
    token,
    weights,
    phantom,
    evaluate,
    train,
    compile_bundle,
    benchmark,
    benchmark_batch,
):
    main.add_command(_command)
