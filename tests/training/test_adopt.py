"""Somebody's checkpoints become a bundle, and nothing about them is guessed in silence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from spinexr.cli import main
from spinexr.domain import TrainingData
from spinexr.inference.bundle import (
    DETECTION_FOLDER,
    ENSEMBLE_FOLDER,
    MANIFEST,
    load_bundle,
    sha256_of,
)
from spinexr.training import adopt
from spinexr.training.release import detector_file, member_file


@pytest.fixture(scope="module")
def loose(tmp_path_factory: pytest.TempPathFactory, untrained_root: Path) -> Path:
    """Four files of odd names in one folder."""
    folder = tmp_path_factory.mktemp("loose")
    for number, architecture in enumerate(adopt.ARCHITECTURES):
        shutil.copyfile(member_file(untrained_root, architecture), folder / f"{number}.pth")
    shutil.copyfile(detector_file(untrained_root), folder / "yolo.pt")
    return folder


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["weights", "adopt", *map(str, words)])


def manifest(root: Path, folder: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((root / folder / MANIFEST).read_text(encoding="utf-8"))
    return found


def test_loose_files_are_recognised_by_their_parameters(loose: Path, tmp_path: Path) -> None:
    done = run(loose, "--out", tmp_path / "bundle", "--profile", "standard", "--name", "mine")
    assert done.exit_code == 0, done.output
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.name == "mine"
    assert not bundle.assumed_profile
    assert bundle.training_data is TrainingData.UNKNOWN
    for member in bundle.ensemble.members:
        assert member.sha256 == sha256_of(member.file)
    assert bundle.detector.architecture == "yolo11n"
    assert bundle.detector.sha256 == sha256_of(bundle.detector.file)


def test_the_standard_layout_gets_its_manifests_in_place(
    untrained_root: Path, tmp_path: Path
) -> None:
    root = tmp_path / "weights"
    shutil.copytree(untrained_root, root)
    for folder in (ENSEMBLE_FOLDER, DETECTION_FOLDER):
        (root / folder / MANIFEST).unlink()
    done = run(root, "--profile", "standard", "--threshold", "0.5", "--flip",
               "--member-weights", "0.5,0.25,0.25", "--training-data", "patients")  # fmt: skip
    assert done.exit_code == 0, done.output
    bundle = load_bundle(root)
    assert bundle.ensemble.threshold == 0.5
    assert [m.weight for m in bundle.ensemble.members] == [0.5, 0.25, 0.25]
    assert [f.value for f in bundle.ensemble.preprocessing.flips] == ["none", "horizontal"]
    assert bundle.training_data is TrainingData.PATIENTS


def test_a_script_that_does_not_say_how_they_are_used_is_refused(
    loose: Path, tmp_path: Path
) -> None:
    refused = run(loose, "--out", tmp_path / "bundle")
    assert refused.exit_code != 0
    assert "--size" in refused.output
    assert not (tmp_path / "bundle").exists()


def test_every_option_given_is_as_good_as_a_profile(loose: Path, tmp_path: Path) -> None:
    done = run(loose, "--out", tmp_path / "b", "--size", "384", "--intensity", "display", "--flip",
               "--threshold", "0.4", "--member-weights", "0.4,0.3,0.3", "--detector-size",
               "640")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert load_bundle(tmp_path / "b").ensemble.preprocessing.size == 384


def test_known_files_are_known_with_their_caveat(
    loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = adopt.find(loose)
    known = {d: adopt.KnownFile(holds, 1) for holds, d in found.digests.items()}
    monkeypatch.setattr(adopt, "KNOWN", known)
    done = run(loose, "--out", tmp_path / "bundle")
    assert done.exit_code == 0, done.output
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.training_data is TrainingData.PATIENTS
    assert "chosen on the test set" in bundle.description


def test_known_classifiers_keep_their_caveat_beside_another_detector_and_other_words(
    loose: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = adopt.find(loose)
    known = {found.digests[a]: adopt.KnownFile(a, 1) for a in adopt.ARCHITECTURES}
    monkeypatch.setattr(adopt, "KNOWN", known)
    done = run(loose, "--out", tmp_path / "b", "--profile", "standard", "--description", "Mine.")
    assert done.exit_code == 0, done.output
    assert f"weights verify --weights {tmp_path / 'b'}" in done.output
    bundle = load_bundle(tmp_path / "b")
    assert bundle.training_data is TrainingData.PATIENTS
    assert "chosen on the test set" in bundle.description
    assert "Mine." in bundle.description


def test_a_missing_network_is_named_and_so_is_what_was_looked_at(
    loose: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "three"
    shutil.copytree(loose, folder)
    (folder / "1.pth").unlink()
    torch.save({"weight": torch.zeros(3)}, folder / "odd.pth")
    refused = run(folder, "--out", tmp_path / "bundle", "--profile", "standard")
    assert refused.exit_code != 0
    assert "no resnet50" in refused.output
    assert "odd.pth" in refused.output


def test_two_of_a_kind_are_not_chosen_between(loose: Path, tmp_path: Path) -> None:
    folder = tmp_path / "five"
    shutil.copytree(loose, folder)
    shutil.copyfile(folder / "0.pth", folder / "again.pth")
    refused = run(folder, "--out", tmp_path / "bundle", "--profile", "standard")
    assert refused.exit_code != 0
    assert "both hold a densenet121" in refused.output


def test_a_bundle_that_is_there_is_not_replaced(loose: Path, untrained_root: Path) -> None:
    before = manifest(untrained_root, ENSEMBLE_FOLDER)
    refused = run(loose, "--out", untrained_root, "--profile", "standard")
    assert refused.exit_code != 0
    assert "exists" in refused.output
    assert manifest(untrained_root, ENSEMBLE_FOLDER) == before


@pytest.mark.parametrize("weights", ["0.5,0.5", "a,b,c", "0.5,0.5,0.5"])
def test_member_weights_that_are_none_are_refused(
    loose: Path, tmp_path: Path, weights: str
) -> None:
    refused = run(loose, "--out", tmp_path / "b", "--profile", "standard", "--member-weights",
                  weights)  # fmt: skip
    assert refused.exit_code != 0
    assert not (tmp_path / "b").exists()


def test_list_says_which_bundle_it_is(untrained_root: Path) -> None:
    done = CliRunner().invoke(main, ["weights", "list", "--weights", str(untrained_root)])
    assert done.exit_code == 0, done.output
    for expected in ("untrained", "DenseNet121", "weight 0.42", "yolo11n", "0.449"):
        assert expected in done.output


def test_verify_loads_every_network_and_names_what_it_cannot(
    untrained_root: Path, tmp_path: Path
) -> None:
    good = CliRunner().invoke(main, ["weights", "verify", "--weights", str(untrained_root)])
    assert good.exit_code == 0, good.output
    assert good.output.count("ok ") == 4
    root = tmp_path / "weights"
    shutil.copytree(untrained_root, root)
    member_file(root, "resnet50").write_bytes(b"nothing")
    bad = CliRunner().invoke(main, ["weights", "verify", "--weights", str(root)])
    assert bad.exit_code == 1
    assert "WRONG" in bad.output
    assert "resnet50_optimized/model_best.pth" in bad.output
