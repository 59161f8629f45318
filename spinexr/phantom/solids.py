"""Building blocks: rows for `kernels.integrate`, in the frame of whatever they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinexr.phantom import kernels

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Material:
    """Attenuation in 1/cm at 60 keV minus that of soft tissue (0.215), and shell thickness in mm.

    Rounded: cortical bone 0.60, trabecular 0.24–0.30, lung 0.05, titanium 3.4.
    """

    shell: float
    inside: float
    shell_mm: float


@dataclass(frozen=True, slots=True)
class Frame:
    """A place and an orientation: local point p is at `origin + axes.T @ p`."""

    origin: Vector
    axes: Matrix  # rows: the local x, y and z axis in the world

    def point(self, local: Sequence[float] | Vector) -> Vector:
        """World coordinates of a local point."""
        return self.origin + np.asarray(local, float) @ self.axes

    def at(self, local: Sequence[float] | Vector, turn: Matrix | None = None) -> Frame:
        """A frame at a local point, turned by `turn` within this frame."""
        axes = self.axes if turn is None else turn @ self.axes
        return Frame(self.point(local), axes)


WORLD = Frame(np.zeros(3), np.eye(3))


def rotation(x_deg: float = 0.0, y_deg: float = 0.0, z_deg: float = 0.0) -> Matrix:
    """Rows are the axes of a frame turned about x, then y, then z."""
    x, y, z = np.radians([x_deg, y_deg, z_deg])
    rx = np.array([[1, 0, 0], [0, np.cos(x), np.sin(x)], [0, -np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), np.sin(z), 0], [-np.sin(z), np.cos(z), 0], [0, 0, 1]])
    result: Matrix = rx @ ry @ rz
    return result


def superquadric(
    frame: Frame, half: Sequence[float], material: Material, *, n: float = 2.0, m: float = 2.0
) -> Vector:
    """An ellipsoid (n = m = 2), a rounded box (exponents up to 4) or anything between."""
    shape = [*half, _squareness(n), _squareness(m)]
    return _row(kernels.SUPERQUADRIC, frame, half, material, shape)


def cone(
    start: Vector, end: Vector, r_start: float, r_end: float, material: Material,
    *, flat: float = 1.0, flat_axis: Vector | None = None, round_ends: bool = True,
) -> Vector:  # fmt: skip
    """A tapered rod; `flat` scales it along `flat_axis` across its length.

    Rods without round ends can follow one another without counting twice.
    """
    along = end - start
    length = float(np.linalg.norm(along))
    z = along / max(length, 1e-9)
    hint = np.array([0.0, 1.0, 0.0]) if flat_axis is None else flat_axis
    y = hint - hint @ z * z
    if np.linalg.norm(y) < 1e-6:
        y = np.array([1.0, 0.0, 0.0]) - z[0] * z
    y /= np.linalg.norm(y)
    axes = np.stack([np.cross(y, z), y, z])
    frame = Frame((start + end) / 2, axes)
    widest = max(r_start, r_end)
    half = max(length / 2, 0.05)
    extent = [widest, widest * max(flat, 1e-3), half + (widest if round_ends else 0.02)]
    return _row(kernels.CONE, frame, extent, material, [half, r_start, r_end, flat])


def lung(
    frame: Frame, half: Sequence[float], material: Material, *, dome: float, foot: float,
    heart: Vector, heart_half: Vector, n: float = 2.5, m: float = 2.3,
) -> Vector:  # fmt: skip
    """A lung: a superquadric on a diaphragm that rises by `dome` above `foot` (local z).

    It leaves room for an ellipsoid at `heart` in the lung's frame.
    """
    shape = [*half, _squareness(n), _squareness(m), dome, foot, *heart, *heart_half]
    return _row(kernels.LUNG, frame, half, material, shape)


def plate(
    frame: Frame, half: Sequence[float], material: Material,
    *, rim: float, bend: Sequence[float], n: float = 2.4,
) -> Vector:  # fmt: skip
    """A plate across local y: half width, half thickness, half height; bent toward y.

    `rim` is half its thickness at the edge, `bend` how far it leaves its plane there over x and z.
    """
    width, thick, height = half
    reach = max(thick, rim) + abs(bend[0]) + abs(bend[1])
    shape = [width, thick, rim, height, *bend, _squareness(n)]
    return _row(kernels.PLATE, frame, [width, reach, height], material, shape)


def body(
    frame: Frame, *, half_width: float, half_depth: float,
    half_heights: tuple[float, float, float], concavity: float, waist: float, outline: float,
    hollow: float, unevenness: float, phases: Sequence[float], lean: float, material: Material,
) -> Vector:  # fmt: skip
    """A vertebral body; `half_heights` in front, in the middle and at the back."""
    reach = max(half_heights) + 2.0
    extent = [half_width + 1.5, half_depth + 1.5, reach]
    square = _squareness(outline)
    shape = [half_width, half_depth, *half_heights, concavity, waist, square, hollow]
    return _row(kernels.BODY, frame, extent, material, [*shape, unevenness, *phases, lean])


def _squareness(exponent: float) -> float:
    """Weight of the norm of exponent 4 against that of 2: the same corner as `exponent` gives."""
    if not 2 <= exponent <= 4:
        raise ValueError(f"the exponent of a superquadric must be between 2 and 4, not {exponent}")
    circle, square = 2**0.5, 2**0.25
    return float((circle - 2 ** (1 / exponent)) / (circle - square))


def _row(
    kind: int, frame: Frame, extent: Sequence[float], material: Material, shape: Sequence[float]
) -> Vector:
    row = np.zeros(kernels.WIDTH)
    row[kernels.KIND] = kind
    row[kernels.CENTER : kernels.CENTER + 3] = frame.origin
    row[kernels.AXES : kernels.AXES + 9] = frame.axes.ravel()
    row[kernels.EXTENT : kernels.EXTENT + 3] = extent
    # 1/cm → 1/mm
    row[kernels.MU_SHELL : kernels.SHELL + 1] = (
        material.shell / 10, material.inside / 10, material.shell_mm,
    )  # fmt: skip
    row[kernels.SHAPE : kernels.SHAPE + len(shape)] = shape
    return row
