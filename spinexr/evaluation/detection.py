"""Average precision by COCO's rules (pycocotools) and FROC for lesion boxes.

IoU is the area of the intersection over the area of the union, boxes as continuous rectangles.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from spinexr.datasets.vindr import Lesion
from spinexr.domain import Box

IOU_DEFINITION = (
    "IoU = area of intersection / area of union, boxes as continuous rectangles. AP: COCO's "
    "101-point interpolation, greedy matching by confidence, at most 300 boxes per image and "
    "class; AP50 at IoU ≥ 0.50, AP50-95 the mean over 0.50, 0.55 … 0.95; means over classes that "
    "occur."
)
FALSE_POSITIVES_PER_IMAGE = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_MAX_DETECTIONS = 300
_RECALLS = np.linspace(0.0, 1.0, 101)  # pycocotools' Params.recThrs


@dataclass(frozen=True, slots=True)
class ScoredBox:
    """One predicted box."""

    label: str
    confidence: float
    box: Box


@dataclass(frozen=True, slots=True)
class Detection:
    """AP per class that occurs in the truth, their means (NaN without any), and FROC."""

    ap50: dict[str, float]
    ap50_95: dict[str, float]
    map50: float
    map50_95: float
    froc: dict[float, float]  # false positives per image → sensitivity


Truth = Mapping[str, Sequence[Lesion]]
Predicted = Mapping[str, Sequence[ScoredBox]]


def evaluate(truth: Truth, predicted: Predicted, classes: Sequence[str]) -> Detection:
    """Metrics over all images of `truth` (image id → lesions, empty for normals).

    Boxes of images or classes that the truth does not know are an error.

    Raises:
        KeyError
    """
    class_ids = {name: n for n, name in enumerate(classes, start=1)}
    image_ids = {name: n for n, name in enumerate(truth, start=1)}
    annotations = [
        {
            "id": 0,
            "image_id": image_ids[image],
            "category_id": class_ids[lesion.label],
            "bbox": _xywh(lesion.box),
            "area": _xywh(lesion.box)[2] * _xywh(lesion.box)[3],
            "iscrowd": 0,
        }
        for image, lesions in truth.items()
        for lesion in lesions
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number  # 0 would count as "not matched" in pycocotools
    results = [
        {
            "image_id": image_ids[image],
            "category_id": class_ids[box.label],
            "bbox": _xywh(box.box),
            "score": box.confidence,
        }
        for image, boxes in predicted.items()
        for box in boxes
    ]
    present = [c for c in classes if any(a["category_id"] == class_ids[c] for a in annotations)]
    if not present:
        nan = float("nan")
        return Detection({}, {}, nan, nan, dict.fromkeys(FALSE_POSITIVES_PER_IMAGE, nan))
    precision = _coco_precision(image_ids, class_ids, annotations, results)
    ap50, ap50_95 = {}, {}
    for name in present:
        by_iou = precision[:, :, class_ids[name] - 1]
        ap50[name] = float(by_iou[0].mean())
        ap50_95[name] = float(by_iou.mean())
    return Detection(
        ap50=ap50,
        ap50_95=ap50_95,
        map50=float(np.mean(list(ap50.values()))),
        map50_95=float(np.mean(list(ap50_95.values()))),
        froc=froc(truth, predicted),
    )


def froc(truth: Truth, predicted: Predicted, *, iou: float = 0.5) -> dict[float, float]:
    """Share of lesions found at each number of false positives per image.

    A box finds a lesion of its own class with IoU ≥ `iou` that no more confident box has found.
    """
    hits: list[tuple[float, bool]] = []
    lesions = 0
    for image, marked in truth.items():
        lesions += len(marked)
        hits += _match(marked, predicted.get(image, ()), iou)
    hits.sort(key=lambda h: -h[0])
    confidences = np.array([c for c, _ in hits])
    found = np.array([hit for _, hit in hits], dtype=bool)
    true, false = np.cumsum(found), np.cumsum(~found)
    # A level can only be cut between different confidences.
    ends = np.flatnonzero(np.r_[confidences[1:] != confidences[:-1], True][: len(hits)])
    curve = {}
    for allowed in FALSE_POSITIVES_PER_IMAGE:
        within = [int(true[e]) for e in ends if false[e] <= allowed * len(truth)]
        curve[allowed] = max(within, default=0) / lesions if lesions else float("nan")
    return curve


@dataclass(frozen=True, slots=True)
class Ranked:
    """One class's boxes by falling confidence, and its lesions: what AP at one IoU is made of."""

    hits: npt.NDArray[np.bool_]  # (D,) whether the box finds a lesion
    images: npt.NDArray[np.intp]  # (D,) place of its image in the truth
    lesions: npt.NDArray[np.float64]  # (N,) of each image


