"""The bundle: two folders of weights with a manifest.json beside each.

`ensemble output/manifest.json` and `detection output/manifest.json` say everything a network needs
to be used as it was trained. A folder without a manifest but with checkpoints in the standard
places gets the standard profile, and every result then says "assumed profile".
docs/bundle.md documents the format.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from spinexr.domain import BundleSummary, TrainingData
from spinexr.errors import ConfigurationError, ModelsNotReadyError, Problem

ENSEMBLE_FOLDER = "ensemble output"
DETECTION_FOLDER = "detection output"
MANIFEST = "manifest.json"
MANIFEST_VERSION = 1

_CHUNK_BYTES = 1 << 20
_REVIEW = 0.05

_E = TypeVar("_E", bound=StrEnum)


class Intensity(StrEnum):
    """How a radiograph becomes the uint8 image that a network was trained on."""

    STORED_MINMAX = "stored-minmax"  # stored values, before Modality and VOI LUT
    DISPLAY = "display"  # after Modality and VOI LUT and polarity


class Flip(StrEnum):
    """Views whose logits are averaged at test time."""

    NONE = "none"
    HORIZONTAL = "horizontal"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Radiograph → classifier input: float32 (3, size, size), standardised per channel."""

    size: int
    intensity: Intensity
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flips: tuple[Flip, ...]

    @property
    def batch_shape(self) -> tuple[int, int, int, int]:
        """(views, 3, size, size): what one radiograph becomes."""
        return (len(self.flips), 3, self.size, self.size)


@dataclass(frozen=True, slots=True)
class MemberSpec:
    """One classifier of the ensemble. `sha256` is None where nothing vouches for the file."""

    name: str
    architecture: str
    file: Path
    sha256: str | None
    weight: float


@dataclass(frozen=True, slots=True)
class EnsembleSpec:
    """The classifiers and what is done with their answers.

    Probabilities within `review_band` are near the cut-off. `familiarity` is a file of statistics
    that tells images unlike the training images, see `familiarity`; None where the bundle has none.
    """

    members: tuple[MemberSpec, ...]
    threshold: float
    review_band: tuple[float, float]
    preprocessing: Preprocessing
    familiarity: Path | None = None
    familiarity_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """The lesion detector. `classes` is None where only the checkpoint knows them."""

    architecture: str
    file: Path
    sha256: str | None
    classes: tuple[str, ...] | None
    size: int
    intensity: Intensity
    firm_confidence: float
    tentative_confidence: float
    on_normal_confidence: float
    iou: float
    max_detections: int

    def mismatch(self, architecture: str, classes: tuple[str, ...]) -> str | None:
        """What a checkpoint of this architecture and these classes has against the manifest."""
        # "yolo11" alone, as in the standard profile, leaves the scale to the checkpoint.
        if self.architecture not in (architecture, architecture[:-1]):
            return f"holds a {architecture}; the manifest says {self.architecture}."
        if self.classes is not None and self.classes != classes:
            return (
                f"knows the classes {', '.join(classes)}; the manifest says "
                f"{', '.join(self.classes)}."
            )
        return None


@dataclass(frozen=True, slots=True)
class Bundle:
    """Everything a result depends on besides the radiograph. Files are absolute paths."""

    root: Path
    name: str
    assumed_profile: bool
    training_data: TrainingData
    description: str
    licence: str
    intended_use: str
    ensemble: EnsembleSpec
    detector: DetectorSpec

    def summary(self, classes: tuple[str, ...]) -> BundleSummary:
        """What a result says about this bundle."""
        return BundleSummary(
            name=self.name,
            assumed_profile=self.assumed_profile,
            training_data=self.training_data,
            description=self.description,
            licence=self.licence,
            intended_use=self.intended_use,
            classes=classes,
        )

    def relative(self, file: Path) -> str:
        """`file` as shown to callers: relative to the weights root."""
        return file.relative_to(self.root).as_posix()

    def missing_files(self) -> tuple[Problem, ...]:
        """One problem for each checkpoint that is not there."""
        files = [*(m.file for m in self.ensemble.members), self.detector.file]
        return tuple(
            Problem("file_missing", f"{self.relative(f)} is missing.", self.relative(f))
            for f in files
            if not f.is_file()
        )

    def files_to_serve_compiled(self) -> tuple[Path, ...]:
        """What a machine with the compiled networks needs of the bundle.

        Raises:
            ConfigurationError: a manifest is missing or leaves out a SHA-256, by which compiled
                networks are found.
        """
        members = self.ensemble.members
        if self.assumed_profile or not all([*(m.sha256 for m in members), self.detector.sha256]):
            raise ConfigurationError(
                "Without manifests that name each checkpoint's SHA-256 compiled networks cannot be "
                "told apart: make them with `python -m spinexr weights adopt`."
            )
        manifests = [self.root / f / MANIFEST for f in (ENSEMBLE_FOLDER, DETECTION_FOLDER)]
        more = [self.ensemble.familiarity] if self.ensemble.familiarity else []
        return (*manifests, *more, *sorted(self.verdicts.glob("*.json")))

    @property
    def verdicts(self) -> Path:
        """Where verdicts on reduced precision lie that are passed on with the bundle."""
        return self.root / ENSEMBLE_FOLDER / "verdicts"


