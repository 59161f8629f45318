"""The classifiers while they learn: a timm network and, beside its head, some that say where.

An image label says little about which of 50,000 pixels made it abnormal. The boxes say more: 1 × 1
convolutions on the feature maps of three strides are trained to tell which classes have a box in
which of their cells. They share the network and are thrown away afterwards, so that a checkpoint
stays a plain state dict.

A network may also learn from one that is trained already, its teacher: from what it says of an
image and from its features (Romero et al., FitNets, ICLR 2015), which are a thousand labels more
for every place. Networks that learn slowly from few images come far in a fraction of the time.
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
from huggingface_hub import constants as hub  # noqa: E402  (timm brings it)
from huggingface_hub import get_session  # noqa: E402

STRIDES = (8, 16, 32)
_COVER = 0.3  # share of a cell, or of the box, that must be shared
_RARE = -4.6  # logit of 0.01: how a detector's bias starts (Lin et al., ICCV 2017)
_FOCUS = 2.0  # exponent of the focal loss, same paper
_PROBE = 128  # side of the image that finds the feature maps
_HUB_TIMEOUT_S = 10.0


Maps = dict[int, Tensor]  # by stride: (batch, channels, rows, columns)


class Learner(nn.Module):
    """Image logit (batch,) and, by stride, features and location logits per class."""

    def __init__(self, architecture: str, *, pretrained: bool = False) -> None:
        """A network with ImageNet weights where they are wanted and can be fetched.

        `initial` says which it became: "imagenet" or "random".
        """
        super().__init__()
        self.initial = "random"
        self.network: Any = None
        if pretrained:
            _go_offline_without_hub()
            # The hub raises a dozen kinds of errors without a network, and none of them matters.
            with contextlib.suppress(Exception):
                self.network = timm.create_model(architecture, pretrained=True, num_classes=1)
                self.initial = "imagenet"
        if self.network is None:
            self.network = timm.create_model(architecture, pretrained=False, num_classes=1)
            _begin_with_shortcuts(self.network)
        self._maps = _feature_maps(self.network)
        self.where = nn.ModuleDict({str(s): _locator(w) for s, (_, w) in self._maps.items()})

    def forward(self, images: Tensor) -> tuple[Tensor, Maps, Maps]:
        logit, features = _with_maps(self.network, self._maps, images)
        return logit, features, {s: self.where[str(s)](f).float() for s, f in features.items()}


class Teacher(nn.Module):
    """A trained network, and layers that bring a learner's features to its own."""

    def __init__(self, network: nn.Module, learner: Learner) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self._maps = _feature_maps(network)
        widths = {s: (learner._maps[s][1], width) for s, (_, width) in self._maps.items()}
        self.hints = nn.ModuleDict({str(s): nn.Conv2d(*w, 1) for s, w in widths.items()})

    def forward(self, images: Tensor, features: Maps) -> tuple[Tensor, Tensor]:
        """What it says, as logits (batch,), and how far `features` are from its own.

        That is the mean square over channels of unit variance, averaged over the strides.
        """
        with torch.no_grad():
            logit, own = _with_maps(self.network, self._maps, images)
        losses = []
        for stride, wanted in own.items():
            wanted = nn.functional.batch_norm(wanted.float(), None, None, training=True)
            given = self.hints[str(stride)](features[stride]).float()
            # Networks differ in how they halve odd sizes.
            rows, columns = wanted.shape[2:]
            given = nn.functional.adaptive_avg_pool2d(given, (rows, columns))
            losses.append(nn.functional.mse_loss(given, wanted))
        return logit, torch.stack(losses).mean()


def location_loss(located: Maps, boxes: Sequence[Boxes]) -> Tensor:
    """Focal loss over cells, per cell with a box, averaged over the strides."""
    losses = []
    for logits in located.values():
        rows, columns = logits.shape[2:]
        cells = cells_with_boxes(boxes, rows, columns).to(logits.device)
        plain = nn.functional.binary_cross_entropy_with_logits(logits, cells, reduction="none")
        missed = (torch.sigmoid(logits) - cells).abs()
        losses.append((missed**_FOCUS * plain).sum() / cells.sum().clamp(min=len(boxes)))
    return torch.stack(losses).mean()


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


def _go_offline_without_hub() -> None:
    """Where the hub cannot be reached its client is told so, and looks in its cache alone.

    Left to itself it asks a dozen times for every network, for 45 seconds and with as many lines.
    """
    if not hub.HF_HUB_OFFLINE:
        try:
            get_session().head(hub.ENDPOINT, timeout=_HUB_TIMEOUT_S)  # any status is an answer
        # As above: addresses that are none, proxies, certificates, silence, …
        except Exception:
            hub.HF_HUB_OFFLINE = True


def _begin_with_shortcuts(network: nn.Module) -> None:
    """Blocks beside a shortcut begin with nothing to add, as timm's ResNets do.

    Goyal et al., arXiv:1706.02677, section 5.1. Without it EfficientNetV2-S learns slowly from
    nothing, and what its blocks add grows until single images answer a hundredfold.
    """
    for block in network.modules():
        if getattr(block, "has_skip", False):
            last = [m for m in block.children() if isinstance(m, nn.BatchNorm2d)][-1]
            nn.init.zeros_(last.weight)


def _with_maps(
    network: nn.Module, maps: dict[int, tuple[str, int]], images: Tensor
) -> tuple[Tensor, Maps]:
    """The network's logit (batch,) and its features on the way there."""
    seen: Maps = {}
    handles = [
        network.get_submodule(name).register_forward_hook(_keep(seen, stride))
        for stride, (name, _) in maps.items()
    ]
    try:
        logit: Tensor = network(images)[:, 0]
    finally:
        for handle in handles:
            handle.remove()
    return logit.float(), seen


def _feature_maps(network: nn.Module) -> dict[int, tuple[str, int]]:
    """By stride, the last module in running order that gives a map of it, and its channels."""
    found: dict[int, tuple[str, int]] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim == 4:
                stride = _PROBE // max(1, output.shape[2])
                if stride in STRIDES and output.shape[2] == output.shape[3]:
                    found[stride] = (name, int(output.shape[1]))

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in network.named_modules() if n]
    training = network.training
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, _PROBE, _PROBE))
    network.train(training)
    for handle in handles:
        handle.remove()
    return found


def _locator(width: int) -> nn.Module:
    layer: Any = nn.Conv2d(width, len(CLASSES), 1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.constant_(layer.bias, _RARE)
    return layer  # type: ignore[no-any-return]


def _keep(seen: Maps, stride: int) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        seen[stride] = output

    return hook