def ranked(truth: Truth, predicted: Predicted, *, iou: float = 0.5) -> dict[str, Ranked]:
    """Class → its boxes and lesions, for the classes that occur in the truth.

    Boxes are matched within their image, so drawing images again needs no new matching.
    """
    found = {}
    for name in dict.fromkeys(lesion.label for lesions in truth.values() for lesion in lesions):
        rows: list[tuple[float, bool, int]] = []
        counts = []
        for n, (image, lesions) in enumerate(truth.items()):
            marked = [lesion for lesion in lesions if lesion.label == name]
            boxes = [box for box in predicted.get(image, ()) if box.label == name]
            rows += [(confidence, hit, n) for confidence, hit in _match(marked, boxes, iou)]
            counts.append(len(marked))
        rows.sort(key=lambda row: -row[0])
        found[name] = Ranked(
            hits=np.array([hit for _, hit, _ in rows], dtype=bool),
            images=np.array([n for _, _, n in rows], dtype=np.intp),
            lesions=np.array(counts, dtype=float),
        )
    return found


def weighted_ap(boxes: Ranked, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """AP for each row of `weights` (R, N): COCO's 101 recalls; NaN where no lesion is drawn."""
    values = np.full(len(weights), np.nan)
    lesions = weights @ boxes.lesions
    for row in np.flatnonzero(lesions):
        drawn = weights[row][boxes.images]
        true = np.cumsum(drawn * boxes.hits)
        every = np.cumsum(drawn)
        precision = np.divide(true, every, out=np.zeros_like(true), where=every > 0)
        reached = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(true / lesions[row], _RECALLS, side="left")
        values[row] = np.append(reached, 0.0)[places].mean()
    return values


def iou_of(a: Box, b: Box) -> float:
    """Intersection over union, 0–1."""
    width = min(a.x2, b.x2) - max(a.x1, b.x1)
    height = min(a.y2, b.y2) - max(a.y1, b.y1)
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    area_a, area_b = (a.x2 - a.x1) * (a.y2 - a.y1), (b.x2 - b.x1) * (b.y2 - b.y1)
    return overlap / (area_a + area_b - overlap)


def _match(
    marked: Sequence[Lesion], boxes: Sequence[ScoredBox], threshold: float
) -> list[tuple[float, bool]]:
    free = list(marked)
    hits = []
    for box in sorted(boxes, key=lambda b: -b.confidence):
        same = [lesion for lesion in free if lesion.label == box.label]
        best = max(same, key=lambda lesion: iou_of(lesion.box, box.box), default=None)
        hit = best is not None and iou_of(best.box, box.box) >= threshold
        if hit and best is not None:
            free.remove(best)
        hits.append((box.confidence, hit))
    return hits


def _xywh(box: Box) -> list[float]:
    return [box.x1, box.y1, box.x2 - box.x1, box.y2 - box.y1]


def _coco_precision(
    image_ids: Mapping[str, int],
    class_ids: Mapping[str, int],
    annotations: list[dict[str, Any]],
    results: list[dict[str, Any]],
) -> npt.NDArray[np.float64]:
    """Precision (IoU, recall, class) at COCO's 10 IoUs and 101 recalls, 0 where none was found."""
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": n} for n in image_ids.values()],
            "categories": [{"id": n, "name": name} for name, n in class_ids.items()],
            "annotations": annotations,
        }
        coco.createIndex()
        found = COCO()
        found.dataset = {
            **coco.dataset,
            "annotations": [
                {**r, "id": n, "area": r["bbox"][2] * r["bbox"][3], "iscrowd": 0}
                for n, r in enumerate(results, start=1)
            ],
        }
        found.createIndex()
        run = COCOeval(coco, found, "bbox")
        run.params.maxDets = [1, 10, _MAX_DETECTIONS]
        run.params.areaRng = [[0, float("inf")]]
        run.params.areaRngLbl = ["all"]
        run.evaluate()
        run.accumulate()
    precision: npt.NDArray[np.float64] = np.maximum(run.eval["precision"][:, :, :, 0, -1], 0.0)
    return precision
