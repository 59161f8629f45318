from __future__ import annotations

import pytest

from spinexr.domain import Finding
from spinexr.errors import ModelOutputError
from spinexr.inference import detector
from spinexr.inference.engines.base import RawDetections
from tests.fakes import CLASSES, fake_bundle, raw


def select(detections: RawDetections, *, abnormal: bool = True) -> tuple[Finding, ...]:
    spec = fake_bundle().detector
    found = detector.to_findings(
        detections, CLASSES, firm_confidence=spec.firm_confidence, rows=100, columns=80
    )
    return detector.select(found, spec, abnormal=abnormal)


def test_firm_and_tentative_are_told_apart_by_the_bundles_levels() -> None:
    found = select(raw((0, 0, 9, 9, 0.25, 0), (0, 0, 9, 9, 0.24, 0), (0, 0, 9, 9, 0.15, 0)))
    assert [f.tentative for f in found] == [False, True, True]


def test_boxes_below_the_tentative_level_are_left_out() -> None:
    assert select(raw((0, 0, 9, 9, 0.14, 0))) == ()


def test_on_a_normal_image_only_boxes_of_the_vindr_rule_stay() -> None:
    found = select(raw((0, 0, 9, 9, 0.5, 0), (0, 0, 9, 9, 0.49, 0)), abnormal=False)
    assert [f.confidence for f in found] == [0.5]


def test_the_most_confident_comes_first() -> None:
    found = select(raw((0, 0, 9, 9, 0.3, 0), (0, 0, 9, 9, 0.9, 1)))
    assert [f.label for f in found] == ["Disc space narrowing", "Osteophytes"]


def test_boxes_are_clipped_to_the_image_and_those_outside_left_out() -> None:
    found = select(raw((-5, -5, 200, 300, 0.9, 0), (90, 10, 95, 20, 0.9, 0)))
    assert len(found) == 1
    box = found[0].box
    assert (box.x1, box.y1, box.x2, box.y2) == (0, 0, 80, 100)


@pytest.mark.parametrize(
    "row", [(float("nan"), 0, 9, 9, 0.9, 0), (0, 0, 9, 9, float("nan"), 0), (0, 0, 9, 9, 0.9, 3)]
)
def test_nonsense_from_the_detector_is_an_error_not_no_findings(
    row: tuple[float, float, float, float, float, int],
) -> None:
    with pytest.raises(ModelOutputError):
        select(raw(row))
