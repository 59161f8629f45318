"""`spinexr compile`."""

from __future__ import annotations

import logging
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinexr.cli.common import ProgressLine, fail, settings_with, weights_option
from spinexr.errors import SpineXRError

if TYPE_CHECKING:
    from spinexr.inference.engines import EngineOptions
    from spinexr.settings import Settings


@click.command("compile")
@weights_option
@click.option(
    "--engines",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the compiled networks.  [default: SPINEXR_ENGINES, else engines/]",
)
@click.option(
    "--precision",
    type=click.Choice(["exact", "bf16", "int8"]),
    default="exact",
    show_default=True,
    help="Also judge this precision on --data, and let it be served if it costs next to nothing.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Dataset in the layout of VinDr-SpineXR: int8 is calibrated on its train part, every "
    "reduced precision is judged on its test part.",
)
@click.option(
    "--pack",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compile afresh into this tar archive instead, with all that a machine without torch "
    "needs: unpack it in the project folder there.",
)
def compile_bundle(
    weights: Path | None,
    engines: Path | None,
    precision: str,
    data: Path | None,
    pack: Path | None,
) -> None:
    """Compile a bundle's networks for OpenVINO, so that serving needs no torch.

    What is compiled already is left alone. Bring the folder, the manifests and familiarity.npz to a
    machine without torch, or all of it with --pack: the checkpoints can stay behind.
    """
    if pack is None:
        _compile(weights, engines, precision, data)
        return
    if engines is not None:
        fail("--pack compiles into the archive: leave --engines out.")
    with tempfile.TemporaryDirectory() as scratch:
        settings = _compile(weights, Path(scratch), precision, data)
        try:
            _pack(pack, settings)
        except SpineXRError as e:
            fail(e.message)
        except OSError as e:
            fail(f"{pack} cannot be written: {e.strerror}.")
    click.echo(f"Wrote {pack}.")


def _compile(
    weights: Path | None, engines: Path | None, precision: str, data: Path | None
) -> Settings:
    from spinexr.inference.engines import EngineOptions
    from spinexr.inference.loading import load_predictor

    settings = settings_with(weights=weights, engines=engines)
    if precision != "exact" and data is None:
        fail(f"{precision} has to be judged: give a labelled dataset with --data.")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if data is not None and precision != "exact":
            from spinexr.evaluation.precision import labelled

            labelled(data)
    except SpineXRError as e:
        fail(e.message)
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
    if not _kept(settings, engine.version, "exact"):
        fail(f"{settings.engines} could not keep the compiled networks: make room there.")
    click.echo(
        f"{len(engine.models)} networks for OpenVINO {engine.version} in {settings.engines}."
    )
    if data is not None and precision != "exact":
        _judge(settings, options, precision, data)
    return settings


def _kept(settings: Settings, version: str, precision: str) -> bool:
    """Whether all networks are in their folder: those that do not fit there live elsewhere, for as
    long as the process does."""
    from spinexr.inference.bundle import load_bundle
    from spinexr.inference.engines import openvino_loading
    from spinexr.inference.engines.precision import Precision

    folders = openvino_loading.compiled_folders(
        load_bundle(settings.weights),
        store=settings.engines,
        precision=Precision(precision),
        version=version,
    )
    return folders is not None


def _pack(archive: Path, settings: Settings) -> None:
    """The same networks and manifests give the same bytes."""
    from spinexr.inference.bundle import load_bundle

    named = {
        f"engines/{f.relative_to(settings.engines).as_posix()}": f
        for f in settings.engines.rglob("*")
        if f.is_file()
    }
    for file in load_bundle(settings.weights).files_to_serve_compiled():
        named[file.relative_to(settings.weights).as_posix()] = file
    part = archive.with_name(f"{archive.name}.part")
    try:
        with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(named):
                entry = tarfile.TarInfo(name)
                entry.size = named[name].stat().st_size
                with named[name].open("rb") as stream:
                    tar.addfile(entry, stream)
        part.replace(archive)
    finally:
        part.unlink(missing_ok=True)


def _judge(settings: Settings, options: EngineOptions, precision: str, data: Path) -> None:
    from spinexr.evaluation.precision import judge
    from spinexr.inference.engines.precision import Precision

    bar = ProgressLine()
    try:
        found = judge(
            settings.weights,
            data,
            replace(options, precision=Precision(precision)),
            max_pixels=settings.max_pixels,
            progress=bar,
        )
    except SpineXRError as e:
        fail(e.message)
    except OSError as e:
        fail(str(e))
    click.echo(
        f"{precision} on {found.images} images: AUROC {found.auroc:.4f} − {found.auroc_drop:.4f}, "
        f"{found.flips:.2%} of decisions flip, mAP50 {found.map50:.4f} − {found.map50_drop:.4f}, "
        f"probabilities differ by up to {found.largest_difference:.4f}."
    )
    if found.refusal:
        fail(f"{precision} is refused: {found.refusal}.")
    click.echo(f"Accepted: SPINEXR_PRECISION={precision} serves it.")