# The standard profile: the layout, weights, cut-off and preprocessing that existing checkpoints of
# this ensemble are used with. Mean and standard deviation are ImageNet's, as in torchvision.
STANDARD_ENSEMBLE: Mapping[str, Any] = {
    "manifest_version": MANIFEST_VERSION,
    "name": "standard profile",
    "threshold": 0.449,
    "members": [
        {
            "name": "DenseNet121",
            "architecture": "densenet121",
            "file": "densenet121_balanced/model_best.pth",
            "weight": 0.42,
        },
        {
            "name": "ResNet50",
            "architecture": "resnet50",
            "file": "resnet50_optimized/model_best.pth",
            "weight": 0.26,
        },
        {
            "name": "EfficientNetV2-S",
            "architecture": "tf_efficientnetv2_s",
            "file": "tf_efficientnetv2_s_optimized/model_best.pth",
            "weight": 0.32,
        },
    ],
    "preprocessing": {
        "size": 224,
        "resize_filter": "bilinear",
        "intensity": "stored-minmax",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "flips": ["none"],
    },
    "provenance": {"training_data": "unknown", "description": "checkpoints without a manifest"},
    "licence": "unknown",
    "intended_use": "research",
}
STANDARD_DETECTION: Mapping[str, Any] = {
    "manifest_version": MANIFEST_VERSION,
    "name": "standard profile",
    "architecture": "yolo11",
    "file": "yolo11/weights/best.pt",
    "classes": None,
    "preprocessing": {"size": 640, "intensity": "stored-minmax"},
    # On an image called normal only boxes of at least 0.5 stay: the fusion rule of the VinDr
    # paper, Nguyen et al., MICCAI 2021 (arXiv:2106.12930).
    "confidence": {"firm": 0.25, "tentative": 0.15, "on_normal": 0.5},
    "iou": 0.7,
    "max_detections": 300,
    "provenance": {"training_data": "unknown", "description": "checkpoint without a manifest"},
    "licence": "unknown",
    "intended_use": "research",
}


def load_bundle(root: Path) -> Bundle:
    """The bundle below `root`; its engine says whether all of its checkpoints are there.

    Raises:
        ModelsNotReadyError: a manifest cannot be read or contradicts itself, or the folder does not
            exist.
    """
    bundle = read_bundle(root)
    if not root.is_dir():
        message = "The weights folder itself does not exist."
        problems = (Problem("weights_folder_missing", message), *bundle.missing_files())
        raise not_ready(problems)
    return bundle


def read_bundle(root: Path) -> Bundle:
    """Read both manifests below `root`, or take the standard profile where one is absent.

    Raises:
        ModelsNotReadyError: a manifest cannot be read or contradicts itself.
    """
    problems: list[Problem] = []
    ensemble, ensemble_assumed = _manifest(root, ENSEMBLE_FOLDER, STANDARD_ENSEMBLE, problems)
    detection, detection_assumed = _manifest(root, DETECTION_FOLDER, STANDARD_DETECTION, problems)
    if problems:
        raise not_ready(problems)
    try:
        return _build(root, ensemble, detection, ensemble_assumed or detection_assumed)
    except _ManifestError as e:
        raise not_ready([Problem("manifest_invalid", f"{e.file}: {e}", e.file)]) from e


