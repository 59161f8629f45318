"""Statistics of the training images: of features as they will be served, and of their looks."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spinexr.inference import familiarity
from spinexr.inference.engines.torch_checkpoints import load_classifier
from spinexr.training.examples import Examples, Progress, silent
from spinexr.training.runs import autocast, failures_named, pick_device

_COMPONENTS = 64  # 1.1 MB for the three standard members
# With more of them the subspaces hold what is no radiograph too. So chosen that phantoms of shifted
# contrast are far, and no more phantoms as they are than without looks.
_LOOKS_COMPONENTS = {"thumbnail": 4, "histogram": 6}
_MOST = 1500  # training images that the statistics are taken from
_BATCH = 64


def fit(
    checkpoints: Mapping[str, tuple[str, Path]],
    training: Examples,
    validation: Examples,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    device: str = "auto",
    seed: int = 0,
    progress: Progress = silent,
) -> familiarity.Familiarity:
    """Statistics of every member and of the looks, and the cut-off.

    Args:
        checkpoints: by member name, architecture and file.
        training, validation: prepared at the size of the inputs, not augmented.
    """
    where = pick_device(device)
    rng = np.random.default_rng(seed)
    count = min(_MOST, len(training))
    chosen = np.sort(rng.choice(len(training), count, replace=False))
    parts, seen = {}, {}
    with failures_named(where, lambda: "the features of the training images"):
        for name, (architecture, file) in checkpoints.items():
            network: Any = load_classifier(file, architecture)
            network.to(where, memory_format=torch.channels_last)

            def features(
                pixels: npt.NDArray[np.uint8],
                *,
                exact: bool,
                network: torch.nn.Module = network,
                name: str = name,
            ) -> npt.NDArray[np.float32]:
                with contextlib.nullcontext() if exact else autocast(where):
                    return _features(
                        network, pixels, mean, std, where, f"Features of {name}", progress
                    )

            # The cut-off is set on features as they will be when serving; where the training images
            # lie is told as well in less time.
            seen[name] = features(validation.pixels, exact=True)
            parts[name] = familiarity.fit(
                features(training.pixels[chosen], exact=False),
                training.abnormal[chosen],
                seen[name],
                components=_COMPONENTS,
            )
    looks = _looks(training.pixels[chosen])
    seen |= _looks(validation.pixels)
    for name, components in _LOOKS_COMPONENTS.items():
        parts[name] = familiarity.fit(
            looks[name], training.abnormal[chosen], seen[name], components=components
        )
    return familiarity.with_cut(parts, seen)


def _looks(pixels: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[np.float32]]:
    each = [familiarity.looks_of(np.asarray(p)) for p in pixels]
    return {name: np.concatenate([one[name] for one in each]) for name in familiarity.LOOKS}


@torch.inference_mode()
def _features(
    network: torch.nn.Module, pixels: npt.NDArray[np.uint8], mean: tuple[float, ...],
    std: tuple[float, ...], device: torch.device, what: str, progress: Progress,
) -> npt.NDArray[np.float32]:  # fmt: skip
    timm: Any = network
    m, s = (torch.tensor(v)[:, None, None] for v in (mean, std))
    found = []
    for n in range(0, len(pixels), _BATCH):
        images = torch.from_numpy(np.array(pixels[n : n + _BATCH])).float()[:, None] / 255.0
        batch = ((images - m) / s).to(device).contiguous(memory_format=torch.channels_last)
        last = timm.forward_features(batch)
        pooled = timm.forward_head(last, pre_logits=True)
        found.append(pooled.float().cpu().numpy())
        progress(what, min(n + _BATCH, len(pixels)), len(pixels))
    return np.concatenate(found)
