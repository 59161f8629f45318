from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spinexr.domain import TrainingData
from spinexr.errors import ModelsNotReadyError
from spinexr.inference.bundle import (
    STANDARD_DETECTION,
    STANDARD_ENSEMBLE,
    Flip,
    Intensity,
    load_bundle,
    read_bundle,
)
from spinexr.inference.engines import EngineOptions, create

STANDARD_FILES = (
    "ensemble output/densenet121_balanced/model_best.pth",
    "ensemble output/resnet50_optimized/model_best.pth",
    "ensemble output/tf_efficientnetv2_s_optimized/model_best.pth",
    "detection output/yolo11/weights/best.pt",
)


def put_files(root: Path) -> None:
    for name in STANDARD_FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"weights")


def put_manifests(
    root: Path,
    ensemble: Callable[[dict[str, Any]], None] = lambda _: None,
    detection: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """Write the standard profile as manifests after the given changes."""
    for folder, standard, change in (
        ("ensemble output", STANDARD_ENSEMBLE, ensemble),
        ("detection output", STANDARD_DETECTION, detection),
    ):
        manifest = copy.deepcopy(dict(standard))
        change(manifest)
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "manifest.json").write_text(json.dumps(manifest))


def test_an_empty_folder_names_every_missing_file(tmp_path: Path) -> None:
    problems = load_bundle(tmp_path).missing_files()
    assert tuple(p.file for p in problems) == STANDARD_FILES
    assert {p.code for p in problems} == {"file_missing"}


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_one_missing_checkpoint_is_enough_to_refuse_the_bundle(tmp_path: Path, engine: str) -> None:
    put_files(tmp_path)
    (tmp_path / STANDARD_FILES[1]).unlink()
    with pytest.raises(ModelsNotReadyError) as e:
        create(load_bundle(tmp_path), EngineOptions(engine=engine))
    assert [p.file for p in e.value.problems] == [STANDARD_FILES[1]]


def test_checkpoints_without_manifest_get_the_standard_profile_and_say_so(tmp_path: Path) -> None:
    put_files(tmp_path)
    bundle = load_bundle(tmp_path)
    assert bundle.assumed_profile
    assert [m.weight for m in bundle.ensemble.members] == [0.42, 0.26, 0.32]
    assert bundle.ensemble.threshold == 0.449
    assert bundle.ensemble.preprocessing.size == 224
    assert bundle.ensemble.preprocessing.intensity is Intensity.STORED_MINMAX
    assert bundle.ensemble.preprocessing.flips == (Flip.NONE,)
    assert (bundle.detector.firm_confidence, bundle.detector.tentative_confidence) == (0.25, 0.15)
    assert "Assumed profile" in (bundle.summary(()).caveat or "")


def test_manifests_are_taken_at_their_word(tmp_path: Path) -> None:
    put_files(tmp_path)

    def change(manifest: dict[str, Any]) -> None:
        manifest["threshold"] = 0.6
        manifest["preprocessing"].update(size=384, intensity="display")
        manifest["preprocessing"]["flips"] = ["none", "horizontal"]
        manifest["provenance"] = {"training_data": "patients", "description": "VinDr-SpineXR"}

    put_manifests(tmp_path, ensemble=change)
    bundle = load_bundle(tmp_path)
    assert not bundle.assumed_profile
    assert bundle.ensemble.threshold == 0.6
    assert bundle.ensemble.preprocessing.size == 384
    assert bundle.ensemble.preprocessing.intensity is Intensity.DISPLAY
    assert bundle.ensemble.preprocessing.flips == (Flip.NONE, Flip.HORIZONTAL)


def test_the_review_band_is_the_manifest_s_or_0_05_on_either_side(tmp_path: Path) -> None:
    put_manifests(tmp_path)
    assert read_bundle(tmp_path).ensemble.review_band == pytest.approx((0.399, 0.499))
    put_manifests(tmp_path, ensemble=lambda m: m.update(review_band={"low": 0.3, "high": 0.5}))
    assert read_bundle(tmp_path).ensemble.review_band == (0.3, 0.5)


def test_one_manifest_of_two_is_still_an_assumed_profile(tmp_path: Path) -> None:
    put_files(tmp_path)
    put_manifests(tmp_path)
    (tmp_path / "detection output/manifest.json").unlink()
    assert load_bundle(tmp_path).assumed_profile


