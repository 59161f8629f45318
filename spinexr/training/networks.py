"""The classifiers while they learn: a timm network and, beside its head, one that says where.

An image label says little about which of 50,000 pixels made it abnormal. The boxes say more: a
1 × 1 convolution on the last feature map is trained to tell which classes have a box in which of
its cells. It shares the network and is thrown away afterwards, so that a checkpoint stays a plain
state dict.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spinexr.datasets.vindr import CLASSES
from spinexr.inference.engines import torch_runtime
from spinexr.training.examples import Boxes

torch_runtime.prepare()

import timm  # noqa: E402  (the runtime must be prepared first)

_COVER = 0.3  # share of a cell, or of the box, that must be shared


class Learner(nn.Module):
    """Image logit (batch,) and location logits (batch, classes, rows, columns)."""

    def __init__(self, architecture: str, *, pretrained: bool = False) -> None:
        """A network with ImageNet weights where they are wanted and can be fetched.

        `initial` says which it became: "imagenet" or "random".
        """
        super().__init__()
        self.initial = "random"
        self.network: Any = None
        if pretrained:
            # The hub raises a dozen kinds of errors without a network, and none of them matters.
            with contextlib.suppress(Exception):
                self.network = timm.create_model(architecture, pretrained=True, num_classes=1)
                self.initial = "imagenet"
        if self.network is None:
            self.network = timm.create_model(architecture, pretrained=False, num_classes=1)
        where: Any = nn.Conv2d(self.network.num_features, len(CLASSES), 1)
        nn.init.zeros_(where.weight)
        nn.init.constant_(where.bias, -3.0)  # boxes are rare
        self.where = where

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network.forward_features(images)
        logit: Tensor = self.network.forward_head(features)[:, 0]
        return logit.float(), self.where(features).float()


def cells_with_boxes(boxes: Sequence[Boxes], rows: int, columns: int) -> Tensor:
    """float (batch, classes, rows, columns): 1 where a box covers a cell, or a cell the box."""
    target = np.zeros((len(boxes), len(CLASSES), rows, columns), np.float32)
    y, x = np.arange(rows), np.arange(columns)
    for n, found in enumerate(boxes):
        for x1, y1, x2, y2, label in found:
            wide = (np.minimum(x + 1, x2 * columns) - np.maximum(x, x1 * columns)).clip(0)
            high = (np.minimum(y + 1, y2 * rows) - np.maximum(y, y1 * rows)).clip(0)
            shared = high[:, None] * wide[None]
            area = max((x2 - x1) * columns * (y2 - y1) * rows, 1e-9)
            target[n, int(label)] = np.maximum(
                target[n, int(label)], shared > _COVER * min(1.0, area)
            )
    return torch.from_numpy(target)
