"""Ranking and decision metrics with confidence intervals, all in terms of "abnormal" = 1.

Point estimates of AUROC and AP are scikit-learn's. Intervals need ten thousand of each, so they
come from vectorised forms of the same definitions; tests hold the two against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, roc_auc_score

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.bool_]

REPLICATES = 10_000
_CHUNK = 250  # replicates at once: bounds memory at chunk × images
_LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric and its 95 % interval; NaN where it is not defined, as without any abnormal."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts at a threshold; predicted abnormal when the score is above it."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """One of the bins of a reliability curve."""

    count: int
    mean_score: float
    abnormal_share: float


@dataclass(frozen=True, slots=True)
class Classification:
    """Everything about one score.

    `estimates`: auroc, ap, f1, sensitivity, specificity. The last three and `confusion` are
    missing where the score has no cut-off.
    """

    images: int
    abnormal: int
    estimates: dict[str, Estimate]
    confusion: Confusion | None
    ece: float
    reliability: tuple[CalibrationBin, ...]


def evaluate(
    abnormal: Labels,
    scores: Floats,
    studies: npt.NDArray[np.str_],
    *,
    threshold: float | None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Classification:
    """Metrics of one score over images.

    Args:
        abnormal: (N,) truth.
        scores: (N,) probabilities 0–1.
        studies: (N,) study of each image; replicates draw whole studies, since images of one
            patient are not independent (cluster bootstrap, Field & Welsh, JRSS B 2007).
        threshold: abnormal is called when the score is above it; None for a score that decides
            nothing.
    """
    points = {
        "auroc": _defined(roc_auc_score, abnormal, scores, both=True),
        "ap": _defined(average_precision_score, abnormal, scores, both=False),
        **_decisions(abnormal, scores, np.ones((1, len(scores))), threshold),
    }
    draws = _bootstrap(abnormal, scores, studies, threshold, replicates, seed)
    estimates = {}
    for name, point in points.items():
        value = float(np.squeeze(point))
        estimates[name] = Estimate(value, *interval(draws[name]))
    return Classification(
        images=len(scores),
        abnormal=int(abnormal.sum()),
        estimates=estimates,
        confusion=None if threshold is None else _confusion(abnormal, scores > threshold),
        ece=expected_calibration_error(abnormal, scores),
        reliability=reliability(abnormal, scores),
    )


def reliability(abnormal: Labels, scores: Floats, *, bins: int = 10) -> tuple[CalibrationBin, ...]:
    """Mean score against share of abnormals in bins of equal mass (equal numbers of images).

    Images of one score that fall into two bins take their common share of abnormals along, so
    that the order of the rows is of no account.
    """
    order = np.argsort(scores, kind="stable")
    _, same = np.unique(scores, return_inverse=True)
    share = (np.bincount(same, abnormal) / np.bincount(same))[same]
    return tuple(
        CalibrationBin(len(part), float(scores[part].mean()), float(share[part].mean()))
        for part in np.array_split(order, bins)
        if len(part)
    )


def expected_calibration_error(abnormal: Labels, scores: Floats, *, bins: int = 10) -> float:
    """Mean |mean score − share of abnormals| over bins of equal mass, weighted by their size
    (Nixon et al., "Measuring Calibration in Deep Learning", 2019: adaptive binning)."""
    parts = reliability(abnormal, scores, bins=bins)
    total = sum(p.count for p in parts)
    return sum(p.count * abs(p.mean_score - p.abnormal_share) for p in parts) / total


def weighted_auroc(abnormal: Labels, scores: Floats, weights: Floats) -> Floats:
    """AUROC for each row of `weights` (R, N): P(abnormal ranks above normal), ties count half."""
    positive, negative = _by_score(abnormal, scores, weights)
    below = np.cumsum(negative, axis=1) - negative
    pairs = (positive * (below + 0.5 * negative)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = pairs / (positive.sum(axis=1) * negative.sum(axis=1))
    return result


def weighted_ap(abnormal: Labels, scores: Floats, weights: Floats) -> Floats:
    """Average precision for each row of `weights` (R, N): Σ (Rₙ − Rₙ₋₁) Pₙ, no interpolation."""
    positive, negative = _by_score(abnormal, scores, weights)
    hits, misses = positive[:, ::-1], negative[:, ::-1]
    found = np.cumsum(hits, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = found / (found + np.cumsum(misses, axis=1))
        result: Floats = np.nansum(hits * precision, axis=1) / hits.sum(axis=1)
    return result


def weighted(
    abnormal: Labels, scores: Floats, weights: Floats, threshold: float | None
) -> dict[str, Floats]:
    """auroc, ap and, with a cut-off, f1, sensitivity and specificity for each row of `weights`
    (R, N)."""
    return {
        "auroc": weighted_auroc(abnormal, scores, weights),
        "ap": weighted_ap(abnormal, scores, weights),
        **_decisions(abnormal, scores, weights, threshold),
    }


def study_weights(
    studies: npt.NDArray[np.str_], replicates: int, seed: int, *, chunk: int = _CHUNK
) -> Iterator[Floats]:
    """How often each image is drawn, (R, N) at a time: whole studies, with replacement.

    The same seed gives the same draws, so that two scores can be compared replicate by replicate.
    """
    rng = np.random.default_rng(seed)
    names, study_of_image = np.unique(studies, return_inverse=True)
    even = np.full(len(names), 1 / len(names))
    for start in range(0, replicates, chunk):
        count = min(chunk, replicates - start)
        yield rng.multinomial(len(names), even, size=count)[:, study_of_image].astype(float)


def _by_score(abnormal: Labels, scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Weight of abnormals and of normals at each distinct score, ascending: both (R, scores)."""
    order = np.argsort(scores, kind="stable")
    ranked = scores[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sorted_weights, sorted_labels = weights[:, order], abnormal[order]
    positive = np.add.reduceat(sorted_weights * sorted_labels, starts, axis=1)
    negative = np.add.reduceat(sorted_weights * ~sorted_labels, starts, axis=1)
    return positive, negative


def _confusion(abnormal: Labels, called: Labels) -> Confusion:
    return Confusion(
        int((called & abnormal).sum()),
        int((called & ~abnormal).sum()),
        int((~called & abnormal).sum()),
        int((~called & ~abnormal).sum()),
    )


def _decisions(
    abnormal: Labels, scores: Floats, weights: Floats, threshold: float | None
) -> dict[str, Floats]:
    if threshold is None:
        return {}
    called = scores > threshold
    tp = weights[:, called & abnormal].sum(axis=1)
    fp = weights[:, called & ~abnormal].sum(axis=1)
    fn = weights[:, ~called & abnormal].sum(axis=1)
    tn = weights[:, ~called & ~abnormal].sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "f1": 2 * tp / (2 * tp + fp + fn),
            "sensitivity": tp / (tp + fn),
            "specificity": tn / (tn + fp),
        }


def _bootstrap(
    abnormal: Labels,
    scores: Floats,
    studies: npt.NDArray[np.str_],
    threshold: float | None,
    replicates: int,
    seed: int,
) -> dict[str, Floats]:
    draws: dict[str, list[Floats]] = {}
    for weights in study_weights(studies, replicates, seed):
        for name, values in weighted(abnormal, scores, weights, threshold).items():
            draws.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in draws.items()}


def interval(draws: Floats) -> tuple[float, float]:
    """Percentile interval over the replicates in which the metric is defined."""
    defined = draws[np.isfinite(draws)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def _defined(
    metric: Callable[[Labels, Floats], float], abnormal: Labels, scores: Floats, *, both: bool
) -> Floats:
    """The metric, NaN where it needs abnormals (and normals, if `both`) and there are none."""
    if not abnormal.any() or (both and abnormal.all()):
        return np.array(np.nan)
    return np.array(metric(abnormal, scores))
