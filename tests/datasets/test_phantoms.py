from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from spinexr.datasets import phantoms, vindr
from spinexr.domain import Radiograph
from spinexr.errors import ConfigurationError
from spinexr.imaging import reader
from tests.processes import spinexr


@pytest.fixture(scope="module")
def dataset(phantom_root: Path) -> vindr.Dataset:
    return vindr.read(phantom_root)


@pytest.fixture(scope="module")
def radiographs(dataset: vindr.Dataset) -> list[Radiograph]:
    return [reader.read(i.file.read_bytes(), max_pixels=10**6) for i in dataset.images]


def attribute(radiograph: Radiograph, keyword: str) -> str:
    return next((a.value for a in radiograph.attributes if a.keyword == keyword), "")


def test_the_dataset_passes_its_own_validation(dataset: vindr.Dataset) -> None:
    assert dataset.problems == ()
    assert len(dataset.images) >= 400


def test_both_parts_both_labels_and_all_classes_occur(dataset: vindr.Dataset) -> None:
    parts = Counter(i.part for i in dataset.images)
    assert 0.15 < parts["test"] / len(dataset.images) < 0.35
    abnormal = np.mean([i.abnormal for i in dataset.images])
    assert 0.4 < abnormal < 0.6
    assert {lesion.label for i in dataset.images for lesion in i.lesions} == set(vindr.CLASSES)
    images_of_study = Counter(i.study_id for i in dataset.images)
    assert set(images_of_study.values()) <= {1, 2, 3, 4}
    assert max(images_of_study.values()) > 1


def test_the_gate_accepts_every_phantom_without_a_warning(radiographs: list[Radiograph]) -> None:
    assert all(r.notices == () for r in radiographs)


def test_encodings_polarities_views_and_regions_vary(radiographs: list[Radiograph]) -> None:
    for keyword, fewest in (
        ("TransferSyntaxUID", 5), ("PhotometricInterpretation", 2), ("BitsStored", 6),
        ("ViewPosition", 3), ("BodyPartExamined", 4), ("Manufacturer", 4), ("Modality", 2),
    ):  # fmt: skip
        assert len({attribute(r, keyword) for r in radiographs}) >= fewest, keyword


def test_the_same_plan_makes_the_same_files_on_any_number_of_cores(tmp_path: Path) -> None:
    made = []
    for workers in (1, 2):
        root = tmp_path / str(workers)
        plan = phantoms.Plan(root, studies=4, seed=9, rows=160, columns=128)
        assert sum(phantoms.generate(plan, workers=workers)) > 0
        made.append({f.relative_to(root): f.read_bytes() for f in root.rglob("*") if f.is_file()})
    assert made[0] == made[1]


@pytest.mark.parametrize(("share", "tests"), [(0.0, 1), (0.5, 3), (1.0, 5)])
def test_the_test_share_is_kept_and_no_part_is_empty(
    tmp_path: Path, share: float, tests: int
) -> None:
    plan = phantoms.Plan(
        tmp_path / "out", studies=6, seed=2, rows=240, columns=160, test_share=share
    )
    list(phantoms.generate(plan, workers=1))
    made = vindr.read(tmp_path / "out")
    assert len({i.study_id for i in made.images if i.part == "test"}) == tests
    assert {i.part for i in made.images} == {"train", "test"}


def test_patients_with_one_class_of_findings_and_some_of_them_oftener(tmp_path: Path) -> None:
    root = tmp_path / "out"
    command = ["phantom", str(root), "--studies", "12", "--seed", "4", "--alone"]
    command += ["--rows", "320", "--columns", "212", "--oftener", "Other lesions", "100"]
    done = spinexr(*command, "--oftener", "osteophytes", "0.001")
    assert done.returncode == 0, done.stderr
    found = [{lesion.label for lesion in i.lesions} for i in vindr.read(root).images]
    kinds = Counter(label for labels in found for label in labels)
    assert {len(labels) for labels in found} == {0, 1}
    assert kinds["Other lesions"] > 0.8 * kinds.total()
    assert kinds["Osteophytes"] == 0
    about = json.loads((root / phantoms.ABOUT).read_text())
    assert (about["alone"], about["oftener"]) == (
        True, {"Other lesions": 100.0, "Osteophytes": 0.001},
    )  # fmt: skip


def test_an_unknown_class_is_refused_by_name_before_anything_is_written(tmp_path: Path) -> None:
    root = tmp_path / "out"
    done = spinexr("phantom", str(root), "--studies", "4", "--oftener", "Fracture", "2")
    assert done.returncode == 2
    assert "'Fracture' is none of Osteophytes, " in done.stderr
    assert not root.exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigurationError, match="not empty"):
        next(phantoms.generate(phantoms.Plan(tmp_path, studies=2, seed=0), workers=1))
    assert [f.name for f in tmp_path.iterdir()] == ["mine"]


def shortcut_auroc(features: Any, dataset: vindr.Dataset) -> float:
    """Best cross-validated AUROC of a logistic regression, studies kept together."""
    abnormal = np.array([i.abnormal for i in dataset.images])
    studies = [i.study_id for i in dataset.images]
    best = 0.0
    for strength in (0.01, 0.1, 1.0):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=3000))
        scores = cross_val_predict(
            model, np.asarray(features, float), abnormal, groups=studies, cv=GroupKFold(5),
            method="predict_proba",
        )[:, 1]  # fmt: skip
        best = max(best, float(roc_auc_score(abnormal, scores)))
    return best


def test_thumbnails_do_not_give_the_label_away(
    dataset: vindr.Dataset, radiographs: list[Radiograph]
) -> None:
    thumbnails = [
        np.asarray(Image.fromarray(r.display).resize((16, 16), Image.Resampling.BILINEAR)).ravel()
        for r in radiographs
    ]
    assert shortcut_auroc(thumbnails, dataset) < 0.75


def test_headers_and_histograms_do_not_give_the_label_away(
    dataset: vindr.Dataset, radiographs: list[Radiograph]
) -> None:
    keywords = (
        "Modality",
        "PatientSex",
        "BitsStored",
        "PhotometricInterpretation",
        "BodyPartExamined",
        "ViewPosition",
        "Manufacturer",
        "TransferSyntaxUID",
    )
    values = {k: sorted({attribute(r, k) for r in radiographs}) for k in keywords}
    features = []
    for r in radiographs:
        histogram = np.histogram(r.display, bins=16, range=(0, 1))[0] / r.display.size
        chosen = [float(attribute(r, k) == v) for k in keywords for v in values[k]]
        age = float(attribute(r, "PatientAge")[:3])
        spacing = float(attribute(r, "ImagerPixelSpacing").split("\\")[0])
        features.append([*histogram, *chosen, age, spacing])
    assert shortcut_auroc(features, dataset) < 0.75


def test_the_shortcut_test_sees_a_shortcut_where_there_is_one(
    dataset: vindr.Dataset,
) -> None:
    noise = np.random.default_rng(0).normal(0, 1, len(dataset.images))
    leak = [[i.abnormal + n] for i, n in zip(dataset.images, noise, strict=True)]
    assert shortcut_auroc(leak, dataset) > 0.7


def test_the_command_writes_what_evaluate_reads(untrained_root: Path, tmp_path: Path) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    done = spinexr(
        "phantom", root, "--studies", "8", "--seed", "5", "--rows", "200", "--columns", "144"
    )
    assert done.returncode == 0, done.stderr
    done = spinexr("evaluate", "--data", root, "--bundle", untrained_root, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "untrained" in (out / "report.md").read_text()
    assert (out / "report.html").stat().st_size > 10_000
