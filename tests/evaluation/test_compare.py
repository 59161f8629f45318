"""Two bundles on the same images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spinexr.cli import main
from spinexr.datasets import vindr
from spinexr.domain import Box
from spinexr.errors import ConfigurationError, ModelsNotReadyError
from spinexr.evaluation import classification, compare, detection
from spinexr.evaluation.detection import ScoredBox
from spinexr.evaluation.predictions import ImagePrediction
from spinexr.inference import loading
from spinexr.inference.predictor import Predictor
from tests.datasets import roots
from tests.fakes import NORMAL, FakeEngine, fake_bundle

LESION = vindr.Lesion("Osteophytes", Box(10, 10, 60, 60))


def images(count: int, *, per_study: int = 2) -> list[vindr.LabelledImage]:
    """Half of the studies abnormal."""
    made = []
    for n in range(count):
        study = n // per_study
        lesions = (LESION,) if study % 2 else ()
        made.append(vindr.LabelledImage("test", f"s{study}", f"i{n}", Path("x"), lesions))
    return made


def answers(
    labelled: Sequence[vindr.LabelledImage], skill: float, seed: int
) -> list[ImagePrediction]:
    """Probabilities that tell abnormal from normal the better, the higher `skill` is."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(size=len(labelled)) + [skill * i.abnormal for i in labelled]
    return [
        ImagePrediction(i.image_id, float(1 / (1 + np.exp(-r))))
        for i, r in zip(labelled, raw, strict=True)
    ]


def compared(
    labelled: Sequence[vindr.LabelledImage],
    a: Sequence[ImagePrediction],
    b: Sequence[ImagePrediction],
    thresholds: tuple[float, float] = (0.5, 0.5),
) -> compare.Comparison:
    return compare.compare(
        labelled, a, b, thresholds=thresholds, replicates=400, detection_replicates=100
    )


def test_a_bundle_differs_from_itself_by_nothing() -> None:
    labelled = images(60)
    same = answers(labelled, 1.0, seed=1)
    found = compared(labelled, same, same)
    assert (found.flips, found.largest_difference) == (0, 0.0)
    for difference in found.differences.values():
        d = difference.difference
        assert (d.value, d.low, d.high) == (0, 0, 0)
        assert difference.verdict == "not told apart"


def test_a_clearly_better_bundle_is_told_from_a_coin_whichever_comes_first() -> None:
    labelled = images(200)
    coin, good = answers(labelled, 0.0, seed=1), answers(labelled, 3.0, seed=2)
    assert compared(labelled, coin, good).differences["auroc"].verdict == "B is higher"
    assert compared(labelled, good, coin).differences["auroc"].verdict == "A is higher"


def test_two_equally_good_bundles_are_not_told_apart() -> None:
    labelled = images(200)
    found = compared(labelled, answers(labelled, 1.0, seed=1), answers(labelled, 1.0, seed=2))
    auroc = found.differences["auroc"]
    assert auroc.verdict == "not told apart"
    assert auroc.difference.low < 0 < auroc.difference.high


def test_pairing_sees_what_two_separate_intervals_do_not() -> None:
    labelled = images(200)
    a = answers(labelled, 1.0, seed=1)
    b = [  # a little better on every abnormal image, otherwise the same
        replace(p, probability=min(1.0, (p.probability or 0) + (0.02 if i.abnormal else 0)))
        for i, p in zip(labelled, a, strict=True)
    ]
    found = compared(labelled, a, b).differences["auroc"]
    truth = np.array([i.abnormal for i in labelled])
    studies = np.array([i.study_id for i in labelled])
    alone = [
        classification.evaluate(
            truth,
            np.array([p.probability for p in of_one], dtype=float),
            studies,
            threshold=0.5,
            replicates=400,
        ).estimates["auroc"]
        for of_one in (a, b)
    ]
    assert found.verdict == "B is higher"
    assert alone[0].high > alone[1].low
    assert found.difference.value == pytest.approx(alone[1].value - alone[0].value)


