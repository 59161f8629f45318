"""Radiograph → one probability per ensemble member."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spinexr.domain import MemberScore
from spinexr.errors import ModelOutputError
from spinexr.inference.bundle import EnsembleSpec, Flip
from spinexr.inference.engines.base import Engine
from spinexr.inference.transforms import Grey, classifier_input


def classify(engine: Engine, grey: Grey, spec: EnsembleSpec) -> tuple[MemberScore, ...]:
    """Score of each member, its logits averaged over the bundle's test-time flips.

    Args:
        grey: uint8 (H, W), by the bundle's intensity rule.

    Raises:
        ModelOutputError: a member is missing from the answer or its logit is not finite.
    """
    single = classifier_input(grey, spec.preprocessing)
    views = [
        single[..., ::-1] if f is Flip.HORIZONTAL else single for f in spec.preprocessing.flips
    ]
    logits = engine.classify(np.ascontiguousarray(np.concatenate(views)))
    return tuple(
        MemberScore(m.name, m.architecture, _probability(logits, m.name), m.weight)
        for m in spec.members
    )


def _probability(logits: dict[str, npt.NDArray[np.float32]], name: str) -> float:
    if name not in logits:
        raise ModelOutputError(f"The model {name} gave no answer, so there is no result.")
    logit = float(np.mean(logits[name], dtype=np.float64))
    if not np.isfinite(logit):
        raise ModelOutputError(
            f"The model {name} answered with a value that is not a number, so there is no result. "
            "Its weights are damaged: replace the file."
        )
    return float(1.0 / (1.0 + np.exp(-np.clip(logit, -700.0, 700.0))))
