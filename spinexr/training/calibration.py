"""Temperature and bias of a classifier, fitted on validation and folded into its last layer.

Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), with a bias beside the
temperature (Platt, 1999), so that a class balance that was changed for training is undone too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Calibration:
    """logit → scale · logit + bias; the temperature is 1 / scale."""

    scale: float
    bias: float

    def apply(self, logits: Floats) -> Floats:
        return self.scale * logits + self.bias


def fit(logits: Floats, abnormal: npt.NDArray[np.bool_]) -> Calibration:
    """The scale and bias of least cross-entropy; the scale stays positive, so ranks stay.

    Args:
        logits: (N,), finite. abnormal: (N,), both values present.
    """
    sign = np.where(abnormal, 1.0, -1.0)

    def loss(p: Floats) -> tuple[float, Floats]:
        scale = np.exp(p[0])
        margin = sign * (scale * logits + p[1])
        slope = -sign / (1.0 + np.exp(np.clip(margin, -50, 50)))
        # A weak pull to no change: separable validation sets have no finite optimum.
        value = np.logaddexp(0, -margin).mean() + 1e-3 * (p[0] ** 2 + p[1] ** 2)
        gradient = np.array([(slope * logits * scale).mean(), slope.mean()]) + 2e-3 * p
        return float(value), gradient

    found = minimize(loss, np.zeros(2), jac=True, method="L-BFGS-B").x
    return Calibration(float(np.exp(found[0])), float(found[1]))


@torch.no_grad()
def fold(head: nn.Linear, calibration: Calibration) -> None:
    """Change the last layer so that it answers calibrated logits."""
    head.weight.mul_(calibration.scale)
    bias: Tensor = head.bias
    bias.mul_(calibration.scale).add_(calibration.bias)
