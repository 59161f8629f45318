from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from spinexr.datasets.vindr import CLASSES, Lesion
from spinexr.domain import Box
from spinexr.evaluation import detection
from spinexr.evaluation.detection import ScoredBox

OSTEOPHYTES, DISC = CLASSES[:2]


def lesion(x: float, label: str = OSTEOPHYTES) -> Lesion:
    return Lesion(label, Box(x, 0, x + 10, 10))


def box(x: float, confidence: float, label: str = OSTEOPHYTES) -> ScoredBox:
    return ScoredBox(label, confidence, Box(x, 0, x + 10, 10))


def evaluate(
    truth: Mapping[str, Sequence[Lesion]], predicted: Mapping[str, Sequence[ScoredBox]]
) -> detection.Detection:
    return detection.evaluate(truth, predicted, CLASSES)


def test_perfect_boxes_have_an_ap_of_one() -> None:
    truth = {"a": [lesion(0), lesion(50)], "b": [lesion(5, DISC)], "c": []}
    predicted = {"a": [box(0, 0.9), box(50, 0.8)], "b": [box(5, 0.7, DISC)]}
    found = evaluate(truth, predicted)
    assert found.ap50 == {OSTEOPHYTES: pytest.approx(1), DISC: pytest.approx(1)}
    assert found.map50 == pytest.approx(1)
    assert found.map50_95 == pytest.approx(1)


def test_no_boxes_have_an_ap_of_zero() -> None:
    found = evaluate({"a": [lesion(0)]}, {})
    assert (found.map50, found.map50_95) == (0, 0)
    assert set(found.froc.values()) == {0.0}


def test_ap_is_the_one_worked_by_hand() -> None:
    # Three lesions; hits at ranks 1 and 3, a miss at rank 2, one lesion never found.
    truth = {"a": [lesion(0), lesion(100)], "b": [lesion(0)]}
    predicted = {"a": [box(0, 0.9), box(50, 0.8)], "b": [box(0, 0.7)]}
    # Precision 1 up to recall 1/3 (recalls 0 … 0.33: 34 points), 2/3 up to 2/3 (33 points).
    expected = (34 * 1 + 33 * 2 / 3) / 101
    assert evaluate(truth, predicted).map50 == pytest.approx(expected)


def test_ap50_95_counts_the_thresholds_that_the_overlap_passes() -> None:
    # Shifted by 2 of 10: IoU 8/12 = 0.667, which passes 0.50, 0.55, 0.60 and 0.65 of ten.
    found = evaluate({"a": [lesion(0)]}, {"a": [box(2, 0.9)]})
    assert found.map50 == pytest.approx(1)
    assert found.map50_95 == pytest.approx(0.4)


def test_a_box_of_another_class_finds_nothing() -> None:
    found = evaluate({"a": [lesion(0)]}, {"a": [box(0, 0.9, DISC)]})
    assert found.ap50 == {OSTEOPHYTES: 0}


def test_a_lesion_is_found_once() -> None:
    found = evaluate({"a": [lesion(0), lesion(90)]}, {"a": [box(0, 0.9), box(0, 0.8)]})
    # Recall ends at ½: 51 of 101 points at precision 1.
    assert found.map50 == pytest.approx(51 / 101)


def test_the_mean_is_over_classes_that_occur() -> None:
    found = evaluate({"a": [lesion(0)], "b": []}, {"a": [box(0, 0.9)], "b": [box(0, 0.9, DISC)]})
    assert set(found.ap50) == {OSTEOPHYTES}
    assert found.map50 == pytest.approx(1)


def test_without_any_lesion_nothing_is_defined() -> None:
    found = evaluate({"a": []}, {"a": [box(0, 0.9)]})
    assert math.isnan(found.map50)
    assert all(math.isnan(v) for v in found.froc.values())


def test_froc_is_the_one_worked_by_hand() -> None:
    # 4 images. By confidence: hit, miss, hit, miss, miss.
    truth = {"a": [lesion(0)], "b": [lesion(0)], "c": [], "d": [lesion(0)]}
    predicted = {
        "a": [box(0, 0.9)],
        "b": [box(0, 0.7)],
        "c": [box(0, 0.8), box(50, 0.6), box(90, 0.5)],
    }
    curve = detection.froc(truth, predicted)
    assert curve[0.125] == pytest.approx(1 / 3)  # no false positive allowed on 4 images
    assert curve[0.25] == pytest.approx(2 / 3)  # one
    assert curve[8.0] == pytest.approx(2 / 3)


def test_froc_does_not_cut_between_equal_confidences() -> None:
    truth = {"a": [lesion(0)], "b": []}
    curve = detection.froc(truth, {"a": [box(0, 0.9)], "b": [box(0, 0.9)]})
    assert curve[0.25] == 0.0
    assert curve[0.5] == 1.0


def test_intersection_over_union() -> None:
    assert detection.iou_of(Box(0, 0, 10, 10), Box(0, 0, 10, 10)) == 1
    assert detection.iou_of(Box(0, 0, 10, 10), Box(5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert detection.iou_of(Box(0, 0, 10, 10), Box(10, 0, 20, 10)) == 0
