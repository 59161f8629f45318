"""One view of one patient: geometry → attenuation → film → stored values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import cv2
import numpy as np
import numpy.typing as npt

from spinexr.domain import Box, Photometric
from spinexr.phantom import accessories, anatomy, film, kernels, lesions, organs, skeleton
from spinexr.phantom.anatomy import LEVELS, Groups, Patient, Region, Vertebra
from spinexr.phantom.solids import Frame, Vector

# 1/mm at 60 keV: muscle and organs 0.0215, fat 0.0188; inside the trunk both are mixed.
_FAT_PER_MM, _LEAN_PER_MM = 0.0188, 0.0208
_STEP_MM = 1.6
_SMOOTH_PIXEL_MM = 1.1  # pixels in which pieces without fine edges are integrated
# Region → level at the centre, height of the field in mm, levels that may show.
_FIELDS = {
    Region.CERVICAL: ("C5", 215.0, LEVELS[:10]),
    Region.THORACIC: ("T7", 370.0, LEVELS[3:20]),
    Region.THORACOLUMBAR: ("L1", 340.0, LEVELS[11:]),
    Region.LUMBAR: ("L3", 325.0, LEVELS[13:]),
}


class View(StrEnum):
    """From where a patient is seen; `Geometry.view_position` says from which side."""

    FRONTAL = "frontal"
    LATERAL = "lateral"
    OBLIQUE = "oblique"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A patient whose bones are in place, seen from any side."""

    patient: Patient
    region: Region
    vertebrae: dict[str, Vertebra]
    sacrum: Frame
    groups: Groups
    smooth: Groups  # without fine edges
    gas: list[organs.Loop]
    marks: tuple[lesions.Marks, ...]


@dataclass(frozen=True, slots=True)
class Geometry:
    """The detector: view angle about z, field and pixel size, in mm at the patient."""

    angle_deg: float
    left: float
    top: float
    pixel_mm: float
    rows: int
    columns: int

    def with_pixel(self, pixel_mm: float) -> Geometry:
        """The same field in pixels of about another size."""
        rows = max(1, round(self.rows * self.pixel_mm / pixel_mm))
        columns = max(1, round(self.columns * self.pixel_mm / pixel_mm))
        return replace(self, pixel_mm=self.rows * self.pixel_mm / rows, rows=rows, columns=columns)

    @property
    def across(self) -> Vector:
        """Unit vector of the horizontal axis in the world."""
        angle = np.radians(self.angle_deg)
        return np.array([np.cos(angle), np.sin(angle), 0.0])

    def box_of(self, marks: lesions.Marks) -> Box | None:
        """The box of a finding on this film, None where it does not show."""
        return lesions.box_of(
            marks, self.project, across=self.across, pixel_mm=self.pixel_mm,
            rows=self.rows, columns=self.columns,
        )  # fmt: skip

    def view_position(self, view: View) -> str:
        """DICOM View Position: which side was at the detector follows from the angle."""
        if view is View.FRONTAL:
            return "AP"
        right = self.angle_deg > 0
        if view is View.LATERAL:
            return "RL" if right else "LL"
        return "RAO" if right else "LAO"

    def project(self, point: Vector) -> tuple[float, float]:
        """(x, y) in pixels of a point in the world."""
        angle = np.radians(self.angle_deg)
        u = float(point[0] * np.cos(angle) + point[1] * np.sin(angle))
        return (u - self.left) / self.pixel_mm, (self.top - float(point[2])) / self.pixel_mm


