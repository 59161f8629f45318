"""Two sets of predictions for the same images: how far apart, and whether that is more than chance.

Both are judged on the same draws of studies, and the interval is that of the differences: what is
hard about an image is hard for both, and drops out. DeLong's test would take images of one patient
for independent ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spinexr import DISCLAIMER
from spinexr.datasets.vindr import LabelledImage
from spinexr.errors import ConfigurationError
from spinexr.evaluation import classification, detection
from spinexr.evaluation.classification import REPLICATES, Estimate, Floats, Labels
from spinexr.evaluation.predictions import ImagePrediction

# Each costs a pass over every box; the ends of the interval then move by less than they are told.
DETECTION_REPLICATES = 1_000
_SHOWN = {
    "auroc": "AUROC", "ap": "AP", "f1": "F1", "sensitivity": "sensitivity",
    "specificity": "specificity", "map50": "mAP50",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of both, and B − A with its 95 % interval; NaN where it is not defined."""

    a: float
    b: float
    difference: Estimate

    @property
    def verdict(self) -> str:
        """What the interval says: who is higher where it leaves out 0, else "not told apart"."""
        if math.isnan(self.difference.value):
            return "not defined"
        if self.difference.low > 0:
            return "B is higher"
        return "A is higher" if self.difference.high < 0 else "not told apart"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A and B on the same images.

    `differences`: auroc, ap, f1, sensitivity and specificity, each at its own cut-off, and map50
    where both have boxes. `flips` counts the images that only one calls abnormal.
    """

    images: int
    abnormal: int
    studies: int
    thresholds: tuple[float, float]
    differences: dict[str, Difference]
    flips: int
    largest_difference: float  # of a probability
    unanswered: dict[str, str]  # image id → error code of whichever did not answer


def compare(
    images: Sequence[LabelledImage],
    a: Sequence[ImagePrediction],
    b: Sequence[ImagePrediction],
    *,
    thresholds: tuple[float, float],
    replicates: int = REPLICATES,
    detection_replicates: int = DETECTION_REPLICATES,
    seed: int = 0,
) -> Comparison:
    """Hold B against A on the images that both have answered.

    Raises:
        ConfigurationError: one has no row for an image, or no image was answered by both.
    """
    by_id = [{p.image_id: p for p in answers} for answers in (a, b)]
    for name, answers in zip("AB", by_id, strict=True):
        if missing := [i.image_id for i in images if i.image_id not in answers]:
            raise ConfigurationError(
                f"The predictions of {name} lack {len(missing)} of {len(images)} images, "
                f"{missing[0]} among them."
            )
    unanswered = {
        i.image_id: answers[i.image_id].error or "unknown"
        for i in images
        for answers in by_id
        if answers[i.image_id].probability is None
    }
    answered = [i for i in images if i.image_id not in unanswered]
    if not answered:
        raise ConfigurationError("No image was answered by both.")
    rows = [[answers[i.image_id] for i in answered] for answers in by_id]
    abnormal = np.array([i.abnormal for i in answered])
    studies = np.array([i.study_id for i in answered])
    scores = [np.array([row.probability for row in of_one], dtype=float) for of_one in rows]
    called = [s > t for s, t in zip(scores, thresholds, strict=True)]

    differences = _scores(abnormal, scores, thresholds, studies, replicates, seed)
    if all(row.boxes is not None for of_one in rows for row in of_one):
        found = _boxes(answered, rows, studies, detection_replicates, seed)
        if found is not None:
            differences["map50"] = found
    return Comparison(
        images=len(answered),
        abnormal=int(abnormal.sum()),
        studies=len(set(studies)),
        thresholds=thresholds,
        differences=differences,
        flips=int((called[0] != called[1]).sum()),
        largest_difference=float(np.abs(scores[0] - scores[1]).max()),
        unanswered=unanswered,
    )


def as_json(comparison: Comparison, context: dict[str, object]) -> str:
    """comparison.json: `context` (what was compared) and the numbers; NaN becomes null."""
    document: dict[str, object] = {
        **context,
        "images": comparison.images,
        "abnormal": comparison.abnormal,
        "studies": comparison.studies,
        "thresholds": dict(zip("ab", comparison.thresholds, strict=True)),
        "flips": comparison.flips,
        "largest_difference": comparison.largest_difference,
        "metrics": {
            name: {
                "a": _number(found.a),
                "b": _number(found.b),
                "difference": _number(found.difference.value),
                "difference_ci": [_number(found.difference.low), _number(found.difference.high)],
                "verdict": found.verdict,
            }
            for name, found in comparison.differences.items()
        },
        "unanswered": comparison.unanswered,
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def as_markdown(comparison: Comparison, context: dict[str, object]) -> str:
    """The table for people."""
    cut_a, cut_b = comparison.thresholds
    lines = [
        f"A: {context.get('a')}, cut-off {cut_a:g}",
        "",
        f"B: {context.get('b')}, cut-off {cut_b:g}",
        "",
        f"{comparison.images} images of {comparison.studies} studies in {context.get('data')}, "
        f"{comparison.abnormal} of them abnormal; {len(comparison.unanswered)} not answered. "
        f"{comparison.flips} are called abnormal by one only; probabilities differ by at most "
        f"{comparison.largest_difference:.4f}.",
        "",
        "| metric | A | B | B − A | 95 % interval | |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in comparison.differences.items():
        d = found.difference
        lines.append(
            f"| {_SHOWN[name]} | {_shown(found.a)} | {_shown(found.b)} | {_shown(d.value, '+')} "
            f"| {_shown(d.low, '+')} to {_shown(d.high, '+')} | {found.verdict} |"
        )
    lines += [
        "",
        "Intervals: percentiles of the paired difference over draws of whole studies; one for each "
        "metric, without a correction for looking at several.",
        "",
        DISCLAIMER,
    ]
    return "\n".join(lines) + "\n"


def _scores(
    abnormal: Labels,
    scores: Sequence[Floats],
    thresholds: tuple[float, float],
    studies: npt.NDArray[np.str_],
    replicates: int,
    seed: int,
) -> dict[str, Difference]:
    once = np.ones((1, len(abnormal)))
    points = [
        classification.weighted(abnormal, s, once, t)
        for s, t in zip(scores, thresholds, strict=True)
    ]
    draws: dict[str, list[Floats]] = {name: [] for name in points[0]}
    for weights in classification.study_weights(studies, replicates, seed):
        a, b = (
            classification.weighted(abnormal, s, weights, t)
            for s, t in zip(scores, thresholds, strict=True)
        )
        for name, values in draws.items():
            values.append(b[name] - a[name])
    return {
        name: _difference(float(points[0][name][0]), float(points[1][name][0]), values)
        for name, values in draws.items()
    }


def _boxes(
    images: Sequence[LabelledImage],
    rows: Sequence[Sequence[ImagePrediction]],
    studies: npt.NDArray[np.str_],
    replicates: int,
    seed: int,
) -> Difference | None:
    truth = {i.image_id: i.lesions for i in images}
    ranked = [
        detection.ranked(truth, {row.image_id: row.boxes or () for row in of_one})
        for of_one in rows
    ]
    if not ranked[0]:
        return None
    points = [_mean_ap(of_one, np.ones((1, len(images))))[0] for of_one in ranked]
    draws = []
    for weights in classification.study_weights(studies, replicates, seed):
        a, b = (_mean_ap(of_one, weights) for of_one in ranked)
        draws.append(b - a)
    return _difference(float(points[0]), float(points[1]), draws)


def _mean_ap(boxes: dict[str, detection.Ranked], weights: Floats) -> Floats:
    """mAP for each row of `weights`, over the classes that it draws; NaN where it draws none."""
    values = np.stack([detection.weighted_ap(ranked, weights) for ranked in boxes.values()])
    defined = np.isfinite(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0.0).sum(axis=0)
    means: Floats = np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)
    return means


def _difference(a: float, b: float, draws: Sequence[Floats]) -> Difference:
    return Difference(a, b, Estimate(b - a, *classification.interval(np.concatenate(draws))))


def _shown(value: float, sign: str = "") -> str:
    return f"{value:{sign}.4f}" if math.isfinite(value) else "–"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
