"""`spinexr evaluate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spinexr.cli.common import fail, settings_with
from spinexr.errors import SpineXRError

if TYPE_CHECKING:
    from spinexr.datasets.vindr import LabelledImage
    from spinexr.evaluation.predictions import ImagePrediction
    from spinexr.inference.bundle import Bundle
    from spinexr.settings import Settings


@click.command()
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Dataset in the layout of VinDr-SpineXR.",
)
@click.option(
    "--bundle",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Weights to judge.  [default: SPINEXR_WEIGHTS, else the project folder]",
)
@click.option(
    "--predictions",
    "predictions_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Judge this csv instead of running a model.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for report.html, report.md, metrics.json and predictions.csv.",
)
@click.option("--part", type=click.Choice(["train", "test"]), default="test", show_default=True)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Cut-off.  [default: the bundle's; 0.449 with --predictions]",
)
@click.option("--skip-bad", is_flag=True, help="Go on without images that have a problem.")
def evaluate(
    data: Path,
    bundle: Path | None,
    predictions_file: Path | None,
    out: Path,
    part: str,
    threshold: float | None,
    skip_bad: bool,
) -> None:
    """Judge a bundle, or somebody's predictions, on labelled radiographs.

    The dataset is validated first; every problem is named by row or file and ends the run, unless
    --skip-bad leaves those images out and lists them in the report.
    """
    from spinexr.datasets import vindr
    from spinexr.evaluation import judge, predictions, report, run
    from spinexr.inference.bundle import STANDARD_DETECTION, STANDARD_ENSEMBLE

    settings = settings_with(weights=bundle)
    try:
        dataset = vindr.read(data, parts=(part,))
        for problem in dataset.problems:
            click.echo(str(problem), err=True)
        if dataset.problems and not skip_bad:
            fail(f"{len(dataset.problems)} problems in the dataset; --skip-bad goes on without.")
        if not dataset.images:
            fail("no image is left to evaluate.")
        context: dict[str, object] = {"data": dataset.root.name, "part": part}
        if predictions_file is not None:
            answers = predictions.read(predictions_file, classes=vindr.CLASSES)
            cut = STANDARD_ENSEMBLE["threshold"] if threshold is None else threshold
            on_normal = STANDARD_DETECTION["confidence"]["on_normal"]
            context["predictions"] = predictions_file.name
        else:
            answers, used, about = run_bundle(dataset.images, settings)
            cut = used.ensemble.threshold if threshold is None else threshold
            on_normal = used.detector.on_normal_confidence
            context |= about
        out.mkdir(parents=True, exist_ok=True)
        predictions.write(answers, out / "predictions.csv")
        judgement = judge.judge(
            dataset.images, answers, threshold=cut, on_normal_confidence=on_normal,
            groups=run.groups_of(dataset.images),
        )  # fmt: skip
        if judgement.unanswered and not skip_bad:
            fail(
                f"{len(judgement.unanswered)} images could not be analysed "
                f"({', '.join(sorted(set(judgement.unanswered.values())))}); predictions.csv "
                "names them, --skip-bad goes on without."
            )
        by_id = {a.image_id: a for a in answers}
        judged = [i for i in dataset.images if by_id[i.image_id].probability is not None]
        curves = {"ensemble": [by_id[i.image_id].probability or 0.0 for i in judged]}
        for name in judgement.scores:
            if all(name in by_id[i.image_id].members for i in judged):
                curves[name] = [by_id[i.image_id].members[name] for i in judged]
        (out / "metrics.json").write_text(report.as_json(judgement, context), encoding="utf-8")
        table = report.as_markdown(judgement, context)
        (out / "report.md").write_text(table, encoding="utf-8")
        page = report.as_html(
            judgement,
            context,
            abnormal=[i.abnormal for i in judged],
            scores=dict(curves),
            problems=[str(p) for p in dataset.problems],
        )
        (out / "report.html").write_text(page, encoding="utf-8")
    except SpineXRError as e:
        fail(e.message)
    except OSError as e:
        fail(str(e))
    click.echo(table)


def run_bundle(
    images: tuple[LabelledImage, ...], settings: Settings, *, label: str = "Analysing"
) -> tuple[list[ImagePrediction], Bundle, dict[str, object]]:
    """The answers of the bundle that `settings` name, the bundle, and what a report says of it."""
    from spinexr.evaluation import run
    from spinexr.inference.loading import load_predictor

    predictor = load_predictor(settings.weights, settings.engine_options)
    answers = []
    with click.progressbar(
        run.predict(images, predictor, max_pixels=settings.max_pixels),
        length=len(images),
        label=label,
        file=sys.stderr,
        show_pos=True,
    ) as progress:
        for answer in progress:
            answers.append(answer)
    summary = predictor.summary
    about: dict[str, object] = {
        "bundle": summary.name,
        "training_data": summary.training_data.value,
        "caveat": summary.caveat,
        "engine": f"{predictor.engine.name} {predictor.engine.version}",
        "sha256": {m.name: m.sha256 for m in predictor.engine.models},
    }
    predictor.close()
    return answers, predictor.bundle, about
