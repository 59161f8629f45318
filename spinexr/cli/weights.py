"""`spinexr weights`: bundles on disk."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spinexr.cli.common import FAILED, ProgressLine, fail, settings_with, weights_option
from spinexr.errors import SpineXRError

if TYPE_CHECKING:
    from spinexr.training.adopt import Found, Profile

_MEBIBYTE = 1024 * 1024


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


@weights.command("list")
@weights_option
def listing(weights: Path | None) -> None:
    """Say which bundle would be served, and what is known of it."""
    from spinexr.inference.bundle import load_bundle

    root = settings_with(weights=weights).weights
    try:
        bundle = load_bundle(root)
    except SpineXRError as e:
        fail(e.message)
    click.echo(f"{bundle.name} in {root}")
    if bundle.assumed_profile:
        click.echo("  assumed profile: no manifest vouches for how these weights are used")
    click.echo(f"  training data: {bundle.training_data.value} ({bundle.description})")
    click.echo(f"  licence: {bundle.licence}; intended use: {bundle.intended_use}")
    click.echo(f"  abnormal above {bundle.ensemble.threshold:g}")
    members = [
        (m.name, m.architecture, m.file, m.sha256, f", weight {m.weight:g}")
        for m in bundle.ensemble.members
    ]
    detector = bundle.detector
    members.append(("detector", detector.architecture, detector.file, detector.sha256, ""))
    for name, architecture, file, sha256, more in members:
        size = f"{file.stat().st_size / 1e6:.1f} MB" if file.is_file() else "missing"
        vouched = sha256[:12] + "…" if sha256 else "no hash in the manifest"
        click.echo(f"  {name}: {architecture}{more}, {bundle.relative(file)}, {size}, {vouched}")


@weights.command()
@weights_option
def verify(weights: Path | None) -> None:
    """Load every network as a server does and have each answer once.

    Exit status 1 when one does not; every problem is named.
    """
    from spinexr.inference.engines import EngineOptions
    from spinexr.inference.loading import load_predictor

    root = settings_with(weights=weights).weights
    try:
        predictor = load_predictor(root, EngineOptions(engine="torch", device="cpu"))
    except SpineXRError as e:
        for problem in getattr(e, "problems", ()) or (e,):
            click.echo(f"WRONG {problem.message}")
        sys.exit(FAILED)
    for model in predictor.engine.models:
        click.echo(f"ok    {model.name}: {model.architecture}, {model.file}, {model.sha256}")
    predictor.close()


@weights.command()
@click.argument("a", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("b", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Dataset in the layout of VinDr-SpineXR; its test part is used.",
)
@click.option("--json", "as_document", is_flag=True, help="Print JSON instead of the table.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep comparison.md, comparison.json, a.csv and b.csv (the predictions) in this folder.",
)
@click.option("--skip-bad", is_flag=True, help="Go on without images that have a problem.")
def compare(
    a: Path, b: Path, data: Path, as_document: bool, out: Path | None, skip_bad: bool
) -> None:
    """Compare the bundles A and B on one dataset: paired differences with 95 % intervals.

    Each bundle is used at its own cut-off. The dataset is validated first, as by evaluate.
    """
    from spinexr.cli.evaluate import run_bundle
    from spinexr.datasets import vindr
    from spinexr.evaluation import compare as comparing
    from spinexr.evaluation import predictions

    try:
        dataset = vindr.read(data, parts=("test",))
        for problem in dataset.problems:
            click.echo(str(problem), err=True)
        if dataset.problems and not skip_bad:
            fail(f"{len(dataset.problems)} problems in the dataset; --skip-bad goes on without.")
        if not dataset.images:
            fail("no image is left to compare on.")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        context: dict[str, object] = {"data": dataset.root.name, "part": "test"}
        answers, cuts = {}, {}
        for name, root in (("a", a), ("b", b)):
            settings = settings_with(weights=root)
            answers[name], used, about = run_bundle(
                dataset.images, settings, label=f"{name.upper()} analyses"
            )
            cuts[name] = used.ensemble.threshold
            context |= {name: about["bundle"], f"about_{name}": about}
            if out is not None:
                predictions.write(answers[name], out / f"{name}.csv")
        found = comparing.compare(
            dataset.images, answers["a"], answers["b"], thresholds=(cuts["a"], cuts["b"])
        )
        if found.unanswered and not skip_bad:
            fail(
                f"{len(found.unanswered)} images could not be analysed "
                f"({', '.join(sorted(set(found.unanswered.values())))}); --skip-bad goes on "
                "without."
            )
        document = comparing.as_json(found, context)
        table = comparing.as_markdown(found, context)
        if out is not None:
            (out / "comparison.json").write_text(document, encoding="utf-8")
            (out / "comparison.md").write_text(table, encoding="utf-8")
    except SpineXRError as e:
        fail(e.message)
    except OSError as e:
        fail(str(e))
    click.echo(document if as_document else table, nl=False)


@weights.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Root of the bundle.  [default: SOURCE, where its files lie in the standard layout]",
)
@click.option(
    "--profile",
    type=click.Choice(["standard"]),
    help="Used as existing checkpoints of this ensemble are: 224 pixels, stored values, no flips, "
    "0.42/0.26/0.32, cut-off 0.449. Options below replace parts of it.",
)
@click.option("--size", type=click.IntRange(32, 2048), help="Side of the classifiers' input.")
@click.option("--intensity", type=click.Choice(["stored-minmax", "display"]), help="Grey values.")
@click.option("--flip/--no-flip", default=None, help="Average with the mirrored image.")
@click.option("--threshold", type=click.FloatRange(0, 1, min_open=True), help="Abnormal above it.")
@click.option(
    "--member-weights",
    metavar="D,R,E",
    help="Of DenseNet121, ResNet50 and EfficientNetV2-S; add up to 1.",
)
@click.option("--detector-size", type=click.IntRange(32, 4096), help="Longer side, its input.")
@click.option("--name", help="Bundle's name.")
@click.option("--training-data", type=click.Choice(["synthetic", "patients", "unknown"]))
@click.option("--description", help="What it was trained on and how.")
@click.option("--licence", help="Under which the weights may be used.")
def adopt(source: Path, out: Path | None, **given: Any) -> None:
    """Make a bundle of somebody's checkpoints in SOURCE: the standard layout, or four loose files.

    What the files hold is checked; what they do not say is asked for, or taken from the options.
    """
    from spinexr.domain import TrainingData
    from spinexr.training import adopt as adopting

    try:
        found = adopting.find(source)
        for holds, file in found.files.items():
            known = ", a known file" if found.digests[holds] in adopting.KNOWN else ""
            click.echo(f"{file}: {holds}{known}")
        profile = _profile(found, given)
        about = _about(found, given)
        adopting.adopt(
            found, out or source, profile, training_data=TrainingData(about.pop("training_data")),
            **about,
        )  # fmt: skip
    except SpineXRError as e:
        fail(e.message)
    root = str(out or source)
    click.echo(
        f"Wrote the manifests below {root}; now: python -m spinexr weights verify --weights "
        f"{shlex.quote(root)}"
    )


def _profile(found: Found, given: dict[str, Any]) -> Profile:
    from dataclasses import replace

    from spinexr.inference.bundle import Flip, Intensity
    from spinexr.training import adopt as adopting

    standard = adopting.standard_profile()
    wanted = {
        "size": ("size", given["size"]),
        "intensity": ("intensity", Intensity(given["intensity"]) if given["intensity"] else None),
        "flip": ("flips", _flips(Flip, given["flip"])),
        "threshold": ("threshold", given["threshold"]),
        "member-weights": ("weights", _member_weights(given["member_weights"])),
        "detector-size": ("detector_size", given["detector_size"]),
    }
    if given["profile"] is None and not found.known:
        for option, (field, value) in wanted.items():
            if value is None:
                wanted[option] = (field, _ask(option, field, standard))
    return replace(standard, **{f: v for f, v in wanted.values() if v is not None})


def _ask(option: str, field: str, standard: Profile) -> Any:
    """A person's word for what the files do not say; nothing is assumed for a script."""
    if not sys.stdin.isatty():
        fail(
            f"The files do not say their {option}: give --{option}, or --profile standard where "
            "they are used as existing checkpoints of this ensemble are."
        )
    usual = getattr(standard, field)
    if not click.confirm(f"{option}: is it {_shown(usual)}, as in the standard profile?"):
        fail(f"Then give --{option}.")
    return usual


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {v:g}" for k, v in value.items())
    return ", ".join(value) if isinstance(value, tuple) else str(value)


