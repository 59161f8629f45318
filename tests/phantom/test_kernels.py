from __future__ import annotations

import numpy as np
import pytest

from spinexr.phantom import kernels
from spinexr.phantom.solids import Frame, Material, Vector, cone, rotation, superquadric

SOLID = Material(1.0, 1.0, 0.5)  # 1/cm everywhere, so that integrals are lengths in cm


def integrate(groups: list[list[Vector]], *, angle_deg: float = 0.0, step: float = 0.5) -> Vector:
    """Line integrals on a field of 100 × 100 mm in pixels of 1 mm."""
    total, inside = np.zeros((100, 100), np.float32), np.zeros((100, 100), np.float32)
    rows = np.array([row for group in groups for row in group])
    starts = np.cumsum([0, *(len(g) for g in groups)])
    angle = np.radians(angle_deg)
    kernels.integrate(
        rows, starts, np.cos(angle), np.sin(angle), -50.0, 50.0, 1.0, step, total, inside
    )
    return total.astype(float)


def offsets() -> tuple[Vector, Vector]:
    centers: Vector = np.arange(100, dtype=np.float64) - 49.5
    return centers[None, :], -centers[:, None]


def test_a_sphere_has_the_chords_of_a_sphere() -> None:
    sphere = superquadric(Frame(np.zeros(3), np.eye(3)), [20, 20, 20], SOLID)
    u, v = offsets()
    chord = 2 * np.sqrt(np.maximum(20**2 - u**2 - v**2, 0)) / 10
    found = integrate([[sphere]], step=0.3)
    within = u**2 + v**2 < 17**2
    np.testing.assert_allclose(found[within], chord[within], atol=0.08)
    assert found.sum() == pytest.approx(chord.sum(), rel=0.01)


@pytest.mark.parametrize("angle", [0, 30, 90, 210])
def test_an_ellipsoid_seen_from_any_side_has_its_volume(angle: float) -> None:
    frame = Frame(np.array([3.0, -5.0, 4.0]), rotation(20, 35, 50))
    ellipsoid = superquadric(frame, [10, 18, 25], SOLID)
    volume_cm3 = 4 / 3 * np.pi * 1.0 * 1.8 * 2.5
    # Each pixel stands for 0.01 cm².
    assert integrate([[ellipsoid]], angle_deg=angle).sum() * 0.01 == pytest.approx(
        volume_cm3, rel=0.02
    )


def test_a_point_to_the_left_is_seen_where_the_view_puts_it() -> None:
    ball = superquadric(Frame(np.array([20.0, 0.0, 10.0]), np.eye(3)), [4, 4, 4], SOLID)
    frontal = integrate([[ball]])
    assert np.unravel_index(frontal.argmax(), frontal.shape)[1] in (69, 70)
    lateral = integrate([[ball]], angle_deg=90)
    assert np.unravel_index(lateral.argmax(), lateral.shape)[1] in (49, 50)
    # The height is the same from every side.
    np.testing.assert_allclose(frontal.sum(1), lateral.sum(1), atol=0.05)


def test_a_shell_is_the_outside_less_the_inside() -> None:
    hollow = superquadric(Frame(np.zeros(3), np.eye(3)), [20, 20, 20], Material(1.0, 0.0, 2.0))
    outer = superquadric(Frame(np.zeros(3), np.eye(3)), [20, 20, 20], SOLID)
    inner = superquadric(Frame(np.zeros(3), np.eye(3)), [18, 18, 18], SOLID)
    expected = integrate([[outer]]) - integrate([[inner]])
    np.testing.assert_allclose(integrate([[hollow]]), expected, atol=0.12)


def test_solids_of_one_group_do_not_count_twice_where_they_overlap() -> None:
    ball = superquadric(Frame(np.zeros(3), np.eye(3)), [20, 20, 20], SOLID)
    apart = integrate([[ball], [ball]])
    together = integrate([[ball, ball]])
    np.testing.assert_allclose(apart, 2 * integrate([[ball]]), atol=1e-5)
    assert together.max() == pytest.approx(integrate([[ball]]).max(), rel=0.05)


def test_a_rod_without_round_ends_ends_at_its_ends() -> None:
    start, end = np.array([0.0, 0.0, -20.0]), np.array([0.0, 0.0, 20.0])
    rod = integrate([[cone(start, end, 5, 5, SOLID, round_ends=False)]])
    rows = np.flatnonzero(rod.sum(1))
    assert (rows.min(), rows.max()) == (30, 69)
    assert rod.max() == pytest.approx(1.0, rel=0.03)


def test_what_lies_outside_the_field_changes_nothing() -> None:
    far = superquadric(Frame(np.array([300.0, 0, 0]), np.eye(3)), [20, 20, 20], SOLID)
    assert integrate([[far]]).max() == 0
