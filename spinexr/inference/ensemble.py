"""The weighted mean. A missing member is an error: a threshold belongs to one ensemble."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spinexr.domain import MemberScore
from spinexr.errors import ModelOutputError
from spinexr.inference.bundle import EnsembleSpec


def combine(scores: Sequence[MemberScore], spec: EnsembleSpec) -> float:
    """Probability of "abnormal", 0–1: the members' probabilities weighted as the bundle says.

    Raises:
        ModelOutputError: not exactly the bundle's members, or a score that is no probability.
    """
    expected = [m.name for m in spec.members]
    if missing := set(expected) - {s.name for s in scores}:
        raise ModelOutputError(f"No score from {', '.join(sorted(missing))}: no result without it.")
    if sorted(s.name for s in scores) != sorted(expected):
        raise ModelOutputError("The scores are not those of the bundle's members.")
    weights = {m.name: m.weight for m in spec.members}
    for score in scores:
        if not 0.0 <= score.probability <= 1.0:
            raise ModelOutputError(f"The score of {score.name} is not a probability.")
    # Weights add up to 1 within 1e-6 only, so the sum is held to the range of a probability.
    return min(1.0, math.fsum(weights[s.name] * s.probability for s in scores))
