"""Radiograph → one probability per ensemble member."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from spinexr.domain import MemberScore
from spinexr.errors import ModelOutputError
from spinexr.inference.bundle import EnsembleSpec, Flip
from spinexr.inference.engines.base import ClassifierOutput, Engine
from spinexr.inference.transforms import Grey, resized, standardised


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """What the members say of one image.

    scores: in the bundle's order. seen: uint8 (size, size), the image as all of them saw it.
    features: float32 (1, C) by name.
    activation: float32 (h, w), the members' class activation maps weighted as their scores are.
    """

    scores: tuple[MemberScore, ...]
    seen: Grey
    features: dict[str, npt.NDArray[np.float32]]
    activation: npt.NDArray[np.float32]


def classify(engine: Engine, grey: Grey, spec: EnsembleSpec) -> Classified:
    """Score of each member, its logits and features averaged over the bundle's test-time flips.

    Args:
        grey: uint8 (H, W), by the bundle's intensity rule.

    Raises:
        ModelOutputError: a member is missing from the answer or its logit is not finite.
    """
    small = resized(grey, spec.preprocessing)
    single = standardised(small, spec.preprocessing)
    views = [
        single[..., ::-1] if f is Flip.HORIZONTAL else single for f in spec.preprocessing.flips
    ]
    answers = engine.classify(np.ascontiguousarray(np.concatenate(views)))
    scores = tuple(
        MemberScore(m.name, m.architecture, _probability(answers, m.name), m.weight)
        for m in spec.members
    )
    features = {name: a.features.mean(0, keepdims=True) for name, a in answers.items()}
    return Classified(scores, small, features, _activation(answers, spec))


def _activation(
    answers: dict[str, ClassifierOutput], spec: EnsembleSpec
) -> npt.NDArray[np.float32]:
    maps = []
    for member in spec.members:
        views = [
            view[:, ::-1] if flip is Flip.HORIZONTAL else view
            for view, flip in zip(
                answers[member.name].activations, spec.preprocessing.flips, strict=True
            )
        ]
        maps.append(member.weight * np.mean(views, axis=0))
    # Networks of one stride have one grid; another one is brought to the finest.
    rows, columns = max(m.shape for m in maps)
    fitted = [
        Image.fromarray(m).resize((columns, rows), Image.Resampling.BILINEAR) for m in maps
    ]  # fmt: skip
    total: npt.NDArray[np.float32] = np.sum(
        [np.asarray(m) for m in fitted], axis=0, dtype=np.float32
    )
    return total


def _probability(answers: dict[str, ClassifierOutput], name: str) -> float:
    if name not in answers:
        raise ModelOutputError(f"The model {name} gave no answer, so there is no result.")
    logit = float(np.mean(answers[name].logits, dtype=np.float64))
    if not np.isfinite(logit):
        raise ModelOutputError(
            f"The model {name} answered with a value that is not a number, so there is no result. "
            "Its weights are damaged: replace the file."
        )
    return float(1.0 / (1.0 + np.exp(-np.clip(logit, -700.0, 700.0))))
