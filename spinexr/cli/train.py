"""`spinexr train`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from spinexr.cli.common import ProgressLine, fail
from spinexr.errors import SpineXRError

if TYPE_CHECKING:
    from spinexr.training.classifier import ClassifierOptions
    from spinexr.training.detector import DetectorOptions

_F = TypeVar("_F", bound=Callable[..., Any])

_ARCHITECTURES = ("densenet121", "resnet50", "tf_efficientnetv2_s")


@click.group()
def train() -> None:
    """Train a bundle on the train part of a dataset; its test part is never opened.

    --out gets the standard layout (“ensemble output”, “detection output”) and, under runs/, one
    folder per network with its configuration, curves and checkpoints.
    """


def _shared(command: _F) -> _F:
    for option in reversed(
        (
            click.option(
                "--data", required=True,
                type=click.Path(exists=True, file_okay=False, path_type=Path),
                help="Dataset in the layout of VinDr-SpineXR.",
            ),
            click.option(
                "--out", required=True, type=click.Path(file_okay=False, path_type=Path),
                help="Root of the bundle.",
            ),
            click.option("--resume", is_flag=True, help="Go on after the last whole epoch."),
            click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
            click.option(
                "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto",
                show_default=True,
            ),
            click.option(
                "--intensity", type=click.Choice(["stored-minmax", "display"]),
                default="stored-minmax", show_default=True,
                help="Grey values: stored ones, or as displayed (Modality and VOI LUT).",
            ),
            click.option(
                "--pretrained/--from-scratch", default=True, show_default=True,
                help="Start from ImageNet weights where timm and ultralytics can fetch them.",
            ),
            click.option("--half", is_flag=True, help="Write classifiers in half precision."),
            click.option("--name", default="own weights", show_default=True, help="Bundle's name."),
            click.option(
                "--training-data", type=click.Choice(["synthetic", "patients", "unknown"]),
                help="What manifests say.  [default: synthetic for phantoms, else unknown]",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


_initial = click.option(
    "--initial", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Root of a bundle to start from instead of fetched weights or none.",
)  # fmt: skip
_teacher = click.option(
    "--teacher", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Root of a bundle whose DenseNet121 the other classifiers learn from, beside the labels.",
)  # fmt: skip


def _of_classifiers(command: _F) -> _F:
    for option in reversed(
        (
            click.option("--epochs", type=click.IntRange(min=1), default=30, show_default=True),
            click.option("--size", type=click.IntRange(32, 1024), default=224, show_default=True),
            click.option(
                "--window", type=click.IntRange(32, 1024),
                help="Side of the windows cut from images in the first epochs.  [default: half "
                "of --size]",
            ),
            click.option(
                "--window-share", type=click.FloatRange(0, 1, max_open=True), default=0.5,
                show_default=True, help="Share of the epochs that see windows.",
            ),
            click.option("--batch", type=click.IntRange(min=2), default=32, show_default=True),
            click.option(
                "--learning-rate", type=click.FloatRange(0, 1, min_open=True), default=1.5e-3,
                show_default=True,
            ),
            click.option(
                "--search", is_flag=True,
                help="Choose member weights and cut-off on validation, not the standard ones.",
            ),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _of_detector(prefix: str) -> Callable[[_F], _F]:
    def add(command: _F) -> _F:
        for option in reversed(
            (
                click.option(
                    "--scale", type=click.Choice(list("nsmlx")), default="n", show_default=True,
                    help="Scale of the YOLO11 detector.",
                ),
                click.option(
                    f"--{prefix}epochs", "detector_epochs", type=click.IntRange(min=1),
                    default=60, show_default=True,
                ),
                click.option(
                    f"--{prefix}size", "detector_size", type=click.IntRange(64, 2048), default=640,
                    show_default=True, help="Longer side of the detector's inputs.",
                ),
                click.option(
                    f"--{prefix}window", "detector_window", type=click.IntRange(0, 2048),
                    default=0, show_default=True,
                    help="Side of windows cut around findings, to train on instead of whole "
                    "images; 0 for whole images.",
                ),
                click.option(
                    f"--{prefix}rectangular", "detector_rectangular", is_flag=True,
                    help="Train on images in their own shape, without mosaics, not on squares: a "
                    "third less work where all have one shape.",
                ),
                click.option(
                    f"--{prefix}learning-rate", "detector_learning_rate",
                    type=click.FloatRange(0, 1, min_open=True), default=1e-3, show_default=True,
                ),
                click.option(
                    f"--{prefix}batch", "detector_batch", type=click.IntRange(min=2), default=16,
                    show_default=True,
                ),
            )
        ):  # fmt: skip
            command = option(command)
        return command

    return add


@train.command()
@_shared
@click.option(
    "--member", "members", type=click.Choice(_ARCHITECTURES), multiple=True,
    help="Train this one only; may be given more than once.",
)  # fmt: skip
@_of_classifiers
@_initial
@_teacher
def classifier(members: tuple[str, ...], **given: Any) -> None:
    """Train the classifiers of the ensemble."""
    _run(given, members=members or _ARCHITECTURES)


@train.command()
@_shared
@_of_detector("")
@_initial
def detector(**given: Any) -> None:
    """Train the YOLO11 lesion detector."""
    _run(given, detect=True)


@train.command("all")
@_shared
@_of_classifiers
@_initial
@_teacher
@_of_detector("detector-")
def everything(**given: Any) -> None:
    """Train the classifiers, then the detector."""
    _run(given, members=_ARCHITECTURES, detect=True)


def _run(given: dict[str, Any], *, members: tuple[str, ...] = (), detect: bool = False) -> None:
    from spinexr.domain import TrainingData
    from spinexr.training import commands

    bar = ProgressLine()
    kind = given["training_data"]
    job = commands.Job(
        data=given["data"],
        out=given["out"],
        name=given["name"],
        training_data=TrainingData(kind) if kind else None,
        initial=given.get("initial"),
        teacher=given.get("teacher"),
        resume=given["resume"],
        half=given["half"],
        device=given["device"],
        command=_command_line(),
        report=bar.say,
        progress=bar,
    )
    shared = {k: given[k] for k in ("seed", "intensity", "pretrained")}
    try:
        # Everything that can be refused is refused before the first run begins.
        commands.check_given(
            job, architectures=members, detector=f"yolo11{given['scale']}" if detect else None
        )
        classifiers = _classifier_options(given, shared) if members else None
        boxes = _detector_options(given, shared) if detect else None
        if classifiers:
            commands.train_classifiers(
                job, classifiers, architectures=members, search=given["search"]
            )
        if boxes:
            commands.train_detector(job, boxes)
    except SpineXRError as e:
        fail(e.message)
    except OSError as e:
        fail(
            f"{e.filename or job.out}: {e.strerror or e}. What is finished is kept: mend that, and "
            "go on with --resume."
        )


def _classifier_options(given: dict[str, Any], shared: dict[str, Any]) -> ClassifierOptions:
    from spinexr.training.classifier import ClassifierOptions

    return ClassifierOptions(
        epochs=given["epochs"],
        size=given["size"],
        window=given["window"] or max(32, given["size"] // 2),
        window_share=given["window_share"],
        batch=given["batch"],
        learning_rate=given["learning_rate"],
        **shared,
    )


def _detector_options(given: dict[str, Any], shared: dict[str, Any]) -> DetectorOptions:
    from spinexr.training.detector import DetectorOptions

    return DetectorOptions(
        scale=given["scale"],
        epochs=given["detector_epochs"],
        size=given["detector_size"],
        window=given["detector_window"],
        rectangular=given["detector_rectangular"],
        batch=given["detector_batch"],
        learning_rate=given["detector_learning_rate"],
        **shared,
    )


def _command_line() -> str:
    """The command as a manifest keeps it: paths by their last part, so that none leaks."""
    return shlex.join(["spinexr", *map(_without_path, sys.argv[1:])])


def _without_path(word: str) -> str:
    option, equals, value = word.partition("=")
    if equals and option.startswith("-"):
        return f"{option}={_without_path(value)}"
    return Path(word).name if "/" in word or "\\" in word else word
