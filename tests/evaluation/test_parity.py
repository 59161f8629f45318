"""The gate of reduced precision refuses what costs more than next to nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spinexr.datasets.vindr import CLASSES, LabelledImage, Lesion
from spinexr.domain import Box
from spinexr.errors import ConfigurationError
from spinexr.evaluation import parity
from spinexr.evaluation.detection import ScoredBox
from spinexr.evaluation.predictions import ImagePrediction

BOX = Box(10, 10, 50, 60)
LESION = Lesion(CLASSES[0], BOX)
IMAGES = [
    LabelledImage("test", f"s{n}", f"i{n}", Path(f"i{n}.dicom"), (LESION,) if n % 2 else ())
    for n in range(600)
]


def answers(noise: float = 0.0) -> list[ImagePrediction]:
    """Right about most images, wrong about some."""
    rng, disturbed = np.random.default_rng(0), np.random.default_rng(1)
    found = []
    for image in IMAGES:
        p = float(np.clip(rng.normal(0.7 if image.abnormal else 0.3, 0.15), 0, 1))
        p = float(np.clip(p + noise * disturbed.normal(), 0, 1))
        boxes = (ScoredBox(CLASSES[0], 0.8, BOX),) if image.abnormal else ()
        found.append(ImagePrediction(image.image_id, p, {}, boxes))
    return found


def compared(reduced: list[ImagePrediction]) -> parity.Parity:
    return parity.compare(IMAGES, answers(), reduced, threshold=0.449)


def test_the_same_answers_are_accepted() -> None:
    found = compared(answers())
    assert found.refusal is None
    assert (found.images, found.auroc_drop, found.flips, found.map50_drop) == (600, 0, 0, 0)


def test_a_little_noise_is_accepted_and_measured() -> None:
    found = compared(answers(noise=1e-4))
    assert found.refusal is None
    assert 1e-4 < found.largest_difference < 1e-3


def test_a_lower_auroc_is_refused() -> None:
    assert "AUROC drops by" in str(compared(answers(noise=0.1)).refusal)


def test_flipped_decisions_are_refused() -> None:
    changed = answers()
    near = sorted(range(600), key=lambda n: abs((changed[n].probability or 0) - 0.449))[:5]
    for n in near:
        p = changed[n].probability or 0
        changed[n] = replace(changed[n], probability=0.4489 if p > 0.449 else 0.4491)
    found = compared(changed)
    assert found.flips == pytest.approx(5 / 600)
    assert "flip" in str(found.refusal)


def test_worse_boxes_are_refused() -> None:
    changed = [replace(a, boxes=()) if n < 40 else a for n, a in enumerate(answers())]
    assert "mAP50 drops by" in str(compared(changed).refusal)


def test_few_images_judge_nothing() -> None:
    with pytest.raises(ConfigurationError, match="at least 500 images; the test part has 499"):
        parity.compare(IMAGES[:499], answers()[:499], answers()[:499], threshold=0.449)


def test_an_image_without_an_answer_is_named() -> None:
    broken = answers()
    broken[7] = ImagePrediction("i7", None, error="corrupt_dicom")
    with pytest.raises(ConfigurationError, match="i7"):
        compared(broken)
