"""Radiograph → its stored values for a viewer, compact and without loss.

A body is a little-endian uint32, so many bytes of JSON (UTF-8), and one zlib stream (RFC 1950) of:
the low bytes of all pixels, their high bytes, `levels` (uint8) and, where the JSON has no rescale,
`values` (little-endian float32), the latter two with an entry for each stored value from `lowest`
to `highest`. A pixel is written as its difference from the one before it in reading order, the
first one's from 0, modulo 2¹⁶, with the sign in the lowest bit, so that small differences of either
sign have no high byte.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from spinexr.domain import Radiograph, VoiFunction, Windowing

MEDIA_TYPE = "application/vnd.spinexr.pixels"
VERSION = 1
_ZLIB_LEVEL = 1  # noise is what is left to deflate: level 6 saves little and takes far longer


def encode(radiograph: Radiograph) -> bytes:
    """The stored values, and what is needed to window them as the file means it."""
    stored = radiograph.stored
    windowing = radiograph.windowing or _plain(radiograph)
    rescale = _rescale(windowing.values)
    head = json.dumps(_head(radiograph, windowing, rescale), allow_nan=False).encode()
    levels = np.rint(radiograph.levels * 255.0).astype(np.uint8)
    deflate = zlib.compressobj(_ZLIB_LEVEL)
    parts = [deflate.compress(plane) for plane in _planes(stored)]
    parts.append(deflate.compress(levels.tobytes()))
    if rescale is None:
        parts.append(deflate.compress(windowing.values.astype("<f4").tobytes()))
    parts.append(deflate.flush())
    return b"".join([len(head).to_bytes(4, "little"), head, *parts])


def _head(
    radiograph: Radiograph, windowing: Windowing, rescale: tuple[float, float] | None
) -> dict[str, Any]:
    spacing = radiograph.spacing
    return {
        "version": VERSION,
        "rows": radiograph.rows,
        "columns": radiograph.columns,
        "lowest": radiograph.lowest,
        "highest": radiograph.lowest + len(radiograph.levels) - 1,
        "rescale": rescale and {"slope": rescale[0], "intercept": rescale[1]},
        "inverse": windowing.inverse,
        "function": windowing.function.value,
        "table": windowing.table,
        "windows": [
            {"name": w.name, "center": w.center, "width": w.width} for w in windowing.windows
        ],
        "pixel_spacing": spacing
        and {
            "row_mm": spacing.row_mm,
            "column_mm": spacing.column_mm,
            "source": spacing.source.value,
        },
    }


def _planes(stored: npt.NDArray[np.integer[Any]]) -> tuple[bytes, bytes]:
    """Low and high bytes of the differences."""
    flat = stored.astype(np.int16 if stored.dtype.kind == "i" else np.uint16).view(np.int16).ravel()
    differences = np.empty_like(flat)
    differences[0] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=differences[1:])
    folded = (differences << 1) ^ (differences >> 15)
    halves = folded.astype("<i2", copy=False).view(np.uint8).reshape(-1, 2)
    return halves[:, 0].tobytes(), halves[:, 1].tobytes()


def _rescale(values: npt.NDArray[np.float32]) -> tuple[float, float] | None:
    """(slope, intercept) over the number of the entry, where all values lie on that line."""
    first, last = float(values[0]), float(values[-1])
    slope = (last - first) / (len(values) - 1)
    line = first + slope * np.arange(len(values))
    if np.abs(line - values).max() > 1e-6 * max(abs(first), abs(last)):
        return None
    return slope, first


def _plain(radiograph: Radiograph) -> Windowing:
    """For a radiograph that no file stands behind: stored values, shown from end to end."""
    count = len(radiograph.levels)
    return Windowing(
        values=(radiograph.lowest + np.arange(count)).astype(np.float32),
        function=VoiFunction.LINEAR,
        windows=(),
        table=False,
        inverse=bool(radiograph.levels[0] > radiograph.levels[-1]),
    )
