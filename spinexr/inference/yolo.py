"""Around a YOLO detector: image → framed input, network output → boxes in the image's pixels.

The frame, the candidates and their suppression are those of ultralytics' own prediction, so that a
checkpoint answers as it does there; tests hold the two against each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from spinexr.inference.engines.base import RawDetections

STRIDE = 32  # the coarsest of the grids
_STRIDES = (8, 16, 32)
_GROUND = 114  # grey level around the image
_ONE = 1 << 11  # in weights of pixels
_MOST_CANDIDATES = 30_000

Grey = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Frame:
    """Where an image (rows, columns) lies in the network's input."""

    rows: int
    columns: int
    resized_rows: int
    resized_columns: int
    top: int
    left: int

    def to_image(self, boxes: Floats) -> Floats:
        """xyxy (N, 4) in input pixels → in the image's pixels, clipped to it."""
        scale_x = self.resized_columns / self.columns
        scale_y = self.resized_rows / self.rows
        moved = boxes - np.array([self.left, self.top] * 2, np.float32)
        moved /= np.array([scale_x, scale_y] * 2, np.float32)
        limits = np.array([self.columns, self.rows] * 2, np.float32)
        clipped: Floats = np.clip(moved, 0, limits)
        return clipped


def letterbox(grey: Grey, size: int) -> tuple[Grey, Frame]:
    """The image scaled to `size` on its longer side, in the smallest frame that the grids fit.

    Args:
        grey: uint8 (H, W). size: a multiple of STRIDE.

    Returns:
        uint8 (h, w), both multiples of STRIDE, and where the image lies in it.
    """
    rows, columns = grey.shape
    scale = min(size / rows, size / columns)
    new_rows, new_columns = max(round(rows * scale), 1), max(round(columns * scale), 1)
    down, across = (size - new_rows) % STRIDE / 2, (size - new_columns) % STRIDE / 2
    top, left = round(down - 0.1), round(across - 0.1)
    bottom, right = round(down + 0.1), round(across + 0.1)
    framed = np.full((top + new_rows + bottom, left + new_columns + right), _GROUND, np.uint8)
    framed[top : top + new_rows, left : left + new_columns] = resized(grey, new_rows, new_columns)
    return framed, Frame(rows, columns, new_rows, new_columns, top, left)


def resized(grey: Grey, rows: int, columns: int) -> Grey:
    """Bilinear between the four nearest pixels, also where it shrinks.

    In the fixed-point arithmetic of OpenCV's INTER_LINEAR (modules/imgproc/src/resize.cpp), which
    ultralytics scales with: firm boxes hang on single grey levels, and OpenCV is as large as all
    else that serving needs.
    """
    if grey.shape == (rows, columns):
        return grey
    above, below, high, low = _neighbours(grey.shape[0], rows)
    left, right, near, far = _neighbours(grey.shape[1], columns)
    # OpenCV leaves out what lies beyond the first and last column, and keeps it for rows.
    near, far = np.where(left == right, _ONE, near), np.where(left == right, 0, far)

    def across(lines: npt.NDArray[np.intp]) -> npt.NDArray[np.int32]:
        chosen = grey[lines]
        mixed: npt.NDArray[np.int32] = (chosen[:, left] * near + chosen[:, right] * far) >> 4
        return mixed

    mixed = (across(above) * high[:, None] >> 16) + (across(below) * low[:, None] >> 16)
    result: Grey = ((mixed + 2) >> 2).astype(np.uint8)
    return result


def _neighbours(old: int, new: int) -> tuple[npt.NDArray[Any], ...]:
    """For each new pixel the old ones before and after it, (new,) each, and their weights."""
    place = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    before = np.floor(place).astype(np.intp)
    part = place - before.astype(np.float32)
    weights = np.rint(np.stack([1 - part, part]) * np.float32(_ONE)).astype(np.int32)
    return np.clip(before, 0, old - 1), np.clip(before + 1, 0, old - 1), *weights


