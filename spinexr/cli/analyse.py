"""`spinexr analyse`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinexr.cli.common import FAILED, fail, settings_with, weights_option
from spinexr.domain import DetectPolicy
from spinexr.errors import SpineXRError, TooLargeError

if TYPE_CHECKING:
    from spinexr.domain import Analysis, Read
    from spinexr.inference.predictor import Predictor
    from spinexr.reporting.codes import Codes
    from spinexr.settings import Settings


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--json",
    "as_lines",
    is_flag=True,
    help="Print one JSON document per file and line, refusals included.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the annotated image (PNG, full size) and the JSON of each file to this folder.",
)
@click.option(
    "--dicom-out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write DICOM objects of each file (report, presentation state, picture) to this folder.",
)
@click.option(
    "--detect",
    type=click.Choice([p.value for p in DetectPolicy]),
    help="When the lesion detector runs.  [default: SPINEXR_DETECT, else when_abnormal]",
)
@click.option(
    "--allow-other-body-part", is_flag=True, help="Go on when a file names another body part."
)
@click.option(
    "--activation-map", is_flag=True, help="Put the class activation map into the JSON documents."
)
@weights_option
def analyse(
    files: tuple[Path, ...],
    as_lines: bool,
    out: Path | None,
    dicom_out: Path | None,
    detect: str | None,
    allow_other_body_part: bool,
    activation_map: bool,
    weights: Path | None,
) -> None:
    """Analyse radiographs.

    One line each on standard output; refusals go to standard error. Exit status 0 when every file
    was analysed, 1 when not.
    """
    from spinexr.imaging.sandbox import Sandbox
    from spinexr.inference.loading import load_predictor
    from spinexr.reporting import codes

    settings = settings_with(weights=weights, detect=detect)
    try:
        for folder in (out, dicom_out):
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
        chosen_codes = codes.read(settings.codes)
        sandbox = Sandbox(replace(settings.sandbox_options, workers=1))
        wait = sandbox.start()
        predictor = load_predictor(settings.weights, settings.engine_options)
        wait()
    except (SpineXRError, OSError) as e:
        fail(str(e))

    failed = False
    names = _output_names(files)
    watched = len(files) > 1 and sys.stderr.isatty()
    with click.progressbar(
        length=len(files), label="Analysing", file=sys.stderr, hidden=not watched, show_pos=True
    ) as progress:
        for file, name in zip(files, names, strict=True):
            try:
                analysis = _analyse_file(
                    file, predictor, settings, sandbox.read, allow_other_body_part
                )
                document = _document(analysis, activation=activation_map)
                text = json.dumps({"file": str(file), **document}, ensure_ascii=False)
                if out is not None:
                    _write(out, name, analysis, text)
                if dicom_out is not None:
                    _write_objects(dicom_out, name, analysis, chosen_codes)
                _clear_line(watched)
                click.echo(text if as_lines else f"{file}: {_summary(analysis)}")
            except SpineXRError as e:
                failed = True
                _clear_line(watched)
                _refuse(file, e.code, e.message, as_lines=as_lines)
            except OSError as e:
                failed = True
                _clear_line(watched)
                _refuse(file, "unreadable_file", e.strerror or str(e), as_lines=as_lines)
            progress.update(1)
    sandbox.close()
    sys.exit(FAILED if failed else 0)


def _refuse(file: Path, code: str, message: str, *, as_lines: bool) -> None:
    click.echo(f"{file}: {message} [{code}]", err=True)
    if as_lines:
        error = {"code": code, "detail": message}
        click.echo(json.dumps({"file": str(file), "error": error}, ensure_ascii=False))


def _analyse_file(
    file: Path,
    predictor: Predictor,
    settings: Settings,
    read: Read,
    allow_other_body_part: bool,
) -> Analysis:
    from spinexr.analysis import analyse as run

    if file.stat().st_size > settings.max_upload_bytes:
        raise TooLargeError(
            f"The file is larger than {settings.max_upload_mb} MB; SPINEXR_MAX_UPLOAD_MB raises "
            "the limit."
        )
    return run(
        file.read_bytes(),
        predictor=predictor,
        max_pixels=settings.max_pixels,
        detect=settings.detect_policy,
        allow_other_body_part=allow_other_body_part,
        read=read,
    )


def _clear_line(watched: bool) -> None:
    """Make room for an answer where the progress bar stands; the next step draws it again."""
    if watched:
        click.echo("\r\033[K", nl=False, err=True)


def _document(analysis: Analysis, *, activation: bool) -> dict[str, object]:
    from spinexr.reporting import as_json

    return as_json.document(analysis, activation=activation)


def _write(out: Path, name: str, analysis: Analysis, text: str) -> None:
    from spinexr.reporting import overlay

    (out / f"{name}.png").write_bytes(overlay.as_png(analysis).data)
    (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _write_objects(out: Path, name: str, analysis: Analysis, codes: Codes) -> None:
    from spinexr.reporting import dicom

    for made in dicom.build(analysis, codes=codes, now=datetime.now()):
        (out / f"{name}-{made.kind}.dcm").write_bytes(made.data)


def _output_names(files: tuple[Path, ...]) -> list[str]:
    """Each file's stem, numbered where two share one: nothing may be overwritten."""
    names: list[str] = []
    for file in files:
        stem = file.stem if file.suffix.lower() in (".dcm", ".dicom") else file.name
        name, n = stem, 2
        while name in names:
            name, n = f"{stem}-{n}", n + 1
        names.append(name)
    return names


def _summary(analysis: Analysis) -> str:
    prediction = analysis.prediction
    text = f"{prediction.decision} {prediction.probability:.3f} (cut-off {prediction.threshold:g})"
    if prediction.findings is not None:
        firm = sum(not f.tentative for f in prediction.findings)
        text += f", {firm} firm and {len(prediction.findings) - firm} tentative findings"
    for notice in analysis.notices:
        text += f"; {notice.message}"
    return f"{text}; {analysis.bundle.caveat}" if analysis.bundle.caveat else text
