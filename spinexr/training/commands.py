"""What `spinexr train` does: runs → checkpoints in the standard layout → manifests."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from spinexr import __version__
from spinexr.datasets import phantoms
from spinexr.domain import TrainingData
from spinexr.errors import ConfigurationError, TrainingError
from spinexr.evaluation.classification import expected_calibration_error
from spinexr.inference.bundle import (
    DETECTION_FOLDER,
    ENSEMBLE_FOLDER,
    MANIFEST,
    STANDARD_ENSEMBLE,
    Intensity,
    sha256_of,
)
from spinexr.inference.familiarity import save
from spinexr.training import calibration, classifier, detector, familiarity, release, select
from spinexr.training.calibration import Calibration
from spinexr.training.classifier import ClassifierOptions, Trained
from spinexr.training.detector import DetectorOptions
from spinexr.training.examples import Progress, TrainPart, prepare, read_train_part, silent
from spinexr.training.runs import RunFolder

import timm  # isort: skip  (after what makes it importable)
import ultralytics  # isort: skip

RUNS = "runs"
_RESULT = "result.json"
ARCHITECTURES = tuple(select.standard().weights)
TEACHER = "densenet121"  # it learns soonest from few images, and counts most


@dataclass(frozen=True, slots=True)
class Job:
    """Where from, where to and how; the same for classifiers and detector."""

    data: Path
    out: Path
    name: str = "own weights"
    training_data: TrainingData | None = None  # None: synthetic for phantoms, else unknown
    initial: Path | None = None  # root of a bundle whose members to start from
    teacher: Path | None = None  # root of a bundle whose DenseNet121 the others learn from
    resume: bool = False
    half: bool = False
    device: str = "auto"
    command: str = ""
    report: Callable[[str], None] = lambda _line: None
    progress: Progress = silent

    def run_folder(self, name: str) -> RunFolder:
        return RunFolder(self.out / RUNS / name)


def check_given(job: Job, *, architectures: Sequence[str], detector: str | None) -> None:
    """That the bundles to start and to learn from have what is needed, and --out has room for runs.

    Args:
        detector: its architecture, where one is to be trained.

    Raises:
        ConfigurationError: a checkpoint is missing; it is named.
        TrainingError: a run is there already and is not to be resumed.
    """
    if not job.resume:
        for architecture in [*architectures, *([detector] if detector else [])]:
            job.run_folder(architecture).check_free()
    if job.teacher is not None:
        _sha256(release.member_file(job.teacher, TEACHER))
    if job.initial is None:
        return
    for architecture in architectures:
        _sha256(release.member_file(job.initial, architecture))
    if detector:
        _sha256(release.detector_file(job.initial))


def train_classifiers(
    job: Job, options: ClassifierOptions, *, architectures: Sequence[str], search: bool
) -> None:
    """Train the members one after the other; write the manifest when all three are there.

    A finished member is not trained again when resuming, only calibrated and written again.

    Raises:
        ConfigurationError: the data, or a run that does not fit; nothing finished is lost.
    """
    part = read_train_part(job.data, validation_share=options.validation_share, seed=options.seed)
    if job.teacher is not None:
        _check_origin(job.teacher, TEACHER, ENSEMBLE_FOLDER, part, options, intensity=True)
    if job.initial is not None:
        for architecture in architectures:
            _check_origin(job.initial, architecture, ENSEMBLE_FOLDER, part, options)
    job.report(f"{len(part.training)} images to train on, {len(part.validation)} to validate.")
    for architecture in architectures:
        folder = job.run_folder(architecture)
        initial = release.member_file(job.initial, architecture) if job.initial else None
        teacher = None
        if job.teacher is not None and architecture != TEACHER:
            teacher = release.member_file(job.teacher, TEACHER)
        wanted = replace(
            options,
            initial_sha256=_sha256(initial) if initial else "",
            teacher=TEACHER if teacher else "",
            teacher_sha256=_sha256(teacher) if teacher else "",
        )
        if teacher and job.resume and _read_result(folder) is not None:
            # It has learnt what it had to; a teacher in --out was calibrated anew since then.
            taught = str(folder.config()["options"].get("teacher_sha256"))
            wanted = replace(wanted, teacher_sha256=taught)
        trained = classifier.train(
            architecture,
            part,
            folder,
            wanted,
            initial=initial,
            teacher=teacher,
            resume=job.resume and folder.exists(),
            device=job.device,
            commands=[
                *(_earlier(job.teacher, TEACHER, ENSEMBLE_FOLDER) if teacher else []),
                *_earlier(job.initial, architecture, ENSEMBLE_FOLDER),
                job.command,
            ],
            cache=job.out / RUNS / "cache",
            report=job.report,
            progress=job.progress,
        )
        _write_result(folder, trained)
        if not all(_read_result(job.run_folder(a)) for a in ARCHITECTURES):
            _write_member(job, job.out, architecture, trained.calibration)  # as a teacher, perhaps
        shown = ", ".join(f"{k} {v:.4g}" for k, v in trained.validation.items())
        job.report(f"{architecture}: {shown}.")
    finish_ensemble(job, part, options, search=search)


def finish_ensemble(job: Job, part: TrainPart, options: ClassifierOptions, *, search: bool) -> None:
    """Write the ensemble's manifest, if every member has been trained."""
    results = {a: _read_result(job.run_folder(a)) for a in ARCHITECTURES}
    missing = [a for a, result in results.items() if result is None]
    if missing:
        job.report(f"The manifest waits for {', '.join(missing)}.")
        return
    _same_run(job, part, options)
    found = {a: r for a, r in results.items() if r is not None}
    abnormal = np.array([i.abnormal for i in part.validation])
    alone = {a: Calibration(**r["calibration"]) for a, r in found.items()}
    logits = {a: alone[a].apply(np.array(r["logits"])) for a, r in found.items()}
    point = select.standard()
    if search:
        point = select.search({a: _sigmoid(z) for a, z in logits.items()}, abnormal)
    together = calibration.fit(
        np.stack([logits[a] for a in point.weights]),
        abnormal,
        weights=np.array(list(point.weights.values())),
    )
    served_logits = {a: together.apply(z) for a, z in logits.items()}
    scores = {a: _sigmoid(z) for a, z in served_logits.items()}
    mean = np.sum([scores[a] * w for a, w in point.weights.items()], axis=0)
    if search:
        point = replace(point, threshold=select.youden(mean, abnormal))
    called = mean > point.threshold
    served = {a: c.then(together) for a, c in alone.items()}
    # Made aside, so that until all of it is there what was there before stays as it was.
    aside = job.out / RUNS / "release"
    for architecture, fitted in served.items():
        _write_member(job, aside, architecture, fitted)
    validation: dict[str, Any] = {
        "images": len(abnormal),
        "auroc": round(float(roc_auc_score(abnormal, mean)), 4),
        "ece": round(expected_calibration_error(abnormal, mean), 4),
        "sensitivity": round(float(called[abnormal].mean()), 4),
        "specificity": round(float((~called[~abnormal]).mean()), 4),
        "members": {
            a: found[a]["validation"] | _calibrated(z, abnormal) for a, z in served_logits.items()
        },
        "epochs": {a: r["epochs"] for a, r in found.items()},
        "calibration": {a: _rounded(asdict(c)) for a, c in served.items()},
        "operating_point": "searched on validation" if search else "standard",
    }
    _write_familiarity(job, aside, part, options)
    release.write_ensemble_manifest(
        aside,
        point=point,
        size=options.size,
        intensity=options.intensity,
        about=_about(
            job, part, options.seed, validation, _commands(job),
            {a: job.run_folder(a).initial_weights() for a in ARCHITECTURES},
        ),
    )  # fmt: skip
    release.put_in_place(aside, job.out)
    job.report(
        f"ensemble: validation AUROC {validation['auroc']}, sensitivity "
        f"{validation['sensitivity']}, specificity {validation['specificity']} at "
        f"{point.threshold:.3f}."
    )


