"""Line integrals of implicit solids along parallel horizontal rays, compiled.

A solid is a row of numbers: where it is, how it is turned, its bounding box in its own frame, what
it is made of, and its shape. Its surface is the zero of a function f that grows outwards by about
1 per mm, so `f < −t` is the inside of a shell of thickness t. Along a ray f is sampled and taken as
linear in between, which gives both path lengths, shell and inside, without steps.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Solids = npt.NDArray[np.float64]

# Columns of a row of solids. Lengths in mm, attenuations in 1/mm relative to soft tissue.
KIND = 0
CENTER = 1  # 3
AXES = 4  # 9: the solid's x, y and z axis in the world, row by row
EXTENT = 13  # 3: half sides of the bounding box
MU_SHELL, MU_INSIDE, SHELL = 16, 17, 18
SHAPE = 19  # up to 14 numbers, by kind
WIDTH = 33

SUPERQUADRIC, BODY, CONE, LUNG = 0, 1, 2, 3

_FEWEST_SAMPLES, _MOST_SAMPLES = 7, 90
_MOST_MEMBERS = 40
_JOIN = 1.5  # mm over which the solids of a group flow into one another


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _smooth_max(a: float, b: float, k: float) -> float:
    h = max(k - abs(a - b), 0.0) / k
    return max(a, b) + h * h * k * 0.25


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _superquadric(s: Any, x: float, y: float, z: float) -> float:
    """a, b, c: half axes; n, m: exponents across and along z."""
    a, b, c, n, m = s[0], s[1], s[2], s[3], s[4]
    across = (abs(x / a) ** n + abs(y / b) ** n) ** (1.0 / n)
    r = (across**m + abs(z / c) ** m) ** (1.0 / m)
    return (r - 1.0) * min(a, min(b, c))


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _body(s: Any, x: float, y: float, z: float) -> float:
    """A vertebral body.

    a, b: half width and depth; front, middle, back: half heights; concavity of the end-plates;
    waist; exponent of the outline; hollow of the posterior wall; amplitude and three phases of the
    surface's unevenness; asymmetry between upper and lower end-plate.
    """
    a, b, front, middle, back = s[0], s[1], s[2], s[3], s[4]
    concavity, waist, n, hollow = s[5], s[6], s[7], s[8]
    amplitude, p1, p2, p3, lean = s[9], s[10], s[11], s[12], s[13]
    w = 1.0 - waist * max(0.0, 1.0 - (z / middle) ** 2)
    u, v = x / (a * w), y / (b * w)
    if v < 0.0:
        v *= 1.0 + hollow * max(0.0, 1.0 - u * u)
    rho = (abs(u) ** n + abs(v) ** n) ** (1.0 / n)
    side = (rho - 1.0) * min(a, b)
    t = max(-1.2, min(1.2, y / b))
    height = middle + 0.5 * (front - back) * t + (0.5 * (front + back) - middle) * t * t
    height -= concavity * max(0.0, 1.0 - rho * rho) * (1.0 + (lean if z > 0 else -lean))
    f = _smooth_max(side, abs(z) - height, 1.6)
    wave = np.sin(0.55 * x + 0.31 * z + p1) + np.sin(0.47 * y - 0.36 * z + p2)
    wave += np.sin(0.29 * x - 0.33 * y + 0.62 * z + p3)
    return f + amplitude * 0.5 * wave


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _cone(s: Any, x: float, y: float, z: float) -> float:
    """A tapered rod with round ends along z: half length, radii below and above, flatness of y."""
    half, r0, r1, flat = s[0], s[1], s[2], s[3]
    at = max(-half, min(half, z))
    r = r0 + (r1 - r0) * (at + half) / (2.0 * half)
    d = z - at
    return np.sqrt(x * x + (y / flat) ** 2 + d * d) - r


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _lung(s: Any, x: float, y: float, z: float) -> float:
    """A superquadric that stands on a dome: its numbers, then the dome's height and its foot."""
    rise = s[5] * (1.0 - (x / s[0]) ** 2 - (y / s[1]) ** 2) + s[6]
    return _smooth_max(_superquadric(s, x, y, z), rise - z, 6.0)


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _value(kind: int, s: Any, x: float, y: float, z: float) -> float:
    if kind == SUPERQUADRIC:
        return _superquadric(s, x, y, z)
    if kind == BODY:
        return _body(s, x, y, z)
    if kind == LUNG:
        return _lung(s, x, y, z)
    return _cone(s, x, y, z)


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _below(f0: float, f1: float, level: float, length: float) -> float:
    """How much of a segment lies below a level, f being linear on it."""
    g0, g1 = f0 - level, f1 - level
    if g0 < 0.0 and g1 < 0.0:
        return length
    if g0 >= 0.0 and g1 >= 0.0:
        return 0.0
    inside = g0 / (g0 - g1) if g0 < 0.0 else g1 / (g1 - g0)
    return length * inside


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _smooth_min(a: float, b: float, k: float) -> float:
    h = max(k - abs(a - b), 0.0) / k
    result: float = min(a, b) - h * h * k * 0.25
    return result


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def integrate(
    solids: Any,
    starts: Any,
    cos_view: float,
    sin_view: float,
    left: float,
    top: float,
    pixel: float,
    step: float,
    attenuation: Any,
    inside: Any,
) -> None:
    """Add the line integral of each group of solids to `attenuation`, of its inside to `inside`.

    The solids of a group are one piece: their union, joined smoothly, of the first one's material.
    Rays run along (−sin, cos, 0) of the view angle. Pixel (0, 0) is at (left, top) on the detector,
    whose horizontal axis is (cos, sin, 0) and whose vertical axis is −z; all in mm.

    Args:
        solids: float64 (N, WIDTH). starts: int64 (G + 1,), rows where groups begin, then N.
        pixel: side of a pixel. step: smallest distance of samples along a ray.
        attenuation, inside: float32 (rows, columns), added to.
    """
    rows, columns = attenuation.shape
    outer = np.empty(_MOST_SAMPLES + 1)
    core = np.empty(_MOST_SAMPLES + 1)
    near, far = np.empty(_MOST_MEMBERS), np.empty(_MOST_MEMBERS)
    origin, along = np.empty((_MOST_MEMBERS, 3)), np.empty((_MOST_MEMBERS, 3))
    for g in range(starts.shape[0] - 1):
        begin, count = starts[g], starts[g + 1] - starts[g]
        first_row, last_row, first_column, last_column = rows, -1, columns, -1
        for m in range(count):
            p = solids[begin + m]
            cu = p[1] * cos_view + p[2] * sin_view
            reach_u, reach_v = 0.0, 0.0
            for k in range(3):
                ax, ay, az = p[AXES + 3 * k], p[AXES + 3 * k + 1], p[AXES + 3 * k + 2]
                reach_u += abs(ax * cos_view + ay * sin_view) * p[EXTENT + k]
                reach_v += abs(az) * p[EXTENT + k]
                along[m, k] = -sin_view * ax + cos_view * ay
            first_column = min(first_column, int(np.floor((cu - reach_u - left) / pixel)))
            last_column = max(last_column, int(np.ceil((cu + reach_u - left) / pixel)))
            first_row = min(first_row, int(np.floor((top - p[3] - reach_v) / pixel)))
            last_row = max(last_row, int(np.ceil((top - p[3] + reach_v) / pixel)))
        material = solids[begin]
        thinnest = 1e9
        for m in range(count):
            for k in range(3):
                thinnest = min(thinnest, solids[begin + m, EXTENT + k])
        # Large smooth pieces need no more samples than small ones.
        spacing = max(step, 0.22 * thinnest)
        for row in range(max(first_row, 0), min(last_row, rows - 1) + 1):
            v = top - (row + 0.5) * pixel
            for column in range(max(first_column, 0), min(last_column, columns - 1) + 1):
                u = left + (column + 0.5) * pixel
                start, stop = 1e9, -1e9
                for m in range(count):
                    p = solids[begin + m]
                    wx, wy, wz = u * cos_view - p[1], u * sin_view - p[2], v - p[3]
                    t0, t1 = -1e9, 1e9
                    for k in range(3):
                        o = (
                            wx * p[AXES + 3 * k]
                            + wy * p[AXES + 3 * k + 1]
                            + wz * p[AXES + 3 * k + 2]
                        )
                        origin[m, k] = o
                        d, e = along[m, k], p[EXTENT + k]
                        if abs(d) < 1e-9:
                            if abs(o) > e:
                                t1 = -1e9
                        else:
                            a, b = (-e - o) / d, (e - o) / d
                            t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
                    near[m], far[m] = t0, t1
                    if t1 > t0:
                        start, stop = min(start, t0), max(stop, t1)
                if stop <= start:
                    continue
                pieces = min(max(int((stop - start) / spacing) + 1, _FEWEST_SAMPLES), _MOST_SAMPLES)
                length = (stop - start) / pieces
                for i in range(pieces + 1):
                    t = start + i * length
                    f, c = 1e3, 1e3
                    for m in range(count):
                        # A little beyond the box, so that no edge of it shows between samples.
                        if t < near[m] - length or t > far[m] + length or far[m] <= near[m]:
                            continue
                        p = solids[begin + m]
                        value = _value(
                            int(p[KIND]),
                            p[SHAPE:],
                            origin[m, 0] + t * along[m, 0],
                            origin[m, 1] + t * along[m, 1],
                            origin[m, 2] + t * along[m, 2],
                        )
                        f = _smooth_min(f, value, _JOIN)
                        c = _smooth_min(c, value + p[SHELL], _JOIN)
                    outer[i], core[i] = f, c
                whole, kernel = 0.0, 0.0
                for i in range(pieces):
                    whole += _below(outer[i], outer[i + 1], 0.0, length)
                    kernel += _below(core[i], core[i + 1], 0.0, length)
                if whole > 0.0:
                    trabecular = material[MU_INSIDE] * kernel
                    attenuation[row, column] += material[MU_SHELL] * (whole - kernel) + trabecular
                    inside[row, column] += trabecular