def test_studies_are_drawn_whole() -> None:
    """Images copied within their study say nothing new: the interval stays as wide."""
    once, often = images(80, per_study=1), images(320, per_study=4)
    a, b = answers(once, 0.5, seed=1), answers(once, 1.5, seed=2)

    def copied(rows: Sequence[ImagePrediction]) -> list[ImagePrediction]:
        return [replace(rows[n // 4], image_id=image.image_id) for n, image in enumerate(often)]

    single = compared(once, a, b).differences["auroc"].difference
    many = compared(often, copied(a), copied(b)).differences["auroc"].difference
    assert (many.low, many.high) == pytest.approx((single.low, single.high))


def test_each_is_judged_at_its_own_cut_off() -> None:
    labelled = images(8)
    a = [ImagePrediction(i.image_id, 0.6 if i.abnormal else 0.4) for i in labelled]
    b = [ImagePrediction(i.image_id, 0.3 if i.abnormal else 0.1) for i in labelled]
    found = compared(labelled, a, b, thresholds=(0.5, 0.2))
    assert found.flips == 0
    assert found.differences["f1"].difference.value == 0
    assert compared(labelled, a, b).flips == 4


def test_an_image_that_one_cannot_answer_is_left_out_for_both_and_named() -> None:
    labelled = images(12)
    a, b = answers(labelled, 1.0, seed=1), answers(labelled, 1.0, seed=2)
    b[3] = ImagePrediction("i3", None, error="corrupt_dicom")
    found = compared(labelled, a, b)
    assert found.images == 11
    assert found.unanswered == {"i3": "corrupt_dicom"}


def test_an_image_without_a_row_is_an_error() -> None:
    labelled = images(8)
    a = answers(labelled, 1.0, seed=1)
    with pytest.raises(ConfigurationError, match="of B lack 1 of 8 images, i7 among them"):
        compared(labelled, a, a[:-1])


def test_only_normal_images_give_null_instead_of_a_number() -> None:
    labelled = [i for i in images(8) if not i.abnormal]
    a = answers(labelled, 1.0, seed=1)
    found = compared(labelled, a, a)
    assert "| AUROC | – | – | – | – to – | not defined |" in compare.as_markdown(found, {})
    document = json.loads(compare.as_json(found, {}))
    assert document["metrics"]["auroc"]["difference"] is None
    assert document["metrics"]["auroc"]["difference_ci"] == [None, None]
    assert document["metrics"]["specificity"]["difference"] == 0


def test_ap_of_drawn_boxes_is_coco_s_when_every_image_is_drawn_once() -> None:
    rng = np.random.default_rng(0)
    truth: dict[str, list[vindr.Lesion]] = {}
    boxes: dict[str, list[ScoredBox]] = {}
    for n in range(40):
        corners = rng.uniform(0, 50, size=(int(rng.integers(0, 4)), 2))
        truth[f"i{n}"] = [
            vindr.Lesion(vindr.CLASSES[k % 2], Box(x, y, x + 30, y + 30))
            for k, (x, y) in enumerate(corners)
        ]
        shifted = [
            ScoredBox(
                m.label, float(rng.random()), Box(m.box.x1 + d, m.box.y1, m.box.x2 + d, m.box.y2)
            )
            for m in truth[f"i{n}"]
            for d in rng.uniform(0, 20, size=2)
        ]
        boxes[f"i{n}"] = shifted
    expected = detection.evaluate(truth, boxes, vindr.CLASSES).ap50
    once = np.ones((1, len(truth)))
    found = {
        n: detection.weighted_ap(r, once)[0] for n, r in detection.ranked(truth, boxes).items()
    }
    assert 0.1 < min(expected.values()) < 0.9
    assert found == pytest.approx(expected)


def test_an_image_drawn_twice_counts_as_two() -> None:
    truth = {"a": [LESION], "b": [LESION], "c": [LESION]}
    boxes = {"a": [ScoredBox(LESION.label, 0.9, LESION.box)]}
    (ranked,) = detection.ranked(truth, boxes).values()
    values = detection.weighted_ap(ranked, np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0, 0, 0]]))
    assert values[:2] == pytest.approx([67 / 101, 0.0])
    assert np.isnan(values[2])


def test_better_boxes_are_told_apart_too() -> None:
    labelled = images(60)
    right = (ScoredBox(LESION.label, 0.9, LESION.box),)
    wrong = (ScoredBox(LESION.label, 0.9, Box(100, 100, 120, 120)),)
    same = answers(labelled, 1.0, seed=1)
    a = [replace(p, boxes=wrong if i.abnormal else ()) for i, p in zip(labelled, same, strict=True)]
    b = [replace(p, boxes=right if i.abnormal else ()) for i, p in zip(labelled, same, strict=True)]
    found = compared(labelled, a, b).differences["map50"]
    assert (found.a, found.b, found.verdict) == (0.0, 1.0, "B is higher")


@pytest.fixture
def two_bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Folders of two bundles; B calls everything normal."""
    roots_of = tmp_path / "first", tmp_path / "second"
    for root in roots_of:
        root.mkdir()

    def load(root: Path, _options: object) -> Predictor:
        engine = FakeEngine()
        if root == roots_of[1]:
            engine.logits = dict.fromkeys(engine.logits, NORMAL)
        return Predictor(replace(fake_bundle(), name=root.name), engine, queue=1)

    monkeypatch.setattr(loading, "load_predictor", load)
    return roots_of


def test_the_command_prints_a_table_and_keeps_everything(
    two_bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    data, out = roots.write(tmp_path / "data"), tmp_path / "out"
    arguments = ["weights", "compare", *map(str, two_bundles), "--data", str(data)]
    done = CliRunner().invoke(main, [*arguments, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "A: first, cut-off 0.449" in done.stdout
    assert "4 images of 3 studies in data, 2 of them abnormal; 0 not answered. 4 are" in done.stdout
    assert "| sensitivity | 1.0000 | 0.0000 | -1.0000 |" in done.stdout
    assert "never a diagnosis" in done.stdout
    assert (out / "comparison.md").read_text(encoding="utf-8") == done.stdout
    assert {f.name for f in out.iterdir()} == {"comparison.md", "comparison.json", "a.csv", "b.csv"}
    document = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    assert document["metrics"]["sensitivity"]["difference"] == -1
    assert document["about_b"]["bundle"] == "second"
    again = CliRunner().invoke(main, [*arguments, "--json"])
    assert json.loads(again.stdout) == document


def test_the_command_stops_at_bad_data_and_goes_on_when_told(
    two_bundles: tuple[Path, Path], tmp_path: Path
) -> None:
    data = roots.write(tmp_path / "data")
    (data / "test_images/d.dicom").unlink()
    arguments = ["weights", "compare", *map(str, two_bundles), "--data", str(data)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert "annotations/test.csv, row 6" in done.stderr
    done = CliRunner().invoke(main, [*arguments, "--skip-bad"])
    assert done.exit_code == 0, done.output
    assert "3 images of 2 studies" in done.stdout


def test_the_command_says_which_weights_cannot_be_loaded(
    two_bundles: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_root: Path, _options: object) -> Predictor:
        raise ModelsNotReadyError("best.pt is missing.")

    monkeypatch.setattr(loading, "load_predictor", load)
    data = roots.write(tmp_path / "data")
    done = CliRunner().invoke(
        main, ["weights", "compare", *map(str, two_bundles), "--data", str(data)]
    )
    assert (done.exit_code, done.stderr) == (1, "Error: best.pt is missing.\n")
