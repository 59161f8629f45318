"""Temperature and bias of classifiers, fitted on validation and folded into their last layers.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), with a bias beside the
temperature (Platt, 1999), so that a class balance that was changed for training is undone too.
Members that are calibrated each for themselves have a mean that is too cautious (Rahaman & Thiery,
"Uncertainty Quantification and Deep Ensembles", NeurIPS 2021): it is fitted once more, together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logsumexp
from torch import Tensor, nn

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """logit → scale · logit + bias; the temperature is 1 / scale."""

    scale: float
    bias: float

    def apply(self, logits: Floats) -> Floats:
        return self.scale * logits + self.bias

    def then(self, later: Calibration) -> Calibration:
        """Both in one, this one first."""
        return Calibration(later.scale * self.scale, later.scale * self.bias + later.bias)


def fit(
    logits: Floats, abnormal: npt.NDArray[np.bool_], *, weights: Floats | None = None
) -> Calibration:
    """The scale and bias of least cross-entropy; the scale stays positive, so ranks stay.

    Args:
        logits: (N,) of a classifier, or (M, N) of M members, whose weighted mean of probabilities
            is fitted with one scale and bias for all of them; finite.
        abnormal: (N,), both values present.
        weights: (M,), positive, of sum 1; only with M members.
    """
    members = np.atleast_2d(logits)
    log_weights = np.log([1.0] if weights is None else weights)[:, None]
    sign = np.where(abnormal, 1.0, -1.0)

    def loss(p: Floats) -> tuple[float, Floats]:
        scale = np.exp(p[0])
        margins = sign * (scale * members + p[1])
        terms = log_weights + log_expit(margins)
        likelihood = logsumexp(terms, axis=0)  # of the truth, for each image
        slope = -sign * np.exp(terms - likelihood) * expit(-margins)
        # A weak pull to no change: separable validation sets have no finite optimum.
        value = -likelihood.mean() + 1e-3 * (p[0] ** 2 + p[1] ** 2)
        gradient = np.array([(slope * members * scale).sum(0).mean(), slope.sum(0).mean()])
        return float(value), gradient + 2e-3 * p

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return Calibration(float(np.exp(found[0])), float(found[1]))


@torch.no_grad()
def fold(head: nn.Linear, calibration: Calibration) -> None:
    """Change the last layer so that it answers calibrated logits."""
    head.weight.mul_(calibration.scale)
    bias: Tensor = head.bias
    bias.mul_(calibration.scale).add_(calibration.bias)
