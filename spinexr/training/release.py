"""Trained networks → a bundle in the standard layout."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from spinexr.datasets.vindr import CLASSES
from spinexr.domain import TrainingData
from spinexr.errors import ConfigurationError
from spinexr.inference.bundle import (
    DETECTION_FOLDER,
    ENSEMBLE_FOLDER,
    MANIFEST,
    STANDARD_DETECTION,
    STANDARD_ENSEMBLE,
    sha256_of,
)
from spinexr.training.runs import save_whole
from spinexr.training.select import OperatingPoint

FAMILIARITY = "familiarity.npz"
_OWN_LICENCE = "MIT"
# Its authors hold that what their trainer makes is under it: https://www.ultralytics.com/license
_ULTRALYTICS_LICENCE = "AGPL-3.0 (made with the Ultralytics trainer)"


def member_file(root: Path, architecture: str) -> Path:
    """Where the standard layout has a member's checkpoint.

    Raises:
        ConfigurationError: the standard ensemble has no such member.
    """
    for member in STANDARD_ENSEMBLE["members"]:
        if member["architecture"] == architecture:
            return root / ENSEMBLE_FOLDER / str(member["file"])
    raise ConfigurationError(f"The ensemble has no member of the architecture {architecture}.")


def familiarity_file(root: Path) -> Path:
    """Where the statistics of the training images go."""
    return root / ENSEMBLE_FOLDER / FAMILIARITY


def detector_file(root: Path) -> Path:
    """Where the standard layout has the detector's checkpoint."""
    return root / DETECTION_FOLDER / str(STANDARD_DETECTION["file"])


def write_member(file: Path, network: torch.nn.Module, *, half: bool) -> None:
    """A plain state dict, in half precision if wanted."""
    state = {
        name: tensor.half() if half and tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_whole(file, state)


def write_ensemble_manifest(
    root: Path,
    *,
    point: OperatingPoint,
    size: int,
    intensity: str,
    about: Mapping[str, Any],
) -> None:
    """The manifest beside the members' checkpoints and statistics, which must be there."""
    manifest: dict[str, Any] = copy.deepcopy(dict(STANDARD_ENSEMBLE))
    manifest["threshold"] = point.threshold
    for member in manifest["members"]:
        member["weight"] = point.weights[member["architecture"]]
        member["sha256"] = sha256_of(root / ENSEMBLE_FOLDER / member["file"])
    manifest["preprocessing"].update(size=size, intensity=intensity)
    manifest["familiarity"] = {
        "file": FAMILIARITY, "sha256": sha256_of(familiarity_file(root)),
    }  # fmt: skip
    manifest.update(copy.deepcopy(dict(about)))
    write_json(root / ENSEMBLE_FOLDER / MANIFEST, manifest)


def write_detection_manifest(
    root: Path, *, architecture: str, size: int, intensity: str, about: Mapping[str, Any]
) -> None:
    """The manifest beside the detector's checkpoint, which must be there."""
    manifest: dict[str, Any] = copy.deepcopy(dict(STANDARD_DETECTION))
    manifest.update(
        architecture=architecture,
        classes=list(CLASSES),
        sha256=sha256_of(detector_file(root)),
        preprocessing={"size": size, "intensity": intensity},
    )
    manifest.update(copy.deepcopy(dict(about)))
    if manifest["licence"] == _OWN_LICENCE:
        manifest["licence"] = _ULTRALYTICS_LICENCE
    write_json(root / DETECTION_FOLDER / MANIFEST, manifest)


def put_in_place(source: Path, root: Path) -> None:
    """Move the ensemble of a bundle to another root, the manifest last; `source` is removed.

    Should this end midway, the old manifest refuses the new files.
    """
    files = [f for f in sorted((source / ENSEMBLE_FOLDER).rglob("*")) if f.is_file()]
    for file in sorted(files, key=lambda f: f.name == MANIFEST):
        target = root / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        file.replace(target)
    shutil.rmtree(source)


def about(
    *,
    name: str,
    training_data: TrainingData,
    description: str,
    commands: Sequence[str],
    fingerprint: str,
    seed: int,
    initial_weights: Mapping[str, str],
    versions: Mapping[str, str],
    validation: Mapping[str, Any],
) -> dict[str, Any]:
    """What a manifest says of where its weights come from."""
    synthetic = training_data is TrainingData.SYNTHETIC
    return {
        "name": name,
        "licence": _OWN_LICENCE if synthetic else "that of the training data",
        "intended_use": (
            "demonstration and tests; results on patients mean nothing"
            if synthetic
            else "research; never a diagnosis"
        ),
        "provenance": {
            "training_data": training_data.value,
            "description": description,
            "commands": list(commands),
            "data_fingerprint": fingerprint,
            "seed": seed,
            "initial_weights": dict(initial_weights),
            "versions": dict(versions),
            "validation": dict(validation),
        },
    }


def write_json(file: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest, so that either the old or the new one is there, whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    part.write_text(text, encoding="utf-8")
    part.replace(file)
