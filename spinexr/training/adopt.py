"""Somebody's checkpoints → a bundle: recognised, checked, copied to their places, described.

Nothing about a checkpoint is guessed in silence. Which network a file holds is read off its
parameters; how its inputs were made, its weight and the cut-off have to be said, unless the files
are ones that are known.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from spinexr.domain import TrainingData
from spinexr.errors import ConfigurationError
from spinexr.inference.bundle import (
    DETECTION_FOLDER,
    ENSEMBLE_FOLDER,
    MANIFEST,
    STANDARD_DETECTION,
    STANDARD_ENSEMBLE,
    Flip,
    Intensity,
    sha256_of,
)
from spinexr.inference.engines.torch_checkpoints import (
    CheckpointError,
    load_classifier,
    load_detector,
)
from spinexr.training.release import detector_file, member_file, write_json

ARCHITECTURES = tuple(str(m["architecture"]) for m in STANDARD_ENSEMBLE["members"])
_DETECTOR = "detector"
_ENDINGS = (".pth", ".pt")


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A checkpoint that people have, by its SHA-256."""

    holds: str  # an architecture of the ensemble, or "detector"
    bytes: int


# The checkpoints of the project that this one re-implements.
KNOWN: Mapping[str, KnownFile] = MappingProxyType(
    {
        "a23fff09d885929370eae207d8352185b0d3ae265f63290da5fdf9e330913a10": KnownFile(
            "densenet121", 84_318_247
        ),
        "a9083c7ec56b8778ba8d817e36ecb841d59d2ad94ae2b223b406df3349104392": KnownFile(
            "resnet50", 282_547_711
        ),
        "13af76209ce0071b0958628142684a5288551a1df44a7a8bad0c4fcae71b518b": KnownFile(
            "tf_efficientnetv2_s", 243_338_591
        ),
        "74cd1a20f016e3684cc0e8009e35caca941ab26bbe6b70161715472afa6f498a": KnownFile(
            _DETECTOR, 51_167_705
        ),
    }
)
KNOWN_DESCRIPTION = (
    "the checkpoints of the project that SpineXR re-implements, trained on VinDr-SpineXR; their "
    "published AUROC of 91.03 and F1 of 83.09 at 0.449 are optimistic, since member weights, "
    "cut-off and checkpoints were chosen on the test set"
)


@dataclass(frozen=True, slots=True)
class Profile:
    """What a checkpoint does not say of itself."""

    size: int
    intensity: Intensity
    flips: tuple[Flip, ...]
    threshold: float
    weights: Mapping[str, float]  # by architecture; add up to 1
    detector_size: int


def standard_profile() -> Profile:
    """How existing checkpoints of this ensemble are used."""
    preprocessing = STANDARD_ENSEMBLE["preprocessing"]
    return Profile(
        size=int(preprocessing["size"]),
        intensity=Intensity(preprocessing["intensity"]),
        flips=tuple(Flip(f) for f in preprocessing["flips"]),
        threshold=float(STANDARD_ENSEMBLE["threshold"]),
        weights={str(m["architecture"]): float(m["weight"]) for m in STANDARD_ENSEMBLE["members"]},
        detector_size=int(STANDARD_DETECTION["preprocessing"]["size"]),
    )


