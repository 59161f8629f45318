from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from spinexr.domain import Photometric
from spinexr.imaging import reader
from spinexr.phantom import film, projection, writer
from spinexr.phantom.anatomy import LEVELS, Patient, Region
from spinexr.phantom.projection import View

SIZE = {"rows": 240, "columns": 160}


def scene(seed: int = 0, region: Region = Region.LUMBAR) -> projection.Scene:
    rng = np.random.default_rng(seed)
    return projection.build_scene(region, Patient.draw(rng), rng)


def shoot(seed: int = 0, region: Region = Region.LUMBAR, view: View = View.FRONTAL) -> film.Image:
    rng = np.random.default_rng(seed + 100)
    made = scene(seed, region)
    geometry = projection.geometry_for(made, view, rng, **SIZE)
    return projection.expose(made, geometry, film.Film.draw(rng), rng)


@pytest.mark.parametrize("view", list(View))
@pytest.mark.parametrize("region", list(Region))
def test_every_region_and_view_gives_a_film(region: Region, view: View) -> None:
    shown = shoot(1, region, view)
    assert shown.shape == (240, 160)
    assert shown.dtype == np.float32
    assert 0 <= shown.min() <= shown.max() <= 1
    assert shown.std() > 0.1


def test_the_same_seed_gives_the_same_film_and_another_one_another() -> None:
    np.testing.assert_array_equal(shoot(3), shoot(3))
    assert np.abs(shoot(3) - shoot(4)).mean() > 0.02


@pytest.mark.parametrize("region", list(Region))
def test_vertebrae_are_stacked_in_order_with_room_for_discs(region: Region) -> None:
    found = scene(2, region).vertebrae
    vertebrae = [found[level] for level in LEVELS]
    for upper, lower in pairwise(vertebrae):
        gap = np.linalg.norm(upper.frame.origin - lower.frame.origin)
        assert upper.frame.origin[2] > lower.frame.origin[2]
        assert gap == pytest.approx(upper.disc + (upper.middle + lower.middle) / 2, rel=0.05)


def test_all_views_show_one_patient_at_the_same_heights() -> None:
    made = scene(5)
    geometries = [
        projection.geometry_for(made, view, np.random.default_rng(0), **SIZE) for view in View
    ]
    for vertebra in made.vertebrae.values():
        heights = {
            round(g.top - g.project(vertebra.frame.origin)[1] * g.pixel_mm, 6) for g in geometries
        }
        assert len(heights) == 1


def test_the_curves_of_the_spine_go_the_way_they_do_in_people() -> None:
    vertebrae = scene(6).vertebrae
    lean = {name: float(np.degrees(np.arcsin(v.frame.axes[2][1]))) for name, v in vertebrae.items()}
    assert lean["L5"] > lean["L1"] + 20  # lordosis
    assert lean["T1"] > lean["T12"] + 10  # kyphosis
    assert lean["C2"] < lean["C7"]  # cervical lordosis


def test_bone_is_bright_and_gas_is_dark() -> None:
    made = scene(7)
    rng = np.random.default_rng(0)
    geometry = projection.geometry_for(made, View.FRONTAL, rng, **SIZE)
    absorbed = projection.attenuation(made, geometry, rng)
    x, y = (int(c) for c in geometry.project(made.vertebrae["L3"].frame.origin))
    beside = absorbed[y - 4 : y + 5, x + 34 : x + 40].mean()
    assert absorbed[y - 4 : y + 5, x - 4 : x + 5].mean() > beside


@pytest.mark.parametrize("photometric", list(Photometric))
def test_a_film_becomes_a_radiograph_that_shows_the_same(photometric: Photometric) -> None:
    shown = shoot(8)
    stored = projection.to_stored(shown, bits=12, photometric=photometric)
    assert stored.max() <= 4095
    dataset = writer.build(
        stored, uids=writer.Uids.derived_from("x"), bits_stored=12, photometric=photometric
    )
    radiograph = reader.read(writer.to_bytes(dataset), max_pixels=10**6)
    expected = (shown - shown.min()) / (shown.max() - shown.min())
    np.testing.assert_allclose(radiograph.display, expected, atol=1 / 2000)


def test_outside_the_collimated_field_the_film_is_black() -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        geometry = projection.Geometry(0, -50, 50, 0.5, 200, 200)
        field = projection._field(geometry, rng)
        assert field.mean() > 0.7
        if not field.all():
            return
    raise AssertionError("no film was collimated")