def build_scene(
    region: Region,
    patient: Patient,
    rng: np.random.Generator,
    *,
    findings: Sequence[lesions.Finding] = (),
) -> Scene:
    """Everything of a patient that a film of the region shows."""
    vertebrae = anatomy.make_vertebrae(patient, rng)
    center, _, levels = _FIELDS[region]
    lesions.change_vertebrae(findings, vertebrae, rng)
    sacrum = anatomy.place(patient, vertebrae, center)
    changes = lesions.apply(findings, vertebrae, patient, rng)
    groups: Groups = [
        anatomy.vertebra_solids(vertebrae[n], patient, rng) + changes.joined.get(n, [])
        for n in levels
    ]
    groups += changes.pieces + lesions.dents(vertebrae, levels, rng)
    groups += skeleton.ribs(vertebrae, patient, rng)
    smooth: Groups = []
    gas: list[organs.Loop] = []
    if region is Region.CERVICAL:
        groups += skeleton.head_and_neck(vertebrae, patient, rng)
        groups += organs.airway(vertebrae, patient)
    if region in (Region.CERVICAL, Region.THORACIC):
        groups += skeleton.shoulders(vertebrae, patient, rng)
    lungs, vessels = organs.chest(vertebrae, patient, rng)
    smooth += lungs
    if region is not Region.CERVICAL:
        groups += vessels
        groups += organs.calcifications(vertebrae, patient, rng)
        smooth += organs.belly(vertebrae, patient, rng)
        gas += organs.stomach_bubble(vertebrae, patient, rng)
    if region in (Region.LUMBAR, Region.THORACOLUMBAR):
        groups += skeleton.pelvis(sacrum, patient, rng)
        gas += organs.bowel_gas(vertebrae["L3"].frame.origin, patient, rng)
    return Scene(patient, region, vertebrae, sacrum, groups, smooth, gas, tuple(changes.marks))


def geometry_for(
    scene: Scene, view: View, rng: np.random.Generator, *, rows: int, columns: int
) -> Geometry:
    """Aim as a radiographer does: the region's middle in the picture, the spine behind it."""
    center, height, _ = _FIELDS[scene.region]
    height *= float(rng.uniform(0.95, 1.08)) * scene.patient.scale
    pixel = height / rows
    side = 1.0 if rng.random() < 0.5 else -1.0
    angle = {
        View.FRONTAL: float(rng.normal(0, 2.5)),
        View.LATERAL: 90.0 * side + float(rng.normal(0, 2.5)),
        View.OBLIQUE: side * float(rng.uniform(35, 45)),
    }[view]
    middle = scene.vertebrae[center].frame.origin
    u = middle[0] * np.cos(np.radians(angle)) + middle[1] * np.sin(np.radians(angle))
    u += 0.09 * columns * pixel * np.sin(np.radians(angle)) + float(rng.normal(0, 6))
    return Geometry(
        angle_deg=angle,
        left=float(u - columns * pixel / 2),
        top=float(middle[2] + height / 2 + rng.normal(0, 6)),
        pixel_mm=pixel,
        rows=rows,
        columns=columns,
    )


def attenuation(scene: Scene, view: Geometry, rng: np.random.Generator) -> film.Image:
    """Line integrals of everything in the scene: float32 (rows, columns), no unit."""
    bone, inside = _integrals(scene.groups, view)
    coarse = view.with_pixel(max(_SMOOTH_PIXEL_MM, view.pixel_mm))
    shape = (view.rows, view.columns)
    soft = _soft_tissue(scene, coarse)
    soft += soft * 0.012 * _power_law(rng, coarse)
    soft += _integrals(scene.smooth, coarse)[0]
    soft -= 0.9 * _LEAN_PER_MM * _gas(scene, coarse, rng)
    soft = film.enlarged(soft, shape)
    # Trabeculae: 0.7–1.5 mm, longer along the spine, ± 10 %.
    trabeculae = _texture(rng, shape, (0.8 / view.pixel_mm, 0.45 / view.pixel_mm))
    total = bone + 0.1 * np.maximum(inside, 0) * trabeculae + np.maximum(soft, 0)
    result: film.Image = np.maximum(total, 0).astype(np.float32)
    return result


