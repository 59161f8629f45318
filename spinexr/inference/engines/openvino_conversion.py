"""Checkpoints → OpenVINO networks. The only place that needs both torch and OpenVINO."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import openvino
import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from spinexr.inference.engines.engine_files import Writer
from spinexr.inference.engines.torch_checkpoints import load_classifier, load_detector
from spinexr.inference.engines.torch_runtime import classify

# Tracing needs an input; any shape that the detector takes will do.
_DETECTOR_EXAMPLE = (640, 448)


class _Classifier(nn.Module):
    """A timm network → logit (N, 1), features (N, C) and activations (N, 1, h, w)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return classify(self.network, images)


class _Detector(nn.Module):
    """A YOLO network → the head's raw distances and class logits, which fit any input shape."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        # The first answer is decoded for one shape; what is not used is not converted.
        _, raw = self.network(images)
        return raw["boxes"], raw["scores"]


def classifier_writer(checkpoint: Path, architecture: str, size: int) -> Writer:
    """Writes the network of a checkpoint; the batch is free.

    Raises (when called):
        CheckpointError: the checkpoint does not hold the architecture.
    """

    def write(file: Path) -> dict[str, Any]:
        network = _Classifier(load_classifier(checkpoint, architecture)).eval()
        example = torch.zeros(1, 3, size, size)
        _convert(network, example, (-1, 3, size, size), file)
        return {"architecture": architecture}

    return write


def detector_writer(checkpoint: Path) -> Writer:
    """Writes the network of a detector's checkpoint; rows and columns are free.

    Raises (when called):
        CheckpointError: the checkpoint holds no YOLO11 detector.
    """

    def write(file: Path) -> dict[str, Any]:
        loaded, architecture, classes = load_detector(checkpoint)
        network = _Detector(loaded)
        example = torch.zeros(1, 3, *_DETECTOR_EXAMPLE)
        _convert(network, example, (1, 3, -1, -1), file)
        return {"architecture": architecture, "classes": list(classes)}

    return write


def _convert(network: nn.Module, example: Tensor, shape: tuple[int, ...], file: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing fixes what depends on conditions; ours depend on nothing that changes later.
        warnings.simplefilter("ignore", TracerWarning)
        converted = openvino.convert_model(network, example_input=example, input=[shape])
    openvino.save_model(converted, file, compress_to_fp16=False)