def detector_input(framed: Grey) -> Floats:
    """float32 (1, 3, h, w) in 0–1 of a framed image: the grey repeated to three channels."""
    plane = framed.astype(np.float32) / np.float32(255.0)
    return np.ascontiguousarray(np.broadcast_to(plane, (1, 3, *framed.shape)))


def detections(
    output: Floats, frame: Frame, *, confidence: float, iou: float, most: int
) -> RawDetections:
    """Boxes of the best class above a confidence, suppressed within classes.

    Args:
        output: float32 (4 + classes, anchors): centre x, y, width, height in input pixels, and the
            confidence of each class.
        iou: a box that overlaps a better one of its class by more is dropped.
        most: boxes kept at most.
    """
    scores = output[4:]
    candidates = np.flatnonzero(scores.max(0) > confidence)
    best = scores[:, candidates]
    classes = best.argmax(0)
    confidences = best.max(0)
    order = np.argsort(-confidences, kind="stable")[:_MOST_CANDIDATES]
    candidates, classes, confidences = candidates[order], classes[order], confidences[order]
    x, y, half_width, half_height = output[:4, candidates] * np.array([[1], [1], [0.5], [0.5]])
    boxes = np.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)
    kept = suppressed(boxes, classes, iou, most)
    return RawDetections(
        boxes=frame.to_image(boxes[kept].astype(np.float32)),
        confidences=confidences[kept].astype(np.float32),
        classes=classes[kept].astype(np.int64),
    )


def suppressed(
    boxes: npt.NDArray[np.floating], classes: npt.NDArray[np.integer], iou: float, most: int
) -> npt.NDArray[np.int64]:
    """The first `most` indices that greedy non-maximum suppression keeps, in order.

    Args:
        boxes: (N, 4) xyxy, the most confident first. classes: (N,).
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    alive = np.ones(len(boxes), bool)
    kept: list[int] = []
    for n in range(len(boxes)):
        if len(kept) == most:
            break
        if not alive[n]:
            continue
        kept.append(n)
        later = n + 1 + np.flatnonzero(alive[n + 1 :] & (classes[n + 1 :] == classes[n]))
        low = np.maximum(boxes[n, :2], boxes[later, :2])
        high = np.minimum(boxes[n, 2:], boxes[later, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        alive[later[shared > iou * (areas[n] + areas[later] - shared)]] = False
    return np.array(kept, np.int64)


def decoded(
    distances: Floats, logits: Floats, rows: int, columns: int, *, confidence: float
) -> Floats:
    """The head's raw answer → what `detections` takes; anchors that cannot reach it stay zero.

    Args:
        distances: float32 (4 × bins, anchors): for each side, the logits of its distance from the
            anchor in cells (Li et al., "Generalized Focal Loss", NeurIPS 2020).
        logits: float32 (classes, anchors).
        rows, columns: of the network's input.
        confidence: the same as for `detections`.
    """
    centers, strides = _anchors(rows, columns)
    scores = 1.0 / (1.0 + np.exp(-logits))
    chosen = np.flatnonzero(scores.max(0) > confidence)
    bins = distances[:, chosen].reshape(4, len(distances) // 4, len(chosen))
    weights = np.exp(bins - bins.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    left, top, right, bottom = np.einsum("sbn,b->sn", weights, np.arange(bins.shape[1]))
    x, y = centers[:, chosen]
    output = np.zeros((4 + len(logits), logits.shape[1]), np.float32)
    boxes = np.stack([x + (right - left) / 2, y + (bottom - top) / 2, left + right, top + bottom])
    output[:4, chosen] = boxes * strides[chosen]
    output[4:, chosen] = scores[:, chosen]
    return output


@cache
def _anchors(rows: int, columns: int) -> tuple[Floats, Floats]:
    """Centres (2, N) of the cells of all grids in cells, and the stride (N,) of each."""
    centers, strides = [], []
    for stride in _STRIDES:
        y, x = np.mgrid[: rows // stride, : columns // stride] + 0.5
        centers.append(np.stack([x.ravel(), y.ravel()]))
        strides.append(np.full(x.size, stride))
    return (
        np.concatenate(centers, 1).astype(np.float32),
        np.concatenate(strides).astype(np.float32),
    )