def sha256_of(file: Path) -> str:
    """Hex SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_problem(digest: str, expected: str | None) -> str | None:
    """What is wrong with a file of this SHA-256 where the manifest expects another."""
    if expected in (None, digest):
        return None
    return (
        f"has the SHA-256 {digest[:12]}…, but the manifest says {str(expected)[:12]}…: "
        "the file was changed, or belongs to another bundle."
    )


def not_ready(problems: Sequence[Problem]) -> ModelsNotReadyError:
    """The error for models that cannot be loaded for these reasons."""
    return ModelsNotReadyError(
        "The models cannot be loaded. " + " ".join(p.message for p in problems), problems
    )


class _ManifestError(ValueError):
    def __init__(self, file: str, message: str) -> None:
        super().__init__(message)
        self.file = file


def _manifest(
    root: Path, folder: str, standard: Mapping[str, Any], problems: list[Problem]
) -> tuple[Mapping[str, Any], bool]:
    shown = f"{folder}/{MANIFEST}"
    try:
        document = json.loads((root / folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return standard, True
    except json.JSONDecodeError as e:
        where = f"{e.msg} in line {e.lineno}, column {e.colno}"
        problems.append(Problem("manifest_invalid", f"{shown} is not JSON: {where}.", shown))
        return standard, True
    except (OSError, ValueError, RecursionError) as e:
        problems.append(
            Problem("manifest_invalid", f"{shown} cannot be read: {type(e).__name__}.", shown)
        )
        return standard, True
    if not isinstance(document, dict) or document.get("manifest_version") != MANIFEST_VERSION:
        problems.append(
            Problem(
                "manifest_invalid",
                f"{shown} is not a manifest of version {MANIFEST_VERSION}.",
                shown,
            )
        )
    return document, False


def _build(
    root: Path, ensemble: Mapping[str, Any], detection: Mapping[str, Any], assumed: bool
) -> Bundle:
    ens = _Reader(f"{ENSEMBLE_FOLDER}/{MANIFEST}", ensemble, root / ENSEMBLE_FOLDER)
    det = _Reader(f"{DETECTION_FOLDER}/{MANIFEST}", detection, root / DETECTION_FOLDER)
    names = [ens.text("name"), det.text("name")]
    descriptions = [ens.text("provenance", "description"), det.text("provenance", "description")]
    return Bundle(
        root=root,
        name=" + ".join(dict.fromkeys(names)),
        assumed_profile=assumed,
        training_data=_weaker(
            ens.choice(TrainingData, "provenance", "training_data"),
            det.choice(TrainingData, "provenance", "training_data"),
        ),
        description="; ".join(dict.fromkeys(descriptions)),
        licence="; ".join(dict.fromkeys([ens.text("licence"), det.text("licence")])),
        intended_use="; ".join(dict.fromkeys([ens.text("intended_use"), det.text("intended_use")])),
        ensemble=_ensemble(ens),
        detector=_detector(det),
    )


def _weaker(a: TrainingData, b: TrainingData) -> TrainingData:
    """The one that is further from patients: a result is as good as its worse half."""
    order = (
        TrainingData.NONE,
        TrainingData.SYNTHETIC,
        TrainingData.UNKNOWN,
        TrainingData.PATIENTS,
    )
    return min(a, b, key=order.index)


def _ensemble(manifest: _Reader) -> EnsembleSpec:
    members = tuple(
        MemberSpec(
            name=m.text("name"),
            architecture=m.text("architecture"),
            file=m.file("file"),
            sha256=m.sha256("sha256"),
            weight=m.number("weight", above=0.0, at_most=1.0),
        )
        for m in manifest.items("members")
    )
    if len({m.name for m in members}) != len(members):
        raise _ManifestError(manifest.where, "two members have the same name.")
    total = math.fsum(m.weight for m in members)
    if abs(total - 1.0) > 1e-6:
        raise _ManifestError(manifest.where, f"member weights add up to {total:g}, not to 1.")
    manifest.constant("bilinear", "preprocessing", "resize_filter")
    threshold = manifest.number("threshold", above=0.0, at_most=1.0)
    return EnsembleSpec(
        members=members,
        threshold=threshold,
        review_band=_review_band(manifest, threshold),
        preprocessing=Preprocessing(
            size=manifest.integer("preprocessing", "size", minimum=32, maximum=2048),
            intensity=manifest.choice(Intensity, "preprocessing", "intensity"),
            mean=manifest.triple("preprocessing", "mean", above=-math.inf),
            std=manifest.triple("preprocessing", "std", above=0.0),
            flips=manifest.choices(Flip, "preprocessing", "flips"),
        ),
        familiarity=manifest.file("familiarity", "file") if manifest.get("familiarity") else None,
        familiarity_sha256=manifest.sha256("familiarity", "sha256"),
    )


def _review_band(manifest: _Reader, threshold: float) -> tuple[float, float]:
    """The bundle's own band around the cut-off, or 0.05 on either side."""
    if manifest.get("review_band") is None:
        return max(0.0, threshold - _REVIEW), min(1.0, threshold + _REVIEW)
    low, high = (
        manifest.number("review_band", key, above=-1e-9, at_most=1.0) for key in ("low", "high")
    )
    if not low <= threshold <= high:
        raise _ManifestError(manifest.where, "review_band does not hold the threshold.")
    return low, high


