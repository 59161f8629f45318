"""Labels and predictions → metrics: the one place where the two meet."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from spinexr.datasets.vindr import CLASSES, LabelledImage
from spinexr.errors import ConfigurationError
from spinexr.evaluation import classification, detection
from spinexr.evaluation.classification import Classification
from spinexr.evaluation.detection import Detection
from spinexr.evaluation.predictions import ImagePrediction

# A group with fewer images, or without both outcomes, says nothing about itself.
_SMALLEST_GROUP = 20

Groups = Mapping[str, str]  # "sex" → "F"


@dataclass(frozen=True, slots=True)
class Judgement:
    """All metrics of one set of predictions.

    `scores` holds "ensemble", each member, and "ensemble+detector", the classifier averaged with
    the highest box score (the reverse fusion of Nguyen et al., MICCAI 2021), which has no cut-off
    of its own. `subgroups` is
    dimension → group → the ensemble there.
    """

    threshold: float
    on_normal_confidence: float
    scores: dict[str, Classification]
    subgroups: dict[str, dict[str, Classification]]
    detector_alone: Detection | None
    detector_fused: Detection | None
    unanswered: dict[str, str]  # image id → error code


def judge(
    images: Sequence[LabelledImage],
    predictions: Sequence[ImagePrediction],
    *,
    threshold: float,
    on_normal_confidence: float = 0.5,
    groups: Mapping[str, Groups] | None = None,
    replicates: int = classification.REPLICATES,
    seed: int = 0,
) -> Judgement:
    """Compare predictions with labels.

    Args:
        groups: image id → its group in each dimension, as far as known.

    Raises:
        ConfigurationError: an image has no row in the predictions, or an answer lacks boxes or a
            member that others have, or nothing was answered.
    """
    by_id = {p.image_id: p for p in predictions}
    if missing := [i.image_id for i in images if i.image_id not in by_id]:
        raise ConfigurationError(
            f"The predictions lack {len(missing)} of {len(images)} images, {missing[0]} among them."
        )
    answered = [i for i in images if by_id[i.image_id].probability is not None]
    if not answered:
        raise ConfigurationError("No image has a prediction.")
    rows = [by_id[i.image_id] for i in answered]
    abnormal = np.array([i.abnormal for i in answered])
    studies = np.array([i.study_id for i in answered])

    def classify(
        values: Sequence[float],
        mask: np.ndarray | None = None,
        cut_off: float | None = threshold,
    ) -> Classification:
        chosen = np.ones(len(answered), bool) if mask is None else mask
        return classification.evaluate(
            abnormal[chosen],
            np.asarray(values, float)[chosen],
            studies[chosen],
            threshold=cut_off,
            replicates=replicates,
            seed=seed,
        )

    ensemble = [_required(r.probability) for r in rows]
    scores = {"ensemble": classify(ensemble)}
    for name in dict.fromkeys(n for r in rows for n in r.members):
        _on_every_image(f"probability of {name}", rows, [name in r.members for r in rows])
        scores[name] = classify([r.members[name] for r in rows])

    alone = fused = None
    if any(r.boxes is not None for r in rows):
        _on_every_image(
            "list of boxes, not even an empty one", rows, [r.boxes is not None for r in rows]
        )
        truth = {i.image_id: i.lesions for i in answered}
        every = {r.image_id: r.boxes or () for r in rows}
        kept = {
            r.image_id: [
                b
                for b in r.boxes or ()
                if _required(r.probability) > threshold or b.confidence >= on_normal_confidence
            ]
            for r in rows
        }
        alone = detection.evaluate(truth, every, CLASSES)
        fused = detection.evaluate(truth, kept, CLASSES)
        highest = [max((b.confidence for b in r.boxes or ()), default=0.0) for r in rows]
        scores["ensemble+detector"] = classify(
            [(p + h) / 2 for p, h in zip(ensemble, highest, strict=True)], cut_off=None
        )

    return Judgement(
        threshold=threshold,
        on_normal_confidence=on_normal_confidence,
        scores=scores,
        subgroups=_subgroups(answered, abnormal, groups or {}, lambda m: classify(ensemble, m)),
        detector_alone=alone,
        detector_fused=fused,
        unanswered={
            i.image_id: by_id[i.image_id].error or "unknown"
            for i in images
            if by_id[i.image_id].probability is None
        },
    )


def flat(judgement: Judgement) -> dict[str, object]:
    """The metrics under flat names such as `ensemble.auroc` and `detection.ap50.osteophytes`.

    NaN becomes None, since JSON knows no NaN.
    """
    metrics: dict[str, object] = {
        "threshold": judgement.threshold,
        "on_normal_confidence": judgement.on_normal_confidence,
        "images": judgement.scores["ensemble"].images,
        "abnormal": judgement.scores["ensemble"].abnormal,
        "unanswered": len(judgement.unanswered),
    }
    for name, result in judgement.scores.items():
        metrics |= _flat_classification(_key(name), result)
    for dimension, by_group in judgement.subgroups.items():
        for group, result in by_group.items():
            metrics |= _flat_classification(f"subgroup.{_key(dimension)}.{_key(group)}", result)
    for prefix, found in (
        ("detection", judgement.detector_alone),
        ("detection_fused", judgement.detector_fused),
    ):
        if found is None:
            continue
        metrics[f"{prefix}.map50"] = _number(found.map50)
        metrics[f"{prefix}.map50_95"] = _number(found.map50_95)
        for kind, values in (("ap50", found.ap50), ("ap50_95", found.ap50_95)):
            for label, value in values.items():
                metrics[f"{prefix}.{kind}.{_key(label)}"] = _number(value)
        for allowed, sensitivity in found.froc.items():
            metrics[f"{prefix}.froc.{allowed:g}"] = _number(sensitivity)
    return metrics


def _flat_classification(prefix: str, result: Classification) -> dict[str, object]:
    metrics: dict[str, object] = {
        f"{prefix}.images": result.images,
        f"{prefix}.abnormal": result.abnormal,
        f"{prefix}.ece": _number(result.ece),
    }
    for name, estimate in result.estimates.items():
        metrics[f"{prefix}.{name}"] = _number(estimate.value)
        metrics[f"{prefix}.{name}_ci"] = [_number(estimate.low), _number(estimate.high)]
    if result.confusion is not None:
        metrics |= {f"{prefix}.{name}": n for name, n in asdict(result.confusion).items()}
    return metrics


def _on_every_image(what: str, rows: Sequence[ImagePrediction], there: Sequence[bool]) -> None:
    """That all answers have what one has: what a few lack is not to be judged on the others.

    Raises:
        ConfigurationError: some have not; the first is named.
    """
    if without := [r.image_id for r, has in zip(rows, there, strict=True) if not has]:
        raise ConfigurationError(
            f"{len(without)} of {len(rows)} answers have no {what}, {without[0]} among them: fill "
            "it in, or leave the column out."
        )


def _subgroups(
    images: Sequence[LabelledImage],
    abnormal: np.ndarray,
    groups: Mapping[str, Groups],
    classify: Callable[[np.ndarray], Classification],
) -> dict[str, dict[str, Classification]]:
    dimensions = dict.fromkeys(d for g in groups.values() for d in g)
    found: dict[str, dict[str, Classification]] = {}
    for dimension in dimensions:
        of_image = np.array([groups.get(i.image_id, {}).get(dimension, "unknown") for i in images])
        for group in sorted(set(of_image)):
            mask = of_image == group
            outcomes = abnormal[mask]
            if mask.sum() >= _SMALLEST_GROUP and outcomes.any() and not outcomes.all():
                found.setdefault(dimension, {})[group] = classify(mask)
    return found


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9+]+", "_", name.lower()).strip("_")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _required(value: float | None) -> float:
    if value is None:
        raise ValueError("no probability")
    return value
