"""Untrained bundles of full-size networks: for tests, benchmarks and load, never for results."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from spinexr.datasets.vindr import CLASSES
from spinexr.inference import yolo
from spinexr.inference.bundle import (
    DETECTION_FOLDER,
    ENSEMBLE_FOLDER,
    MANIFEST,
    STANDARD_DETECTION,
    STANDARD_ENSEMBLE,
    sha256_of,
)
from spinexr.inference.engines import torch_runtime
from spinexr.inference.yolo import Grey

torch_runtime.prepare()

import timm  # noqa: E402  (the runtime must be prepared first)
from ultralytics.nn.tasks import DetectionModel  # noqa: E402

_SETTLE_PASSES = 4
_SETTLE_BATCH = 4
_DETECTOR_SIDE = 320
_LOGIT_OF_FIRM = -1.0986  # 0.25
_LOGIT_OF_NOTHING = -16.0
_LOGIT_DEVIATION = 0.2  # of a classifier's logit over textures


def write_untrained_bundle(
    root: Path,
    *,
    detector: str = "yolo11n",
    architectures: Sequence[str] | None = None,
    size: int = 224,
    seed: int = 0,
    abnormal: bool | None = None,
    boxes: int | None = None,
    image: Grey | None = None,
) -> None:
    """Write a bundle of the standard layout with random weights, marked as untrained.

    Args:
        root: gets `ensemble output/` and `detection output/`.
        detector: scale of the YOLO11 detector.
        architectures: those of timm to take in place of the standard members', a different one for
            each; their folders are named after them.
        size: input side of the classifiers in pixels.
        seed: same seed, same weights on the same torch.
        abnormal: shift the classifiers' biases until images are called abnormal (True) or normal
            (False); None leaves them undecided.
        boxes: shift the detector's class biases until about this many anchors (before suppression)
            exceed the firm confidence, 0 for none; None leaves them.
        image: what anchors are counted on, instead of textures.

    Raises:
        FileExistsError: a checkpoint or manifest is already there; nothing is overwritten.
        ValueError: `architectures` are not as many different ones as there are members.
    """
    ensemble, detection = _manifests(detector, architectures, size)
    folders = (root / ENSEMBLE_FOLDER, root / DETECTION_FOLDER)
    targets = [folders[0] / m["file"] for m in ensemble["members"]]
    targets += [folders[1] / detection["file"], *(folder / MANIFEST for folder in folders)]
    if existing := [t for t in targets if t.exists()]:
        raise FileExistsError(f"{existing[0]} exists; choose an empty folder.")

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for member in ensemble["members"]:
            file = folders[0] / member["file"]
            file.parent.mkdir(parents=True, exist_ok=True)
            model = _classifier(member["architecture"], size, abnormal)
            torch.save(model.state_dict(), file)
            member["sha256"] = sha256_of(file)
        file = folders[1] / detection["file"]
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(
            {"model": _detector(detector, boxes, image), "epoch": -1, "train_args": {}}, file
        )
        detection["sha256"] = sha256_of(file)
    for folder, manifest in zip(folders, (ensemble, detection), strict=True):
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")


def _manifests(
    detector: str, architectures: Sequence[str] | None, size: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    ensemble: dict[str, Any] = copy.deepcopy(dict(STANDARD_ENSEMBLE))
    if architectures is not None:
        if len(set(architectures)) != len(architectures):
            raise ValueError("An architecture is named twice.")
        for member, name in zip(ensemble["members"], architectures, strict=True):
            member.update(name=name, architecture=name, file=f"{name}/model_best.pth")
    detection: dict[str, Any] = copy.deepcopy(dict(STANDARD_DETECTION))
    ensemble["preprocessing"]["size"] = size
    detection.update(architecture=detector, classes=list(CLASSES))
    for manifest in (ensemble, detection):
        manifest.update(
            name="untrained",
            licence="MIT",
            intended_use="tests and benchmarks; results mean nothing",
            provenance={"training_data": "none", "description": "random weights, never trained"},
        )
    return ensemble, detection


def _classifier(architecture: str, size: int, abnormal: bool | None) -> torch.nn.Module:
    model: torch.nn.Module = timm.create_model(architecture, pretrained=False, num_classes=1)
    standard = STANDARD_ENSEMBLE["preprocessing"]
    mean, std = (torch.tensor(standard[k])[:, None, None] for k in ("mean", "std"))

    def textures() -> torch.Tensor:
        return (_textures(size) - mean) / std

    _settle_statistics(model, textures)
    head: Any = model.get_classifier()  # type: ignore[operator]  # timm's own method
    with torch.no_grad():
        logits = model(torch.cat([textures(), textures()]))[:, 0]
        scale = _LOGIT_DEVIATION / float(logits.std())
        head.weight *= scale
        head.bias *= scale
        # Ten deviations decide nearly any image.
        center = 0.0 if abnormal is None else 10 * _LOGIT_DEVIATION * (1 if abnormal else -1)
        head.bias += center - scale * float(logits.mean())
    return model


def _detector(scale: str, boxes: int | None, image: Grey | None) -> torch.nn.Module:
    model: Any = DetectionModel(f"{scale}.yaml", nc=len(CLASSES), verbose=False)
    model.names = dict(enumerate(CLASSES))
    _settle_statistics(model, lambda: _textures(_DETECTOR_SIDE))
    if boxes is not None:
        branches = [branch[-1] for branch in model.model[-1].cv3]
        with torch.no_grad():
            inputs = _textures(_DETECTOR_SIDE)
            if image is not None:
                framed, _ = yolo.letterbox(image, STANDARD_DETECTION["preprocessing"]["size"])
                inputs = torch.from_numpy(yolo.detector_input(framed))
            logits = _class_logits(model, inputs)
            for layer in branches:
                layer.weight /= logits.std()
            logits = _class_logits(model, inputs)
            ranked = logits.amax(1).sort(dim=1, descending=True).values.mean(0)
            for layer in branches:
                if boxes:
                    layer.bias += _LOGIT_OF_FIRM - float(ranked[boxes])
                else:  # no image overcomes a constant
                    layer.weight.zero_()
                    layer.bias.fill_(_LOGIT_OF_NOTHING)
    return model  # type: ignore[no-any-return]


def _class_logits(model: torch.nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """(batch, classes, anchors)"""
    return torch.logit(model(inputs)[0][:, 4:], eps=1e-6)


def _settle_statistics(model: torch.nn.Module, images: Callable[[], torch.Tensor]) -> None:
    """Set batch-norm statistics from a few passes: raw random networks overflow."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative mean over the passes
    model.train()
    with torch.no_grad():
        for _ in range(_SETTLE_PASSES):
            model(images())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def _textures(side: int) -> torch.Tensor:
    """(batch, 3, side, side) in 0–1: grey textures of several scales around a bright column."""
    layers = []
    for cells in (2, 4, 16, max(side // 4, 2), side):
        coarse = torch.rand(_SETTLE_BATCH, 1, cells, cells)
        layers.append(
            torch.nn.functional.interpolate(
                coarse, size=(side, side), mode="bilinear", align_corners=False
            )
        )
    layers.append((layers[2] > 0.7).float())  # hard edges
    across = torch.linspace(-1, 1, side)
    width = 0.2 + 0.5 * torch.rand(_SETTLE_BATCH, 1, 1, 1)
    layers.append(torch.exp(-((across / width) ** 2)).expand(-1, 1, side, side))
    weights = torch.rand(_SETTLE_BATCH, len(layers), 1, 1)
    weights[:, -1] += 1.0
    mixed = (torch.cat(layers, 1) * weights).sum(1, keepdim=True)
    low, high = mixed.amin((2, 3), keepdim=True), mixed.amax((2, 3), keepdim=True)
    return ((mixed - low) / (high - low)).repeat(1, 3, 1, 1)
