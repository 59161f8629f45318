from __future__ import annotations

import numpy as np
import pytest

from spinexr.datasets.vindr import CLASSES
from spinexr.phantom import lesions, projection
from spinexr.phantom.anatomy import Patient, Region, Vertebra
from spinexr.phantom.projection import View

ROWS, COLUMNS = 360, 240


def scene(*findings: lesions.Finding, seed: int = 0) -> projection.Scene:
    rng = np.random.default_rng(seed)
    return projection.build_scene(Region.LUMBAR, Patient.draw(rng), rng, findings=findings)


def boxes(made: projection.Scene, view: View) -> list[tuple[str, object]]:
    geometry = projection.geometry_for(
        made, view, np.random.default_rng(1), rows=ROWS, columns=COLUMNS
    )
    found = [(m.label, geometry.box_of(m)) for m in made.marks]
    return [(label, box) for label, box in found if box is not None]


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("label", CLASSES)
def test_every_class_leaves_a_box_in_the_middle_of_the_film(label: str, severity: float) -> None:
    for seed in range(4):
        made = scene(lesions.Finding(label, "L3", severity), seed=seed)
        found = [name for view in View for name, _ in boxes(made, view)]
        assert set(found) == {label}


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
    box = next(found for m in with_finding.marks if (found := geometry.box_of(m)))
    inside = change[int(box.y1) : int(box.y2), int(box.x1) : int(box.x2)]
    assert inside.max() > 0.05


def test_severity_narrows_slips_and_collapses() -> None:
    def vertebra(label: str, severity: float) -> Vertebra:
        return scene(lesions.Finding(label, "L3", severity)).vertebrae["L3"]

    mild, severe = (vertebra("Disc space narrowing", s) for s in (0.0, 1.0))
    assert severe.disc < mild.disc
    mild, severe = (vertebra("Spondylolysthesis", s) for s in (0.0, 1.0))
    assert np.linalg.norm(severe.slip) > np.linalg.norm(mild.slip) > 0
    mild, severe = (vertebra("Vertebral collapse", s) for s in (0.0, 1.0))
    assert severe.middle < mild.middle


def film_of(pixel_mm: float = 1.0) -> projection.Geometry:
    """A frontal film of 200 × 200 mm whose middle is the world's origin."""
    side = round(200 / pixel_mm)
    return projection.Geometry(0.0, -100.0, 100.0, pixel_mm, side, side)


def test_a_box_mostly_outside_the_film_is_none() -> None:
    def square(left: float) -> lesions.Marks:
        corners = [np.array([left + x, 0.0, z]) for x in (0.0, 100.0) for z in (0.0, 100.0)]
        return lesions.Marks("Other lesions", corners)

    assert film_of().box_of(square(-180)) is None
    box = film_of().box_of(square(-120))
    assert box is not None
    assert (box.x1, box.x2) == (0, 80)


def test_a_margin_is_in_millimetres() -> None:
    mark = lesions.Marks("Other lesions", [np.zeros(3)], margin=10.0)
    for pixel_mm in (0.5, 1.0, 2.0):
        box = film_of(pixel_mm).box_of(mark)
        assert box is not None
        assert (box.x2 - box.x1) * pixel_mm == pytest.approx(20)


def test_what_faces_the_viewer_is_hidden_and_what_stands_out_sideways_shows() -> None:
    def spur(x: float, y: float) -> lesions.Marks:
        return lesions.Marks("Osteophytes", [np.zeros(3)], 10.0, np.array([x, y, 0.0]))

    assert film_of().box_of(spur(0, 1)) is None
    assert film_of().box_of(spur(1, 0)) is not None
    assert film_of().box_of(spur(1, 1)) is not None


def test_a_finding_at_the_last_disc_lies_on_the_sacrum() -> None:
    for label in ("Disc space narrowing", "Spondylolysthesis", "Osteophytes"):
        made = scene(lesions.Finding(label, "L5", 1.0))
        assert boxes(made, View.LATERAL)


def test_dents_are_a_variant_of_normal() -> None:
    made = scene()
    dents = [
        d
        for seed in range(40)
        for d in lesions.dents(made.vertebrae, ["L2", "L3"], np.random.default_rng(seed))
    ]
    assert 0 < len(dents) < 20


def test_findings_are_of_every_severity_and_more_often_evident_than_doubtful() -> None:
    rng = np.random.default_rng(0)
    drawn = [
        lesions.draw(["L2", "L3", "L4"], rng, classes=CLASSES, probabilities=[1] * len(CLASSES))
        for _ in range(400)
    ]
    severities = np.array([f.severity for findings in drawn for f in findings])
    assert 0.02 < (severities < 1 / 3).mean() < 0.1
    assert (severities > 2 / 3).mean() > 0.6
    assert severities.min() < 0.1
    assert {len({f.label for f in findings}) for findings in drawn} == {1, 2, 3}