def _detector(manifest: _Reader) -> DetectorSpec:
    firm = manifest.number("confidence", "firm", above=0.0, at_most=1.0)
    tentative = manifest.number("confidence", "tentative", above=0.0, at_most=1.0)
    if tentative > firm:
        raise _ManifestError(manifest.where, "confidence: tentative is above firm.")
    size = manifest.integer("preprocessing", "size", minimum=32, maximum=4096)
    if size % 32:
        raise _ManifestError(manifest.where, "preprocessing.size is not a multiple of 32.")
    return DetectorSpec(
        architecture=manifest.text("architecture"),
        file=manifest.file("file"),
        sha256=manifest.sha256("sha256"),
        classes=manifest.texts("classes"),
        size=size,
        intensity=manifest.choice(Intensity, "preprocessing", "intensity"),
        firm_confidence=firm,
        tentative_confidence=tentative,
        on_normal_confidence=manifest.number("confidence", "on_normal", above=0.0, at_most=1.0),
        iou=manifest.number("iou", above=0.0, at_most=1.0),
        max_detections=manifest.integer("max_detections", minimum=1, maximum=10_000),
    )


class _Reader:
    """Typed access to a manifest; each refusal names the file and the key."""

    def __init__(
        self, where: str, document: Mapping[str, Any], folder: Path, prefix: str = ""
    ) -> None:
        self.where = where
        self._prefix = prefix
        self._document = document
        self._folder = folder

    def get(self, *keys: str) -> Any:
        value: Any = self._document
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value

    def refuse(self, keys: tuple[str, ...], expected: str) -> _ManifestError:
        return _ManifestError(
            self.where, f"{self._prefix}{'.'.join(keys)} is {self.get(*keys)!r}, not {expected}."
        )

    def text(self, *keys: str) -> str:
        value = self.get(*keys)
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(keys, "a text")
        return value

    def texts(self, *keys: str) -> tuple[str, ...] | None:
        values = self.get(*keys)
        if values is None:
            return None
        if (
            not isinstance(values, list)
            or not values
            or not all(isinstance(v, str) for v in values)
        ):
            raise self.refuse(keys, "a list of texts")
        return tuple(values)

    def number(self, *keys: str, above: float, at_most: float) -> float:
        value = self.get(*keys)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(keys, "a number")
        if not above < value <= at_most:
            raise self.refuse(keys, f"above {above:g} and at most {at_most:g}")
        return float(value)

    def integer(self, *keys: str, minimum: int, maximum: int) -> int:
        value = self.get(*keys)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self.refuse(keys, f"a whole number from {minimum} to {maximum}")
        return value

    def triple(self, *keys: str, above: float) -> tuple[float, float, float]:
        values = self.get(*keys)
        if (
            not isinstance(values, list)
            or len(values) != 3
            or not all(isinstance(v, (int, float)) and above < v < math.inf for v in values)
        ):
            raise self.refuse(keys, "three numbers, one for each channel")
        return (float(values[0]), float(values[1]), float(values[2]))

    def choice(self, kind: type[_E], *keys: str) -> _E:
        try:
            return kind(self.get(*keys))
        except ValueError as e:
            raise self.refuse(keys, "one of " + ", ".join(kind)) from e

    def choices(self, kind: type[_E], *keys: str) -> tuple[_E, ...]:
        values = self.get(*keys)
        if not isinstance(values, list) or not values or len(set(map(str, values))) != len(values):
            raise self.refuse(keys, "a list without repetition of " + ", ".join(kind))
        try:
            return tuple(kind(v) for v in values)
        except ValueError as e:
            raise self.refuse(keys, "a list of " + ", ".join(kind)) from e

    def constant(self, expected: str, *keys: str) -> None:
        if self.get(*keys) != expected:
            raise self.refuse(keys, repr(expected))

    def items(self, key: str) -> list[_Reader]:
        values = self.get(key)
        if not isinstance(values, list) or not values:
            raise self.refuse((key,), "a list")
        return [
            _Reader(self.where, v if isinstance(v, dict) else {}, self._folder, f"{key}[{n}].")
            for n, v in enumerate(values)
        ]

    def file(self, *keys: str) -> Path:
        relative = PurePosixPath(self.text(*keys))
        if relative.is_absolute() or ".." in relative.parts:
            raise self.refuse(keys, "a path inside the folder of the manifest")
        return self._folder / relative

    def sha256(self, *keys: str) -> str | None:
        value = self.get(*keys)
        if value is None:
            return None
        if not isinstance(value, str) or len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise self.refuse(keys, "64 hexadecimal digits in lower case")
        return value
