"""From a dataset and predictions to the report."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from spinexr.datasets import vindr
from spinexr.domain import Box
from spinexr.errors import ConfigurationError
from spinexr.evaluation import judge, predictions, run
from spinexr.evaluation.detection import ScoredBox
from spinexr.evaluation.predictions import ImagePrediction
from spinexr.inference.predictor import Predictor
from tests.datasets import roots
from tests.datasets.roots import Image
from tests.fakes import FakeEngine
from tests.processes import spinexr


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return roots.write(tmp_path / "data")


def osteophyte(confidence: float, *corners: float) -> tuple[ScoredBox, ...]:
    return (ScoredBox("Osteophytes", confidence, Box(*corners)),)


ANSWERS = [
    ImagePrediction("a", 0.9, {"DenseNet121": 0.8}, osteophyte(0.6, 10, 20, 40, 60)),
    ImagePrediction("b", 0.2, {"DenseNet121": 0.3}, ()),
    ImagePrediction("c", 0.4, {"DenseNet121": 0.7}, osteophyte(0.4, 30, 30, 60, 90)),
    ImagePrediction("d", 0.1, {"DenseNet121": 0.1}, osteophyte(0.45, 1, 1, 9, 9)),
]


def images(root: Path) -> tuple[vindr.LabelledImage, ...]:
    return vindr.read(root, parts=("test",)).images


def test_predictions_survive_their_csv(tmp_path: Path) -> None:
    answers = [*ANSWERS, ImagePrediction("e", None, error="corrupt_dicom")]
    predictions.write(answers, tmp_path / "p.csv")
    assert predictions.read(tmp_path / "p.csv", classes=vindr.CLASSES) == answers


def test_a_csv_of_two_columns_is_enough(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("image_id,probability\na,0.5\nb,1\n")
    assert predictions.read(tmp_path / "p.csv", classes=vindr.CLASSES) == [
        ImagePrediction("a", 0.5),
        ImagePrediction("b", 1.0),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("image,probability\na,1\n", "no column image_id"),
        ("image_id,probability\na,\n", "row 2: probability is empty"),
        ("image_id,probability\na,1.2\n", "row 2: probability is 1.2"),
        ("image_id,probability\na,nan\n", "row 2: probability is nan"),
        ("image_id,probability\na,x\n", "row 2"),
        ("image_id,probability\na,0.1\na,0.2\n", "row 3: the image a stands here twice"),
        ("image_id,probability\n,0.1\n", "row 2: image_id is empty"),
        ('image_id,probability,boxes\na,1,"[[""Osteophytes"",1]]"\n', "row 2: a box is"),
        ('image_id,probability,boxes\na,1,"[[""Nose"",1,0,0,1,1]]"\n', "'Nose'"),
        ('image_id,probability,boxes\na,1,"[[""Osteophytes"",1,5,0,1,1]]"\n', "no area"),
        ("image_id,probability,boxes\na,1,{\n", "row 2"),
        ("image_id,probability,member:ensemble\na,1,1\n", "member:ensemble has the name of"),
    ],
)
def test_nonsense_in_predictions_is_named_by_row(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "p.csv").write_text(text)
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        predictions.read(tmp_path / "p.csv", classes=vindr.CLASSES)


def test_fusion_and_reverse_fusion_follow_the_paper(root: Path) -> None:
    found = judge.judge(images(root), ANSWERS, threshold=0.449, replicates=100)
    flat = judge.flat(found)
    # Alone, c's box is found and d's box is a false positive between the two hits.
    assert flat["detection.ap50.osteophytes"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    # Fused, c (called normal, 0.4 < 0.5) loses its hit and d its false positive.
    assert flat["detection_fused.ap50.osteophytes"] == pytest.approx(51 / 101)
    # Reverse: a 0.75, b 0.1, c 0.4, d 0.275: abnormals stay above normals.
    assert flat["ensemble+detector.auroc"] == 1.0
    # No cut-off was ever chosen for it.
    assert "ensemble+detector.sensitivity" not in flat
    assert "ensemble+detector.true_positive" not in flat
    assert flat["ensemble.auroc"] == 1.0
    assert flat["densenet121.sensitivity"] == 1.0
    assert flat["ensemble.sensitivity"] == 0.5
    assert (flat["images"], flat["abnormal"], flat["unanswered"]) == (4, 2, 0)


def test_flat_metrics_are_json_without_nan(root: Path) -> None:
    only_abnormal = [i for i in images(root) if i.abnormal]
    flat = judge.flat(judge.judge(only_abnormal, ANSWERS, threshold=0.449, replicates=50))
    assert flat["ensemble.auroc"] is None
    json.dumps(flat, allow_nan=False)


def test_an_image_without_prediction_is_an_error_not_a_guess(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="lack 1 of 4 images, d among them"):
        judge.judge(images(root), ANSWERS[:3], threshold=0.449)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (ImagePrediction("d", 0.1, {"DenseNet121": 0.1}), "1 of 4 answers have no list of boxes"),
        (ImagePrediction("d", 0.1, {}, ()), "1 of 4 answers have no probability of DenseNet121"),
    ],
)
def test_what_a_few_answers_lack_is_named_not_left_out(
    root: Path, row: ImagePrediction, said: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{said}.*, d among them"):
        judge.judge(images(root), [*ANSWERS[:3], row], threshold=0.449)


def test_unanswered_images_are_counted_and_named(root: Path) -> None:
    answers = [*ANSWERS[:3], ImagePrediction("d", None, error="corrupt_dicom")]
    found = judge.judge(images(root), answers, threshold=0.449, replicates=50)
    assert found.unanswered == {"d": "corrupt_dicom"}
    assert found.scores["ensemble"].images == 3


def test_subgroups_are_those_that_can_say_something(tmp_path: Path) -> None:
    many = [
        Image(
            f"m{n}", f"i{n}", [("Osteophytes", 1, 1, 20, 20)] if n % 2 else (),
            attributes={"PatientSex": "F" if n < 24 else "M", "PatientAge": "070Y",
                        "ViewPosition": "LL"},
        )
        for n in range(30)
    ]  # fmt: skip
    found = images(roots.write(tmp_path / "data", [*many, *roots.DEFAULT[4:]]))
    answers = [ImagePrediction(i.image_id, 0.9 if i.abnormal else 0.1) for i in found]
    judged = judge.judge(
        found, answers, threshold=0.449, groups=run.groups_of(found), replicates=50
    )
    assert set(judged.subgroups["sex"]) == {"F"}  # six men say nothing
    assert judged.subgroups["age"]["60-79"].images == 30
    assert judged.subgroups["view"]["LL"].images == 30
    assert judge.flat(judged)["subgroup.sex.f.auroc"] == 1.0


def test_the_bundle_is_asked_for_every_box_of_every_image(
    root: Path, predictor: Predictor, engine: FakeEngine
) -> None:
    found = list(run.predict(images(root), predictor, max_pixels=10**7))
    assert [p.image_id for p in found] == ["a", "b", "c", "d"]
    assert all(len(p.boxes or ()) == 2 for p in found)
    assert set(found[0].members) == {"DenseNet121", "ResNet50", "EfficientNetV2-S"}
    assert engine.detect_calls == [0.001] * 4


def test_a_detector_of_other_findings_is_not_judged(
    root: Path, predictor: Predictor, engine: FakeEngine
) -> None:
    engine.class_names = ("Nose", *engine.class_names[1:])
    with pytest.raises(ConfigurationError, match="The detector names Nose, which the dataset"):
        list(run.predict(images(root), predictor, max_pixels=10**6))


def test_an_image_that_cannot_be_analysed_is_an_unanswered_row(
    root: Path, predictor: Predictor
) -> None:
    file = root / "test_images/c.dicom"
    file.write_bytes(file.read_bytes()[:-5000])
    found = list(run.predict(images(root), predictor, max_pixels=10**7))
    assert found[2] == ImagePrediction("c", None, error="corrupt_dicom")


def test_two_thousand_images_are_judged_with_ten_thousand_replicates(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found, answers = [], []
    for n in range(2000):
        lesions = (vindr.Lesion("Osteophytes", Box(10, 10, 60, 60)),) if n % 2 else ()
        found.append(vindr.LabelledImage("test", f"s{n // 2}", f"i{n}", tmp_path, lesions))
        boxes = tuple(
            ScoredBox("Osteophytes", float(c), Box(10 + c, 10, 60, 60)) for c in rng.random(20)
        )
        answers.append(ImagePrediction(f"i{n}", float(rng.random()), {}, boxes))
    result = judge.judge(found, answers, threshold=0.449)
    low, high = (
        result.scores["ensemble"].estimates["auroc"].low,
        result.scores["ensemble"].estimates["auroc"].high,
    )
    assert low < 0.5 < high  # chance is inside the interval of a coin


def test_the_command_judges_somebodys_csv(root: Path, tmp_path: Path) -> None:
    predictions.write(ANSWERS, tmp_path / "p.csv")
    out = tmp_path / "out"
    done = spinexr("evaluate", "--data", root, "--predictions", tmp_path / "p.csv", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "| ensemble | 1.000" in done.stdout
    assert "Nguyen et al." in done.stdout
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["ensemble.auroc"] == 1.0
    page = (out / "report.html").read_text()
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]+", "", page)
    for shown in ("ROC", "Reliability", "FROC", "IoU = area", "never a diagnosis"):
        assert shown in page
    with (out / "predictions.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 4


def test_the_command_stops_at_bad_data_and_goes_on_when_told(root: Path, tmp_path: Path) -> None:
    predictions.write(ANSWERS, tmp_path / "p.csv")
    (root / "test_images/d.dicom").unlink()
    arguments = ("evaluate", "--data", root, "--predictions", tmp_path / "p.csv", "--out",
                 tmp_path / "out")  # fmt: skip
    done = spinexr(*arguments)
    assert done.returncode == 1
    assert "annotations/test.csv, row 6" in done.stderr
    assert not (tmp_path / "out").exists()
    done = spinexr(*arguments, "--skip-bad")
    assert done.returncode == 0, done.stderr
    assert "file_missing" in (tmp_path / "out/report.html").read_text()
