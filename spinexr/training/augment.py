"""Changes of a radiograph that leave its findings what they are, in plausible measure.

Nothing is turned upside down and no contrast is inverted. Zooming and shifting may cut off a tenth
at a side, where findings are rare.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from spinexr.training.examples import Boxes

Grey = npt.NDArray[np.uint8]


def augmented(image: Grey, boxes: Boxes, size: int, rng: np.random.Generator) -> tuple[Grey, Boxes]:
    """A varied copy of (side, side) uint8 at (size, size), and where its boxes went."""
    middle = np.array([0.5, 0.5])
    turned, boxes = _moved(image, boxes, size, rng, shown=1.0, focus=middle, jitter=0.05)
    return _exposed(turned, rng), _visible(boxes)


def window(
    image: Grey,
    boxes: Boxes,
    size: int,
    full: int,
    focus: npt.NDArray[np.floating],
    rng: np.random.Generator,
) -> tuple[Grey, Boxes, bool]:
    """A varied window, the boxes in it, and whether it shows a finding.

    A finding is shown when half of its box lies within, or when it fills a quarter of the window.

    Args:
        size: side of the window, cut at the scale of an image of `full` pixels.
        focus: (x, y) as shares of the image; lies in the window's middle half.
    """
    cut, boxes = _moved(image, boxes, size, rng, shown=size / full, focus=focus, jitter=0.25)
    seen = boxes[:, :4].clip(0, 1)
    inside = _areas(seen)
    shows = (inside >= 0.5 * _areas(boxes)) | (inside >= 0.25)
    return _exposed(cut, rng), _visible(boxes), bool((shows & (inside > 0)).any())


def cut(
    image: Grey, boxes: Boxes, side: int, focus: npt.NDArray[np.floating]
) -> tuple[Grey, Boxes]:
    """The (side, side) piece around `focus`, (x, y) as shares, and the boxes at least half in it.

    A piece that would leave the image is moved inside; an image smaller than it is padded.
    """
    size = np.array(image.shape[::-1])
    start = np.clip(np.round(focus * size - side / 2), 0, np.maximum(size - side, 0)).astype(int)
    piece = np.zeros((side, side), np.uint8)
    part = image[start[1] : start[1] + side, start[0] : start[0] + side]
    piece[: part.shape[0], : part.shape[1]] = part
    moved = boxes.copy()
    moved[:, :4] = (boxes[:, :4] * np.tile(size, 2) - np.tile(start, 2)) / side
    inside = moved.copy()
    inside[:, :4] = moved[:, :4].clip(0, 1)
    return piece, inside[_areas(inside) >= 0.5 * _areas(moved)]


def resized(image: Grey, size: int) -> Grey:
    """The image as it is, at (size, size)."""
    result: Grey = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return result


def _moved(
    image: Grey,
    boxes: Boxes,
    size: int,
    rng: np.random.Generator,
    *,
    shown: float,
    focus: npt.NDArray[np.floating],
    jitter: float,
) -> tuple[Grey, Boxes]:
    """Mirrored half of the time, turned, stretched and shifted a little; boxes may leave it.

    Args:
        shown: share of the image's side that fills the result.
        focus: (x, y) as shares of the image that come to lie in the middle, but for `jitter`.
    """
    side = image.shape[0]
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    angle = np.radians(rng.uniform(-7, 7))
    zoom = rng.uniform(0.9, 1.12)
    stretch = rng.uniform(0.93, 1.07)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c * mirror, -s], [s * mirror, c]]) * zoom
    turn = np.array([[stretch, 0], [0, 1 / stretch]]) @ turn
    matrix = np.zeros((2, 3))
    matrix[:, :2] = turn * size / (side * shown)
    shift = rng.uniform(-jitter, jitter, 2) * size
    matrix[:, 2] = size / 2 + shift - matrix[:, :2] @ (focus * side)
    moved = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2) * side
    where = corners @ matrix[:, :2].T + matrix[:, 2]
    low, high = where.min(1) / size, where.max(1) / size
    return moved, np.concatenate([low, high, boxes[:, 4:]], 1).astype(np.float32)


def _visible(boxes: Boxes) -> Boxes:
    """Boxes clipped to the image; those outside are dropped."""
    clipped = boxes.copy()
    clipped[:, :4] = clipped[:, :4].clip(0, 1)
    return clipped[_areas(clipped) > 0]


def _areas(boxes: Boxes) -> Boxes:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _exposed(image: Grey, rng: np.random.Generator) -> Grey:
    """Other contrast and gamma, more noise or less sharpness, now and then a collimated edge."""
    levels = np.arange(256) / 255.0
    levels = levels ** float(np.exp(rng.normal(0, 0.22)))
    levels = (levels - 0.5) * float(np.exp(rng.normal(0, 0.15))) + 0.5 + rng.normal(0, 0.05)
    table = (np.clip(levels, 0, 1) * 255).astype(np.uint8)
    result = table[image]
    if rng.random() < 0.3:
        noise = rng.normal(0, rng.uniform(1, 8), image.shape)
        result = np.clip(result + noise, 0, 255).astype(np.uint8)
    elif rng.random() < 0.2:
        result = cv2.GaussianBlur(result, (0, 0), float(rng.uniform(0.3, 0.8)))
    if rng.random() < 0.2:
        edge, width = int(rng.integers(4)), int(rng.uniform(0.01, 0.07) * image.shape[0])
        view = np.rot90(result, edge)
        view[:width] = 0
    return np.ascontiguousarray(result)