@dataclass(frozen=True, slots=True)
class Found:
    """The four checkpoints of a folder, by what they hold, with their SHA-256."""

    files: Mapping[str, Path]
    digests: Mapping[str, str]
    detector_architecture: str
    classes: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether all four are files that are known."""
        return all(d in KNOWN for d in self.digests.values())

    @property
    def classifiers_known(self) -> bool:
        """Whether the three classifiers are, whose weights and cut-off suit a test set."""
        return all(self.digests[a] in KNOWN for a in ARCHITECTURES)


def find(source: Path) -> Found:
    """The checkpoints in a folder: in the standard layout, or four loose files of any names.

    Raises:
        ConfigurationError: one is missing, there are two of a kind, or a file is none of them;
            every file that was looked at is named.
    """
    files = _checkpoints(source)
    if not files:
        raise ConfigurationError(f"{source} holds no file that ends in .pth or .pt.")
    found: dict[str, Path] = {}
    refused: list[str] = []
    detector = ("", ())  # type: tuple[str, tuple[str, ...]]
    for file in files:
        holds, detector, trouble = _recognise(file, detector)
        if holds is None:
            refused.append(f"{file.name}: {trouble}")
        elif holds in found:
            raise ConfigurationError(
                f"{found[holds]} and {file} both hold a {holds}: leave one in the folder."
            )
        else:
            found[holds] = file
    missing = [a for a in (*ARCHITECTURES, _DETECTOR) if a not in found]
    if missing:
        looked = f" Looked at {'; '.join(refused)}" if refused else ""
        raise ConfigurationError(f"{source} holds no {' and no '.join(missing)}.{looked}")
    digests = {holds: sha256_of(file) for holds, file in found.items()}
    return Found(found, digests, *detector)


def adopt(
    found: Found,
    out: Path,
    profile: Profile,
    *,
    name: str,
    training_data: TrainingData,
    description: str,
    licence: str,
) -> None:
    """Copy the checkpoints to the standard layout below `out` and write both manifests.

    Raises:
        ConfigurationError: a bundle is there already, the weights do not add up to 1, or nothing
            can be written; what was there is kept.
    """
    if abs(sum(profile.weights.values()) - 1.0) > 1e-6:
        raise ConfigurationError(
            f"Member weights add up to {sum(profile.weights.values()):g}, not to 1."
        )
    places = {a: member_file(out, a) for a in ARCHITECTURES} | {_DETECTOR: detector_file(out)}
    manifests = [out / folder / MANIFEST for folder in (ENSEMBLE_FOLDER, DETECTION_FOLDER)]
    taken = [
        p
        for p in (*manifests, *places.values())
        if p.exists() and p.resolve() not in {f.resolve() for f in found.files.values()}
    ]
    if taken:
        raise ConfigurationError(f"{taken[0]} exists: choose another folder with --out.")
    about = {
        "name": name,
        "licence": licence,
        "intended_use": "research; never a diagnosis",
        "provenance": {"training_data": training_data.value, "description": description},
    }
    try:
        for holds, place in places.items():
            _copy(found.files[holds], place)
        write_json(manifests[0], _ensemble(found, profile) | about)
        write_json(manifests[1], _detection(found, profile) | about)
    except OSError as e:
        raise ConfigurationError(f"{e.filename or out} cannot be written: {e.strerror}.") from e


def _ensemble(found: Found, profile: Profile) -> dict[str, Any]:
    manifest: dict[str, Any] = copy.deepcopy(dict(STANDARD_ENSEMBLE))
    manifest["threshold"] = profile.threshold
    for member in manifest["members"]:
        member["weight"] = profile.weights[member["architecture"]]
        member["sha256"] = found.digests[member["architecture"]]
    manifest["preprocessing"].update(
        size=profile.size, intensity=profile.intensity.value, flips=[f.value for f in profile.flips]
    )
    return manifest


def _detection(found: Found, profile: Profile) -> dict[str, Any]:
    manifest: dict[str, Any] = copy.deepcopy(dict(STANDARD_DETECTION))
    manifest.update(
        architecture=found.detector_architecture,
        classes=list(found.classes),
        sha256=found.digests[_DETECTOR],
        preprocessing={"size": profile.detector_size, "intensity": profile.intensity.value},
    )
    return manifest


def _checkpoints(source: Path) -> Sequence[Path]:
    standard = [member_file(source, a) for a in ARCHITECTURES] + [detector_file(source)]
    if any(f.is_file() for f in standard):
        return [f for f in standard if f.is_file()]
    return sorted(f for f in source.iterdir() if f.is_file() and f.suffix.lower() in _ENDINGS)


def _recognise(
    file: Path, detector: tuple[str, tuple[str, ...]]
) -> tuple[str | None, tuple[str, tuple[str, ...]], str]:
    """What a file holds, by its parameters; the detector's architecture and classes; or why it is
    none of them."""
    try:
        if file.suffix.lower() == ".pt":
            _, architecture, classes = load_detector(file)
            return _DETECTOR, (architecture, classes), ""
    except (CheckpointError, OSError) as e:
        return None, detector, str(e)
    trouble = ""
    for architecture in ARCHITECTURES:
        try:
            load_classifier(file, architecture)
        except (CheckpointError, OSError) as e:
            # The one whose place it is in, else the last one tried.
            trouble = str(e) if not trouble or architecture in file.as_posix() else trouble
        else:
            return architecture, detector, ""
    return None, detector, trouble


def _copy(source: Path, place: Path) -> None:
    if place.exists() and place.samefile(source):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".part")
    try:
        shutil.copyfile(source, part)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)