@pytest.mark.parametrize(
    ("ensemble", "detection", "expected"),
    [
        ("patients", "patients", TrainingData.PATIENTS),
        ("patients", "synthetic", TrainingData.SYNTHETIC),
        ("none", "patients", TrainingData.NONE),
        ("unknown", "patients", TrainingData.UNKNOWN),
    ],
)
def test_a_bundle_is_as_good_as_its_worse_half(
    tmp_path: Path, ensemble: str, detection: str, expected: TrainingData
) -> None:
    put_manifests(
        tmp_path,
        lambda m: m["provenance"].update(training_data=ensemble),
        lambda m: m["provenance"].update(training_data=detection),
    )
    assert read_bundle(tmp_path).training_data is expected


BAD: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "review band": (
        lambda m: m.update(review_band={"low": 0.5, "high": 0.6}),
        "review_band does not hold",
    ),
    "version": (lambda m: m.update(manifest_version=2), "version 1"),
    "no threshold": (lambda m: m.pop("threshold"), "threshold"),
    "threshold text": (lambda m: m.update(threshold="0.4"), "threshold"),
    "threshold NaN": (lambda m: m.update(threshold=float("nan")), "threshold"),
    "threshold 0": (lambda m: m.update(threshold=0), "threshold"),
    "weights do not add up": (lambda m: m["members"].pop(), "add up to 0.68"),
    "no members": (lambda m: m.update(members=[]), "members"),
    "same name": (lambda m: m["members"][1].update(name="DenseNet121"), "same name"),
    "member is no object": (lambda m: m["members"].__setitem__(0, "densenet"), "name"),
    "negative weight": (lambda m: m["members"][0].update(weight=-0.42), "weight"),
    "file outside": (lambda m: m["members"][0].update(file="../../etc/passwd"), "inside"),
    "absolute file": (lambda m: m["members"][0].update(file="/etc/passwd"), "inside"),
    "sha256": (lambda m: m["members"][0].update(sha256="ABC"), "64 hexadecimal"),
    "size": (lambda m: m["preprocessing"].update(size=0), "size"),
    "filter": (lambda m: m["preprocessing"].update(resize_filter="cubic"), "bilinear"),
    "intensity": (lambda m: m["preprocessing"].update(intensity="guess"), "stored-minmax"),
    "mean": (lambda m: m["preprocessing"].update(mean=[0.5]), "three numbers"),
    "std 0": (lambda m: m["preprocessing"].update(std=[0, 1, 1]), "three numbers"),
    "flips": (lambda m: m["preprocessing"].update(flips=["vertical"]), "flips"),
    "flips twice": (lambda m: m["preprocessing"].update(flips=["none", "none"]), "flips"),
    "training data": (lambda m: m["provenance"].update(training_data="good"), "training_data"),
    "no provenance": (lambda m: m.pop("provenance"), "provenance"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_manifest_that_contradicts_itself_is_refused_by_key(tmp_path: Path, case: str) -> None:
    change, expected = BAD[case]
    put_manifests(tmp_path, ensemble=change)
    with pytest.raises(ModelsNotReadyError) as e:
        read_bundle(tmp_path)
    (problem,) = e.value.problems
    assert problem.file == "ensemble output/manifest.json"
    assert expected in problem.message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m["confidence"].update(tentative=0.3), "tentative is above firm"),
        (lambda m: m["preprocessing"].update(size=650), "multiple of 32"),
        (lambda m: m.update(classes=[]), "classes"),
        (lambda m: m.update(max_detections=True), "max_detections"),
    ],
)
def test_a_detection_manifest_that_contradicts_itself_is_refused_by_key(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], expected: str
) -> None:
    put_manifests(tmp_path, detection=change)
    with pytest.raises(ModelsNotReadyError, match=expected):
        read_bundle(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\x00", "[" * 100_000])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "ensemble output").mkdir()
    (tmp_path / "ensemble output/manifest.json").write_text(text)
    with pytest.raises(ModelsNotReadyError) as e:
        read_bundle(tmp_path)
    assert e.value.problems[0].code == "manifest_invalid"


def test_a_weights_folder_that_does_not_exist_is_said_first(tmp_path: Path) -> None:
    with pytest.raises(ModelsNotReadyError) as e:
        load_bundle(tmp_path / "nowhere")
    assert e.value.problems[0].code == "weights_folder_missing"
    assert len(e.value.problems) == 5