def expose(
    scene: Scene, view: Geometry, exposure: film.Film, rng: np.random.Generator
) -> film.Image:
    """The processed film: float32 (rows, columns) in 0–1, 1 = bone, black outside the field."""
    absorbed = attenuation(scene, view, rng)
    absorbed += accessories.attenuation(view.rows, view.columns, view.pixel_mm, rng)
    signal = film.expose(absorbed, exposure, view.pixel_mm, rng)
    field = _field(view, rng)
    shown = film.process(signal, exposure, view.pixel_mm, field)
    edge = film.blurred(field.astype(np.float32), 0.5 / view.pixel_mm)
    letters = accessories.burned_in(view.rows, view.columns, rng)
    result: film.Image = np.maximum(shown * edge, letters)
    return result


def to_stored(shown: film.Image, *, bits: int, photometric: Photometric) -> npt.NDArray[np.uint16]:
    """Stored values of `bits` bits for display values 0–1 (1 = bone)."""
    levels = 1.0 - shown if photometric is Photometric.MONOCHROME1 else shown
    stored: npt.NDArray[np.uint16] = np.rint(np.clip(levels, 0, 1) * (2**bits - 1)).astype(
        np.uint16
    )
    return stored


def _integrals(groups: Groups, view: Geometry) -> tuple[film.Image, film.Image]:
    """Attenuation of solids, and the part of it that is the inside of bones."""
    total = np.zeros((view.rows, view.columns), np.float32)
    inside = np.zeros_like(total)
    if groups:
        angle = np.radians(view.angle_deg)
        if max(map(len, groups)) > kernels.MOST_MEMBERS:  # compiled code would not notice
            raise ValueError(f"a piece has more than {kernels.MOST_MEMBERS} solids")
        starts = np.cumsum([0, *(len(g) for g in groups)])
        kernels.integrate(
            np.array([row for group in groups for row in group]), starts,
            np.cos(angle), np.sin(angle), view.left, view.top, view.pixel_mm, _STEP_MM,
            total, inside,
        )  # fmt: skip
    return total, inside


def _soft_tissue(scene: Scene, view: Geometry) -> film.Image:
    """Attenuation of a lean trunk and neck of elliptic sections in a coat of fat."""
    patient = scene.patient
    s, girth = patient.scale, patient.girth
    origins = [scene.vertebrae[n].frame.origin for n in organs.TRUNK]
    rows = np.array(list(organs.TRUNK.values()))
    z = view.top - (np.arange(view.rows) + 0.5) * view.pixel_mm
    order = np.argsort([o[2] for o in origins])
    heights = np.array([o[2] for o in origins])[order]

    def along_z(values: npt.NDArray[np.float64]) -> film.Image:
        stepped = np.interp(z, heights, values[order]).astype(np.float32)[:, None]
        return film.blurred(stepped, 14 / view.pixel_mm)

    neck = rows[:, 0] < 100
    stout = np.where(neck, girth**0.3, girth) * s
    a = along_z(rows[:, 0] * stout**0.5 * s**0.5)
    b = along_z(rows[:, 1] * stout)
    ahead = along_z(np.array([o[1] for o in origins]) + rows[:, 2] * s)
    aside = along_z(np.array([o[0] for o in origins]) * 0.5)
    fat = along_z(np.where(neck, 5.0, 6.0 + 26.0 * max(0.0, girth - 0.75)))
    angle = np.radians(view.angle_deg)
    u = view.left + (np.arange(view.columns) + 0.5) * view.pixel_mm
    u = (u - aside * np.cos(angle) - ahead * np.sin(angle)).astype(np.float32)

    def chord(a: film.Image, b: film.Image) -> film.Image:
        reach = (a * np.cos(angle)) ** 2 + (b * np.sin(angle)) ** 2
        path: film.Image = 2 * a * b * np.sqrt(np.maximum(reach - u * u, 0)) / reach
        return path

    lean = chord(np.maximum(a - fat, 20), np.maximum(b - fat, 20))
    result: film.Image = chord(a, b) * _FAT_PER_MM + lean * (_LEAN_PER_MM - _FAT_PER_MM)
    return result.astype(np.float32)