def _sigmoid(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    result: npt.NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return result


def _calibrated(
    logits: npt.NDArray[np.float64], abnormal: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """What a member's calibration changes of its figures, as it is served."""
    margin = np.where(abnormal, logits, -logits)
    return {
        "ece": round(expected_calibration_error(abnormal, _sigmoid(logits)), 4),
        "loss": round(float(np.logaddexp(0, -margin).mean()), 4),
    }


def _write_member(job: Job, root: Path, architecture: str, fitted: Calibration) -> None:
    """The checkpoint of a member at its best, `fitted` folded into its head, in a bundle."""
    network: Any = classifier.best(architecture, job.run_folder(architecture))
    calibration.fold(network.get_classifier(), fitted)
    release.write_member(release.member_file(root, architecture), network, half=job.half)


def _write_familiarity(job: Job, root: Path, part: TrainPart, options: ClassifierOptions) -> None:
    """Statistics of the features that the members in a bundle have of the training images."""
    sides = [
        prepare(
            images,
            side=options.size,
            intensity=Intensity(options.intensity),
            cache=job.out / RUNS / "cache",
            fingerprint=part.fingerprint,
            progress=job.progress,
        )
        for images in (part.training, part.validation)
    ]
    preprocessing = STANDARD_ENSEMBLE["preprocessing"]
    statistics = familiarity.fit(
        {
            m["name"]: (m["architecture"], release.member_file(root, m["architecture"]))
            for m in STANDARD_ENSEMBLE["members"]
        },
        sides[0],
        sides[1],
        mean=tuple(preprocessing["mean"]),
        std=tuple(preprocessing["std"]),
        device=job.device,
        seed=options.seed,
        progress=job.progress,
    )
    save(statistics, release.familiarity_file(root))


def train_detector(job: Job, options: DetectorOptions) -> None:
    """Train the detector and write its checkpoint and manifest.

    Raises:
        ConfigurationError: the data, or a run that does not fit; nothing finished is lost.
    """
    part = read_train_part(job.data, validation_share=options.validation_share, seed=options.seed)
    if job.initial is not None:
        _check_origin(job.initial, options.architecture, DETECTION_FOLDER, part, options)
    folder = job.run_folder(options.architecture)
    initial = release.detector_file(job.initial) if job.initial else None
    commands = [*_earlier(job.initial, options.architecture, DETECTION_FOLDER), job.command]
    trained = detector.train(
        part,
        folder,
        replace(options, initial_sha256=_sha256(initial) if initial else ""),
        initial=initial,
        resume=job.resume and folder.exists(),
        device=job.device,
        commands=commands,
        data=job.out / RUNS / "detector-data",
        report=job.report,
        progress=job.progress,
    )
    detector.release_checkpoint(trained, release.detector_file(job.out))
    validation = _rounded(trained.validation)
    release.write_detection_manifest(
        job.out,
        architecture=options.architecture,
        size=options.size,
        intensity=options.intensity,
        about=_about(
            job,
            part,
            options.seed,
            validation | {"epochs": trained.epochs},
            commands,
            {options.architecture: folder.initial_weights()},
        ),
    )
    job.report(f"{options.architecture}: validation {validation}.")


def _about(
    job: Job, part: TrainPart, seed: int, validation: dict[str, Any], commands: list[str],
    initial_weights: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    made = _phantoms(part.root)
    kind = job.training_data or (TrainingData.SYNTHETIC if made else TrainingData.UNKNOWN)
    described = (
        f"phantoms: {made['studies']} studies, seed {made['seed']}, "
        f"{made['rows']} × {made['columns']} pixels"
        + (", findings of one class each" if made.get("alone") else "")
        if made
        else f"the train part of {part.root.name}"
    )
    return release.about(
        name=job.name,
        training_data=kind,
        description=described,
        commands=commands,
        fingerprint=part.fingerprint,
        seed=seed,
        initial_weights=initial_weights,
        versions={
            "spinexr": __version__,
            "torch": torch.__version__,
            "timm": timm.__version__,
            "ultralytics": ultralytics.__version__,
        },
        validation=validation,
    )


def _sha256(checkpoint: Path) -> str:
    try:
        return sha256_of(checkpoint)
    except OSError as e:
        raise ConfigurationError(f"{checkpoint} cannot be read: {e.strerror}.") from e


def _same_run(job: Job, part: TrainPart, options: ClassifierOptions) -> None:
    """That every member was trained on this data with what an ensemble has in common.

    Raises:
        ConfigurationError: one was not; together they would be no ensemble.
    """
    shared = ("size", "intensity", "seed", "validation_share")
    for architecture in ARCHITECTURES:
        config = job.run_folder(architecture).config()
        given = {k: config["options"].get(k) for k in shared}
        wanted = {k: getattr(options, k) for k in shared}
        if config["data"] != part.fingerprint or given != wanted:
            raise ConfigurationError(
                f"{architecture} was trained on other data or with another size, intensity or "
                f"seed ({given}, not {wanted}), so the members are no ensemble: train it again, or "
                "give another --out."
            )


def _commands(job: Job) -> list[str]:
    """What made the classifiers, and before that what made those they started from."""
    made = [str(c) for a in ARCHITECTURES for c in job.run_folder(a).config()["commands"]]
    return list(dict.fromkeys(made))


def _earlier(initial: Path | None, architecture: str, folder: str) -> list[str]:
    """The commands that made the checkpoint to start from: from its run, else from its manifest."""
    if initial is None:
        return []
    try:
        return [str(c) for c in RunFolder(initial / RUNS / architecture).config()["commands"]]
    except (TrainingError, KeyError):
        pass
    try:
        manifest = json.loads((initial / folder / MANIFEST).read_text(encoding="utf-8"))
        return [str(c) for c in manifest["provenance"]["commands"]]
    except (OSError, ValueError, KeyError, TypeError):
        return ["unknown: the bundle started from does not say"]


def _check_origin(
    root: Path,
    architecture: str,
    folder: str,
    part: TrainPart,
    options: ClassifierOptions | DetectorOptions,
    *,
    intensity: bool = False,
) -> None:
    """That a network to start or to learn from fits this run, as far as its run or manifest says.

    Args:
        intensity: whether it must have seen grey values of the same kind.

    Raises:
        ConfigurationError: it was trained on images that validate this run, or on others' values.
    """
    data, seed, values = _origin(root, architecture, folder)
    if data == part.fingerprint and seed != options.seed:
        raise ConfigurationError(
            f"The {architecture} in {root} was trained on this data split with seed {seed}, so it "
            f"knows images that are to validate this run: give --seed {seed}."
        )
    if intensity and values is not None and values != options.intensity:
        raise ConfigurationError(
            f"The {architecture} in {root} was trained with --intensity {values}: it cannot teach "
            f"with {options.intensity}."
        )


def _origin(root: Path, architecture: str, folder: str) -> tuple[Any, Any, Any]:
    """Data fingerprint, seed and intensity behind a checkpoint; None for what nobody says."""
    try:
        config = RunFolder(root / RUNS / architecture).config()
        return config["data"], config["options"]["seed"], config["options"]["intensity"]
    except (TrainingError, KeyError):
        pass
    try:
        manifest = json.loads((root / folder / MANIFEST).read_text(encoding="utf-8"))
        made = manifest["provenance"]
        return made["data_fingerprint"], made["seed"], manifest["preprocessing"]["intensity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None, None, None


def _phantoms(root: Path) -> dict[str, Any] | None:
    try:
        about = json.loads((root / phantoms.ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) else None


def _write_result(folder: RunFolder, trained: Trained) -> None:
    result = {
        "validation": _rounded(trained.validation),
        "calibration": asdict(trained.calibration),
        "epochs": trained.epochs,
        "logits": [float(v) for v in trained.logits],
    }
    release.write_json(folder.path / _RESULT, result)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {k: round(v, 4) for k, v in values.items()}


def _read_result(folder: RunFolder) -> dict[str, Any] | None:
    try:
        result = json.loads((folder.path / _RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return result if isinstance(result, dict) else None
