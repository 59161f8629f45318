from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spinexr.inference.familiarity import LOOKS, Familiarity, looks_of
from spinexr.training import familiarity
from spinexr.training.examples import Examples
from spinexr.training.networks import Learner

SMALL = "resnet18"


def ramps(seed: int, count: int) -> Examples:
    """Images that get brighter downwards, the abnormal ones with a bright square."""
    rng = np.random.default_rng(seed)
    abnormal = np.arange(count) % 2 == 1
    images = np.linspace(20, 180, 32)[None, :, None] + rng.normal(0, 6, (count, 32, 32))
    images[abnormal, 8:16, 8:16] = 230
    none = np.zeros((0, 5), np.float32)
    return Examples(images.clip(0, 255).astype(np.uint8), abnormal, (none,) * count)


@pytest.mark.parametrize("architectures", [(SMALL,), (SMALL, "resnet10t")])
def test_statistics_of_checkpoints_tell_other_images_from_their_own(
    architectures: tuple[str, ...], tmp_path: Path
) -> None:
    checkpoints = {}
    for name in architectures:
        torch.manual_seed(0)
        torch.save(Learner(name).network.state_dict(), tmp_path / f"{name}.pth")
        checkpoints[name] = (name, tmp_path / f"{name}.pth")
    steps: list[tuple[str, int, int]] = []
    found = familiarity.fit(
        checkpoints, ramps(0, 480), ramps(1, 400), mean=(0.5,) * 3, std=(0.25,) * 3, device="cpu",
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert set(found.parts) == {*architectures, *LOOKS}
    assert {s[0] for s in steps} == {f"Features of {name}" for name in architectures}
    fresh, others = ramps(2, 400).pixels, 255 - ramps(2, 400).pixels

    def seen(pixels: np.ndarray) -> dict[str, np.ndarray]:
        each = [looks_of(p) for p in pixels]
        looks = {name: np.concatenate([one[name] for one in each]) for name in LOOKS}
        return {n: features(*checkpoints[n], pixels) for n in architectures} | looks

    usual, unusual = seen(fresh), seen(others)
    assert (found.distance(usual) > found.cut).mean() <= 0.05
    assert (found.distance(unusual) > found.cut).mean() >= 0.95
    for name in found.parts:  # each sees it by itself
        alone = Familiarity({name: found.parts[name]}, found.cut)
        assert (alone.distance(unusual) > 1).mean() >= 0.9, name
        assert (alone.distance(usual) > 1).mean() <= 0.1, name


def features(architecture: str, file: Path, pixels: np.ndarray) -> np.ndarray:
    """Pooled features, computed apart from the code under test."""
    network = Learner(architecture).network
    network.load_state_dict(torch.load(file, weights_only=True))
    network.reset_classifier(0)
    images = (torch.from_numpy(pixels)[:, None].float() / 255 - 0.5) / 0.25
    with torch.inference_mode():
        result: np.ndarray = network.eval()(images.expand(-1, 3, -1, -1)).numpy()
    return result