def _gas(scene: Scene, view: Geometry, rng: np.random.Generator) -> film.Image:
    """Path through bowel gas in mm: bubbles that merge rather than add up, bent out of shape."""
    path = np.zeros((view.rows, view.columns), np.float32)
    if not scene.gas:
        return path
    grid_y, grid_x = np.ogrid[: view.rows, : view.columns]
    for center, radius in (bubble for loop in scene.gas for bubble in loop):
        x, y = view.project(center)
        r = radius / view.pixel_mm
        rows = slice(max(0, int(y - r)), max(0, min(view.rows, int(y + r) + 2)))
        columns = slice(max(0, int(x - r)), max(0, min(view.columns, int(x + r) + 2)))
        gap = (grid_y[rows] + 0.5 - y) ** 2 + (grid_x[:, columns] + 0.5 - x) ** 2
        chord = 2 * view.pixel_mm * np.sqrt(np.maximum(r * r - gap, 0))
        path[rows, columns] = np.maximum(path[rows, columns], chord)
    near, far = 2.5 / view.pixel_mm, 7.0 / view.pixel_mm
    shift = [
        _texture(rng, path.shape, (near, near)) * 0.6 + _texture(rng, path.shape, (far, far)) * 3.0
        for _ in range(2)
    ]
    from_x, from_y = (
        (grid + s / view.pixel_mm).astype(np.float32)
        for grid, s in zip((grid_x, grid_y), shift, strict=True)
    )
    bent: film.Image = cv2.remap(path, from_x, from_y, cv2.INTER_LINEAR)
    folds = np.clip(0.9 + 0.15 * _texture(rng, path.shape, (near, near)), 0.3, 1.3)
    return film.blurred(bent * folds.astype(np.float32), 0.8 / view.pixel_mm)


def _power_law(rng: np.random.Generator, view: Geometry) -> film.Image:
    """Clouds of all sizes, the larger the stronger, as overlaid soft tissue gives; std near 1."""
    total = np.zeros((view.rows, view.columns), np.float32)
    for size_mm, strength in ((2.0, 0.25), (5.0, 0.4), (12.0, 0.6), (30.0, 0.8)):
        sigma = size_mm / view.pixel_mm
        total += strength * _texture(rng, total.shape, (sigma, sigma))
    return total


def _texture(
    rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, float]
) -> film.Image:
    """Noise of unit variance, blurred by (down, across) pixels; on a grid as fine as it needs."""
    factor = max(1, int(min(sigma) / 2.5))
    coarse = (max(8, -(-shape[0] // factor)), max(8, -(-shape[1] // factor)))
    noise = cv2.GaussianBlur(
        rng.standard_normal(coarse, dtype=np.float32), (0, 0),
        sigmaX=max(sigma[1] / factor, 0.1), sigmaY=max(sigma[0] / factor, 0.1),
    )  # fmt: skip
    if coarse != shape:
        noise = film.enlarged(noise, (shape[0], shape[1]))
    result: film.Image = noise / (noise.std() + 1e-9)
    return result


def _field(view: Geometry, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """True inside the collimated field: up to three straight edges, a little oblique."""
    y, x = np.ogrid[: view.rows, : view.columns]
    field = np.ones((view.rows, view.columns), bool)
    sides = rng.random(4) < 0.3
    for side in np.flatnonzero(sides)[:3]:
        size = view.columns if side < 2 else view.rows
        depth = float(rng.uniform(0.01, 0.15 if side < 2 else 0.07)) * size
        slope = float(rng.normal(0, 0.012))
        across = x if side % 4 < 2 else y
        along = y if side < 2 else x
        place = across if side % 2 == 0 else size - 1 - across
        field &= place - slope * (along - (view.rows if side < 2 else view.columns) / 2) > depth
    return field
