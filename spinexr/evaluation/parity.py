"""The gate of a reduced precision: what it costs against float32, and whether that is little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from spinexr.datasets.vindr import CLASSES, LabelledImage
from spinexr.errors import ConfigurationError
from spinexr.evaluation import detection
from spinexr.evaluation.predictions import ImagePrediction

LEAST_IMAGES = 500
_AUROC_DROP = 0.002
_FLIPS = 0.005  # share of decisions
_MAP50_DROP = 0.01
_LARGEST_DIFFERENCE = 1e-9  # rounding when a drop lies on its limit


@dataclass(frozen=True, slots=True)
class Parity:
    """A reduced precision against the exact one on the same images; drops are exact − reduced."""

    images: int
    auroc: float  # of the exact one
    auroc_drop: float
    flips: float  # share of decisions that differ
    map50: float  # of the exact one
    map50_drop: float
    largest_difference: float  # of a probability

    @property
    def refusal(self) -> str | None:
        """Why the reduced precision is not good enough, None when it is."""
        reasons = [
            f"{what} {found:.4f}, more than {limit:g}"
            for what, found, limit in (
                ("AUROC drops by", self.auroc_drop, _AUROC_DROP),
                ("the share of decisions that flip is", self.flips, _FLIPS),
                ("mAP50 drops by", self.map50_drop, _MAP50_DROP),
            )
            if not found <= limit + _LARGEST_DIFFERENCE  # also refuses NaN
        ]
        return "; ".join(reasons) or None

    def as_dict(self) -> dict[str, float]:
        """Plain values, for metadata."""
        return asdict(self)


def compare(
    images: Sequence[LabelledImage],
    exact: Sequence[ImagePrediction],
    reduced: Sequence[ImagePrediction],
    *,
    threshold: float,
    least_images: int = LEAST_IMAGES,
) -> Parity:
    """Hold the predictions of two precisions against each other; all in the order of `images`.

    Raises:
        ConfigurationError: too few images, one kind of image only, or one without an answer.
    """
    refuse_too_few(len(images), least_images)
    abnormal = np.array([i.abnormal for i in images])
    if abnormal.all() or not abnormal.any():
        raise ConfigurationError("The test part needs normal and abnormal images.")
    p, q = _probabilities(exact), _probabilities(reduced)
    scores = [float(roc_auc_score(abnormal, values)) for values in (p, q)]
    truth = {i.image_id: i.lesions for i in images}
    maps = [
        detection.evaluate(truth, {a.image_id: a.boxes or () for a in answers}, CLASSES).map50
        for answers in (exact, reduced)
    ]
    return Parity(
        images=len(images),
        auroc=scores[0],
        auroc_drop=scores[0] - scores[1],
        flips=float(np.mean((p > threshold) != (q > threshold))),
        map50=maps[0],
        map50_drop=maps[0] - maps[1],
        largest_difference=float(np.abs(p - q).max()),
    )


def refuse_too_few(images: int, least_images: int = LEAST_IMAGES) -> None:
    """See that there are enough images to judge by.

    Raises:
        ConfigurationError
    """
    if images < least_images:
        raise ConfigurationError(
            f"A reduced precision is judged on at least {least_images} images; the test part has "
            f"{images}."
        )


def _probabilities(answers: Sequence[ImagePrediction]) -> np.ndarray:
    for answer in answers:
        if answer.probability is None:
            raise ConfigurationError(
                f"The image {answer.image_id} cannot be analysed ({answer.error}); leave it out of "
                "annotations/test.csv."
            )
    return np.array([answer.probability for answer in answers])