def _about(found: Found, given: dict[str, Any]) -> dict[str, Any]:
    from spinexr.training import adopt as adopting

    usual = {
        "name": "the original's checkpoints" if found.known else "adopted weights",
        "training_data": "patients" if found.classifiers_known else "unknown",
        "description": "not said when they were adopted",
        "licence": "unknown",
    }
    about = {key: given[key] or value for key, value in usual.items()}
    if found.classifiers_known:  # whatever else is said of them
        said = [adopting.KNOWN_DESCRIPTION, given["description"]]
        about["description"] = " ".join(filter(None, said))
    return about


def _flips(kind: Any, flip: bool | None) -> Any:
    if flip is None:
        return None
    return (kind.NONE, kind.HORIZONTAL) if flip else (kind.NONE,)


def _member_weights(text: str | None) -> dict[str, float] | None:
    from spinexr.training import adopt as adopting

    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
        return dict(zip(adopting.ARCHITECTURES, values, strict=True))
    except ValueError:
        fail(f"--member-weights {text!r} is not three numbers such as 0.42,0.26,0.32.")


@weights.command()
@click.argument("url")
@click.option("--sha256", required=True, help="What the file must have, 64 hexadecimal digits.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="File.  [default: the address's last part]"
)
@click.option(
    "--limit-mb", type=click.IntRange(min=1), default=2048, show_default=True,
    help="Most that is taken, in MB of 1,048,576 bytes.",
)  # fmt: skip
def fetch(url: str, sha256: str, out: Path | None, limit_mb: int) -> None:
    """Fetch a checkpoint by https, or from a file: address.

    A fetch that was cut off goes on where it was; what comes must have the SHA-256.
    """
    import re
    from urllib.parse import urlsplit

    from spinexr import fetching

    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        fail("--sha256 must be 64 hexadecimal digits.")
    last = urlsplit(url).path.rsplit("/", 1)[-1]
    if out is None and not last:
        fail(f"{url} names no file: say where it goes with --out.")
    file = out or Path(last)
    bar = ProgressLine()
    try:
        fetching.fetch(url, file, sha256=sha256, largest_bytes=limit_mb * _MEBIBYTE, progress=bar)
    except SpineXRError as e:
        fail(e.message)
    bar.say(f"Wrote {file}.")
