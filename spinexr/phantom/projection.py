"""One view of one patient: geometry → attenuation → film → stored values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from spinexr.domain import Photometric
from spinexr.phantom import anatomy, film, kernels, lesions
from spinexr.phantom.anatomy import LEVELS, Groups, Patient, Region, Vertebra
from spinexr.phantom.solids import Frame, Vector

_SOFT_PER_MM = 0.0205  # mean of muscle (0.0215) and fat (0.0188), see `solids.Material`
_STEP_MM = 1.6
# Region → level at the centre, height of the field in mm, levels that may show.
_FIELDS = {
    Region.CERVICAL: ("C5", 215.0, LEVELS[:10]),
    Region.THORACIC: ("T7", 370.0, LEVELS[3:20]),
    Region.THORACOLUMBAR: ("L1", 340.0, LEVELS[11:]),
    Region.LUMBAR: ("L3", 325.0, LEVELS[13:]),
}


class View(StrEnum):
    """DICOM View Position (0018,5101), PS3.3 C.8.1.2."""

    FRONTAL = "AP"
    LATERAL = "LL"
    OBLIQUE = "RAO"


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A patient whose bones are in place, seen from any side."""

    patient: Patient
    region: Region
    vertebrae: dict[str, Vertebra]
    sacrum: Frame
    groups: Groups
    gas: list[tuple[Vector, float]]
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
    groups += changes.pieces
    gas: list[tuple[Vector, float]] = []
    if region is Region.CERVICAL:
        groups += anatomy.head_and_neck(vertebrae, patient, rng)
    else:
        groups += anatomy.ribs(vertebrae, patient, rng)
        groups += anatomy.chest(vertebrae, patient, rng)
    if region in (Region.LUMBAR, Region.THORACOLUMBAR):
        groups += anatomy.pelvis(sacrum, patient, rng)
        gas = anatomy.belly_gas(vertebrae["L3"].frame.origin, patient, rng)
    return Scene(patient, region, vertebrae, sacrum, groups, gas, tuple(changes.marks))


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
    shape = (view.rows, view.columns)
    bone, inside = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    angle = np.radians(view.angle_deg)
    starts = np.cumsum([0, *(len(g) for g in scene.groups)])
    kernels.integrate(
        np.array([row for group in scene.groups for row in group]), starts,
        np.cos(angle), np.sin(angle), view.left, view.top, view.pixel_mm, _STEP_MM, bone, inside,
    )  # fmt: skip
    soft = _soft_tissue(scene, view)
    soft -= 0.9 * _SOFT_PER_MM * _gas(scene, view)
    # Trabeculae: 0.7–1.5 mm, longer along the spine, ± 10 %.
    trabeculae = _texture(rng, shape, (0.8 / view.pixel_mm, 0.45 / view.pixel_mm))
    muscle = _texture(rng, shape, (3.0 / view.pixel_mm, 2.5 / view.pixel_mm))
    total = bone + 0.1 * np.maximum(inside, 0) * trabeculae
    total += np.maximum(soft, 0) * (1 + 0.004 * muscle)
    result: film.Image = np.maximum(total, 0).astype(np.float32)
    return result


def expose(
    scene: Scene, view: Geometry, exposure: film.Film, rng: np.random.Generator
) -> film.Image:
    """The processed film: float32 (rows, columns) in 0–1, 1 = bone, black outside the field."""
    absorbed = attenuation(scene, view, rng)
    absorbed += 3.0 * _marker(view, rng)
    signal = film.expose(absorbed, exposure, view.pixel_mm, rng)
    field = _field(view, rng)
    shown = film.process(signal, exposure, view.pixel_mm, field)
    edge = gaussian_filter(field.astype(np.float32), 0.6 / view.pixel_mm)
    result: film.Image = shown * edge
    return result


def to_stored(shown: film.Image, *, bits: int, photometric: Photometric) -> npt.NDArray[np.uint16]:
    """Stored values of `bits` bits for display values 0–1 (1 = bone)."""
    levels = 1.0 - shown if photometric is Photometric.MONOCHROME1 else shown
    stored: npt.NDArray[np.uint16] = np.rint(np.clip(levels, 0, 1) * (2**bits - 1)).astype(
        np.uint16
    )
    return stored


