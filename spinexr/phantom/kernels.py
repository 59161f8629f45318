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

SUPERQUADRIC, BODY, CONE, LUNG, PLATE = 0, 1, 2, 3, 4

_FEWEST_SAMPLES, _MOST_SAMPLES = 7, 90
MOST_MEMBERS = 64
_JOIN = 1.5  # mm over which the solids of a group flow into one another


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _smooth_max(a: float, b: float, k: float) -> float:
    h = max(k - abs(a - b), 0.0) / k
    return max(a, b) + h * h * k * 0.25


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _norm(x: float, y: float, square: float) -> float:
    """Between a circle's norm (square = 0) and that of x⁴ + y⁴ = 1 (1), without a power."""
    x, y = x * x, y * y
    return (1.0 - square) * np.sqrt(x + y) + square * np.sqrt(np.sqrt(x * x + y * y))


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _wave(x: float) -> float:
    """A sine made of parabolas."""
    t = x * 0.15915494309189535
    t -= np.floor(t + 0.5)
    return t * (8.0 - 16.0 * abs(t))


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _superquadric(s: Any, x: float, y: float, z: float) -> float:
    """a, b, c: half axes; squareness across and along z."""
    a, b, c = s[0], s[1], s[2]
    r = _norm(_norm(x / a, y / b, s[3]), z / c, s[4])
    return (r - 1.0) * min(a, min(b, c))


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _body(s: Any, x: float, y: float, z: float) -> float:
    """A vertebral body.

    a, b: half width and depth; front, middle, back: half heights; concavity of the end-plates;
    waist; squareness of the outline; hollow of the posterior wall; amplitude and three phases of
    the surface's unevenness; asymmetry between upper and lower end-plate.
    """
    a, b, front, middle, back = s[0], s[1], s[2], s[3], s[4]
    concavity, waist, square, hollow = s[5], s[6], s[7], s[8]
    amplitude, p1, p2, p3, lean = s[9], s[10], s[11], s[12], s[13]
    w = 1.0 - waist * max(0.0, 1.0 - (z / middle) * (z / middle))
    u, v = x / (a * w), y / (b * w)
    if v < 0.0:
        v *= 1.0 + hollow * max(0.0, 1.0 - u * u)
    rho = _norm(u, v, square)
    side = (rho - 1.0) * min(a, b)
    t = max(-1.2, min(1.2, y / b))
    height = middle + 0.5 * (front - back) * t + (0.5 * (front + back) - middle) * t * t
    height -= concavity * max(0.0, 1.0 - rho * rho) * (1.0 + (lean if z > 0 else -lean))
    f = _smooth_max(side, abs(z) - height, 1.6)
    wave = _wave(0.55 * x + 0.31 * z + p1) + _wave(0.47 * y - 0.36 * z + p2)
    wave += _wave(0.29 * x - 0.33 * y + 0.62 * z + p3)
    return f + amplitude * 0.5 * wave


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _cone(s: Any, x: float, y: float, z: float) -> float:
    """A tapered rod with round ends along z: half length, radii below and above, flatness of y."""
    half, r0, r1, flat = s[0], s[1], s[2], s[3]
    at = max(-half, min(half, z))
    r = r0 + (r1 - r0) * (at + half) / (2.0 * half)
    d = z - at
    return np.sqrt(x * x + (y / flat) * (y / flat) + d * d) - r


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _lung(s: Any, x: float, y: float, z: float) -> float:
    """A lung: a superquadric narrower at its apex, on a dome, with room for the heart.

    Half axes, squareness across and along z; the dome's height and foot; the heart's middle and
    half axes.
    """
    rise = s[5] * (1.0 - (x / s[0]) * (x / s[0]) - (y / s[1]) * (y / s[1])) + s[6]
    narrow = 1.0 / (1.0 - 0.22 * max(0.0, z / s[2]))
    f = _smooth_max(_superquadric(s, x * narrow, y * narrow, z), rise - z, 6.0)
    hx, hy, hz = (x - s[7]) / s[10], (y - s[8]) / s[11], (z - s[9]) / s[12]
    heart = (1.0 - np.sqrt(hx * hx + hy * hy + hz * hz)) * s[11]
    return _smooth_max(f, heart, 12.0)


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _plate(s: Any, x: float, y: float, z: float) -> float:
    """A bent plate across y: half width, thickness in the middle and at the rim, half height,
    how far it bends over x and over z at its rim, squareness of its outline."""
    u, w = x / s[0], z / s[3]
    rim = _norm(u, w, s[6])
    thick = s[1] + (s[2] - s[1]) * min(1.0, rim * rim * rim * rim)
    sheet = abs(y - s[4] * u * u - s[5] * w * w) - thick
    return _smooth_max(sheet, (rim - 1.0) * min(s[0], s[3]), 2.0)


