from __future__ import annotations

import numpy as np
import pytest

from spinexr.datasets.vindr import CLASSES
from spinexr.phantom import lesions, projection
from spinexr.phantom.anatomy import Patient, Region
from spinexr.phantom.projection import View

ROWS, COLUMNS = 360, 240


def scene(*findings: lesions.Finding, seed: int = 0) -> projection.Scene:
    rng = np.random.default_rng(seed)
    return projection.build_scene(Region.LUMBAR, Patient.draw(rng), rng, findings=findings)


def boxes(made: projection.Scene, view: View) -> list[tuple[str, object]]:
    geometry = projection.geometry_for(
        made, view, np.random.default_rng(1), rows=ROWS, columns=COLUMNS
    )
    found = [
        (m.label, lesions.box_of(m.points, geometry.project, rows=ROWS, columns=COLUMNS))
        for m in made.marks
    ]
    return [(label, box) for label, box in found if box is not None]


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("label", CLASSES)
def test_every_class_leaves_a_box_in_the_middle_of_the_film(label: str, severity: float) -> None:
    for seed in range(4):
        made = scene(lesions.Finding(label, "L3", severity), seed=seed)
        found = boxes(made, View.LATERAL)
        assert found
        assert {name for name, _ in found} == {label}


def test_a_normal_patient_has_no_marks() -> None:
    assert scene().marks == ()


@pytest.mark.parametrize("label", CLASSES)
def test_a_finding_changes_the_film_inside_its_box(label: str) -> None:
    with_finding = scene(lesions.Finding(label, "L3", 1.0))
    without = scene()
    geometry = projection.geometry_for(
        without, View.LATERAL, np.random.default_rng(1), rows=ROWS, columns=COLUMNS
    )
    a, b = (
        projection.attenuation(s, geometry, np.random.default_rng(2))
        for s in (with_finding, without)
    )
    change = np.abs(a - b)
    mark = with_finding.marks[0]
    box = lesions.box_of(mark.points, geometry.project, rows=ROWS, columns=COLUMNS)
    assert box is not None
    inside = change[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)]
    assert inside.max() > 0.05


def test_severity_narrows_slips_and_collapses() -> None:
    def vertebra(label: str, severity: float) -> object:
        return scene(lesions.Finding(label, "L3", severity)).vertebrae["L3"]

    mild, severe = (vertebra("Disc space narrowing", s) for s in (0.0, 1.0))
    assert severe.disc < mild.disc  # type: ignore[attr-defined]
    mild, severe = (vertebra("Spondylolysthesis", s) for s in (0.0, 1.0))
    assert abs(severe.slip) > abs(mild.slip) > 0  # type: ignore[attr-defined]
    mild, severe = (vertebra("Vertebral collapse", s) for s in (0.0, 1.0))
    assert severe.middle < mild.middle  # type: ignore[attr-defined]


def test_a_box_mostly_outside_the_film_is_none() -> None:
    corners = [np.array([x, y, 0.0]) for x in (0.0, 100.0) for y in (0.0, 100.0)]

    def project(point: np.ndarray) -> tuple[float, float]:
        return float(point[0]) - 80, float(point[1])

    assert lesions.box_of(corners, project, rows=200, columns=200) is None
    box = lesions.box_of(corners, lambda p: (float(p[0]) - 20, float(p[1])), rows=200, columns=200)
    assert box is not None
    assert (box.x1, box.x2) == (0, 80)