def _soft_tissue(scene: Scene, view: Geometry) -> film.Image:
    """Attenuation of a trunk and neck with elliptic sections, by the chord of an ellipse."""
    girth = scene.patient.girth
    v = scene.vertebrae
    # level: half width, half depth, how far the middle lies before the spine
    table = {
        "C2": (66, 76, 16), "C4": (58, 62, 12), "C7": (72, 70, 12), "T2": (165, 92, 12),
        "T6": (165, 108, 44), "T12": (150, 105, 40), "L3": (140, 100, 32), "L5": (165, 106, 26),
    }  # fmt: skip
    heights = [float(v[n].frame.origin[2]) for n in table]
    depths = [
        float(v[n].frame.origin[1]) + row[2] for n, row in zip(table, table.values(), strict=True)
    ]
    z = view.top - (np.arange(view.rows) + 0.5) * view.pixel_mm
    order = np.argsort(heights)

    def along_z(values: list[float]) -> npt.NDArray[np.float64]:
        stepped = np.interp(z, np.array(heights)[order], np.array(values)[order])
        smooth: Vector = gaussian_filter(stepped, 14 / view.pixel_mm, mode="nearest")[:, None]
        return smooth

    a = along_z([row[0] * girth**0.5 for row in table.values()])
    b = along_z([row[1] * girth for row in table.values()])
    angle = np.radians(view.angle_deg)
    u = (
        view.left
        + (np.arange(view.columns) + 0.5) * view.pixel_mm
        - along_z(depths) * np.sin(angle)
    )
    reach = (a * np.cos(angle)) ** 2 + (b * np.sin(angle)) ** 2
    chord = 2 * a * b * np.sqrt(np.maximum(reach - u * u, 0)) / reach
    result: film.Image = (chord * _SOFT_PER_MM).astype(np.float32)
    return result


def _gas(scene: Scene, view: Geometry) -> film.Image:
    """Path through bowel gas in mm: bubbles that merge rather than add up."""
    path = np.zeros((view.rows, view.columns), np.float32)
    grid_y, grid_x = np.ogrid[: view.rows, : view.columns]
    for center, radius in scene.gas:
        x, y = view.project(center)
        r = radius / view.pixel_mm
        rows = slice(max(0, int(y - r)), max(0, min(view.rows, int(y + r) + 2)))
        columns = slice(max(0, int(x - r)), max(0, min(view.columns, int(x + r) + 2)))
        gap = (grid_y[rows] + 0.5 - y) ** 2 + (grid_x[:, columns] + 0.5 - x) ** 2
        chord = 2 * view.pixel_mm * np.sqrt(np.maximum(r * r - gap, 0))
        path[rows, columns] = np.maximum(path[rows, columns], chord)
    merged: film.Image = gaussian_filter(path, 0.8 / view.pixel_mm)
    return merged


def _texture(
    rng: np.random.Generator, shape: tuple[int, int], sigma: tuple[float, float]
) -> film.Image:
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    result: film.Image = noise / noise.std()
    return result


def _field(view: Geometry, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """True inside the collimated field: up to three straight edges, a little oblique."""
    y, x = np.ogrid[: view.rows, : view.columns]
    field = np.ones((view.rows, view.columns), bool)
    sides = rng.random(4) < 0.3
    for side in np.flatnonzero(sides)[:3]:
        depth = float(rng.uniform(0.01, 0.07)) * (view.columns if side < 2 else view.rows)
        slope = float(rng.normal(0, 0.012))
        across = x if side % 4 < 2 else y
        along = y if side < 2 else x
        size = view.columns if side < 2 else view.rows
        place = across if side % 2 == 0 else size - 1 - across
        field &= place - slope * (along - (view.rows if side < 2 else view.columns) / 2) > depth
    return field


def _marker(view: Geometry, rng: np.random.Generator) -> film.Image:
    """Lead letters at the side of the field, one where they are."""
    picture = PillowImage.new("L", (view.columns, view.rows))
    if rng.random() < 0.85:
        font = ImageFont.load_default(size=max(10.0, 13.0 / view.pixel_mm))
        x = (0.06 if rng.random() < 0.5 else 0.86) * view.columns
        y = float(rng.uniform(0.08, 0.85)) * view.rows
        ImageDraw.Draw(picture).text((x, y), "L" if rng.random() < 0.5 else "R", 255, font)
        picture = picture.rotate(float(rng.normal(0, 6)), center=(x, y))
    result: film.Image = np.asarray(picture, dtype=np.float32) / 255.0
    return result