@njit(cache=True, fastmath=True)  # type: ignore[untyped-decorator]
def _value(kind: int, s: Any, x: float, y: float, z: float) -> float:
    if kind == SUPERQUADRIC:
        return _superquadric(s, x, y, z)
    if kind == BODY:
        return _body(s, x, y, z)
    if kind == LUNG:
        return _lung(s, x, y, z)
    if kind == PLATE:
        return _plate(s, x, y, z)
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
    near, far = np.empty(MOST_MEMBERS), np.empty(MOST_MEMBERS)
    window = np.empty((MOST_MEMBERS, 4), np.int64)
    rowed, hit = np.empty(MOST_MEMBERS, np.int64), np.empty(MOST_MEMBERS, np.int64)
    origin, along = np.empty((MOST_MEMBERS, 3)), np.empty((MOST_MEMBERS, 3))
    for g in range(starts.shape[0] - 1):
        begin, count = starts[g], starts[g + 1] - starts[g]
        first_row, last_row, first_column, last_column = rows, -1, columns, -1
        thinnest = 1e9
        for m in range(count):
            p = solids[begin + m]
            cu = p[1] * cos_view + p[2] * sin_view
            reach_u, reach_v = 0.0, 0.0
            for k in range(3):
                ax, ay, az = p[AXES + 3 * k], p[AXES + 3 * k + 1], p[AXES + 3 * k + 2]
                reach_u += abs(ax * cos_view + ay * sin_view) * p[EXTENT + k]
                reach_v += abs(az) * p[EXTENT + k]
                along[m, k] = -sin_view * ax + cos_view * ay
                thinnest = min(thinnest, p[EXTENT + k])
            window[m, 0] = int(np.floor((cu - reach_u - left) / pixel))
            window[m, 1] = int(np.ceil((cu + reach_u - left) / pixel))
            window[m, 2] = int(np.floor((top - p[3] - reach_v) / pixel))
            window[m, 3] = int(np.ceil((top - p[3] + reach_v) / pixel))
            first_column = min(first_column, window[m, 0])
            last_column = max(last_column, window[m, 1])
            first_row, last_row = min(first_row, window[m, 2]), max(last_row, window[m, 3])
        material = solids[begin]
        # Large smooth pieces need no more samples than small ones.
        spacing = max(step, 0.22 * thinnest)
        for row in range(max(first_row, 0), min(last_row, rows - 1) + 1):
            v = top - (row + 0.5) * pixel
            on_row = 0
            for m in range(count):
                if window[m, 2] <= row <= window[m, 3]:
                    rowed[on_row] = m
                    on_row += 1
            for column in range(max(first_column, 0), min(last_column, columns - 1) + 1):
                u = left + (column + 0.5) * pixel
                start, stop, met = 1e9, -1e9, 0
                for n in range(on_row):
                    m = rowed[n]
                    if column < window[m, 0] or column > window[m, 1]:
                        continue
                    p = solids[begin + m]
                    wx, wy, wz = u * cos_view - p[1], u * sin_view - p[2], v - p[3]
                    t0, t1 = -1e9, 1e9
                    for k in range(3):
                        o = (
                            wx * p[AXES + 3 * k]
                            + wy * p[AXES + 3 * k + 1]
                            + wz * p[AXES + 3 * k + 2]
                        )
                        origin[met, k] = o
                        d, e = along[m, k], p[EXTENT + k]
                        if abs(d) < 1e-9:
                            if abs(o) > e:
                                t1 = -1e9
                        else:
                            a, b = (-e - o) / d, (e - o) / d
                            t0, t1 = max(t0, min(a, b)), min(t1, max(a, b))
                    if t1 > t0:
                        hit[met], near[met], far[met] = m, t0, t1
                        start, stop = min(start, t0), max(stop, t1)
                        met += 1
                if met == 0:
                    continue
                pieces = min(max(int((stop - start) / spacing) + 1, _FEWEST_SAMPLES), _MOST_SAMPLES)
                length = (stop - start) / pieces
                for i in range(pieces + 1):
                    outer[i], core[i] = 1e3, 1e3
                for n in range(met):
                    m = hit[n]
                    p = solids[begin + m]
                    kind, shape, shell = int(p[KIND]), p[SHAPE:], p[SHELL]
                    # A little beyond the box, so that no edge of it shows between samples.
                    first = max(0, int(np.ceil((near[n] - start) / length - 1.0)))
                    last = min(pieces, int((far[n] - start) / length + 1.0))
                    for i in range(first, last + 1):
                        t = start + i * length
                        value = _value(
                            kind,
                            shape,
                            origin[n, 0] + t * along[m, 0],
                            origin[n, 1] + t * along[m, 1],
                            origin[n, 2] + t * along[m, 2],
                        )
                        outer[i] = _smooth_min(outer[i], value, _JOIN)
                        core[i] = _smooth_min(core[i], value + shell, _JOIN)
                whole, kernel = 0.0, 0.0
                for i in range(pieces):
                    whole += _below(outer[i], outer[i + 1], 0.0, length)
                    kernel += _below(core[i], core[i + 1], 0.0, length)
                if whole > 0.0:
                    trabecular = material[MU_INSIDE] * kernel
                    attenuation[row, column] += material[MU_SHELL] * (whole - kernel) + trabecular
                    inside[row, column] += trabecular
