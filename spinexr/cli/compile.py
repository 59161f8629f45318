"""`spinexr compile`."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

import click

from spinexr.cli.common import fail, settings_with, weights_option
from spinexr.errors import SpineXRError


@click.command("compile")
@weights_option
@click.option(
    "--engines",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the compiled networks.  [default: SPINEXR_ENGINES, else engines/]",
)
def compile_bundle(weights: Path | None, engines: Path | None) -> None:
    """Compile a bundle's networks for OpenVINO, so that serving needs no torch.

    What is compiled already is left alone. Bring the folder, the manifests and familiarity.npz to a
    machine without torch: the checkpoints can stay behind.
    """
    from spinexr.inference.engines import EngineOptions
    from spinexr.inference.loading import load_predictor

    settings = settings_with(weights=weights, engines=engines)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        settings.engines.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=settings.engines).close()
    except OSError as e:
        fail(f"{settings.engines} cannot be written: {e.strerror}.")
    try:
        options = EngineOptions(
            engine="openvino", store=settings.engines, threads=settings.inference_threads
        )
        predictor = load_predictor(settings.weights, options)
    except SpineXRError as e:
        fail(e.message)
    predictor.close()
    engine = predictor.engine
    click.echo(
        f"{len(engine.models)} networks for OpenVINO {engine.version} in {settings.engines}."
    )
