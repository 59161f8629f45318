"""The ensemble's operating point: the standard one, or one chosen on validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score, roc_curve

from spinexr.inference.bundle import STANDARD_ENSEMBLE

_STEP = 0.02

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Weight of each architecture, and the cut-off above which an image is abnormal."""

    weights: dict[str, float]
    threshold: float


def standard() -> OperatingPoint:
    """0.42 / 0.26 / 0.32 at 0.449."""
    members = STANDARD_ENSEMBLE["members"]
    return OperatingPoint(
        {m["architecture"]: m["weight"] for m in members}, STANDARD_ENSEMBLE["threshold"]
    )


def search(probabilities: Mapping[str, Floats], abnormal: npt.NDArray[np.bool_]) -> OperatingPoint:
    """Weights of the best AUROC on a grid of 0.02, every member kept, and Youden's cut-off.

    Of weights that rank the images alike, the most even ones.

    Args:
        probabilities: (N,) of each architecture, on images that none of them was trained on.
    """
    names = list(probabilities)
    scores = np.stack([probabilities[n] for n in names])
    parts = round(1 / _STEP)
    best: tuple[float, float, tuple[int, ...]] = (-1.0, 0.0, ())
    for first in product(range(1, parts), repeat=len(names) - 1):
        last = parts - sum(first)
        if last < 1:
            continue
        shares = (*first, last)
        auroc = round(float(roc_auc_score(abnormal, np.array(shares) @ scores)), 9)
        best = max(best, (auroc, -float(np.std(shares)), shares))
    shares = best[2]
    weights = {n: round(s / parts, 6) for n, s in zip(names, shares, strict=True)}
    return OperatingPoint(weights, youden(np.array(shares) / parts @ scores, abnormal))


def youden(mean: Floats, abnormal: npt.NDArray[np.bool_]) -> float:
    """The cut-off of the highest sensitivity + specificity (Youden, Cancer 1950)."""
    false_positive, true_positive, cuts = roc_curve(abnormal, mean)
    # The first cut is infinite: it calls nothing abnormal, which no bundle may do by choice.
    cut = float(cuts[1:][int(np.argmax((true_positive - false_positive)[1:]))])
    # `roc_curve` calls abnormal from the cut on, a bundle above it: step below that score.
    lower = mean[mean < cut]
    cut = (cut + float(lower.max())) / 2 if len(lower) else cut / 2
    return float(np.clip(cut, 1e-6, 1.0))
