"""The engine interface: arrays in, arrays out, no decisions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from spinexr.inference.engines.precision import Precision

# Rows and columns of the first image that an engine is shown, before any radiograph: of the shape
# most of VinDr-SpineXR has, small.
FIRST_SHAPE: Final = (448, 293)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """One network that an engine holds, for /health."""

    name: str
    architecture: str
    file: str  # relative to the weights root
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class RawDetections:
    """Boxes after non-maximum suppression, most confident first.

    boxes: float32 (N, 4) xyxy in pixels of the image given to `detect`.
    confidences: float32 (N,) in 0–1. classes: int64 (N,) indices into `class_names`.
    """

    boxes: npt.NDArray[np.float32]
    confidences: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ClassifierOutput:
    """What one member says of a batch.

    logits: float32 (N,), of "abnormal". features: float32 (N, C), pooled, before the last layer.
    activations: float32 (N, h, w), the class activation map (Zhou et al., CVPR 2016): the last
        layer's weights times the last feature map. Its mean and the bias make the logit.
    """

    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    activations: npt.NDArray[np.float32]


class Engine(ABC):
    """A loaded bundle on some device. Not thread-safe: the Predictor serialises its calls."""

    name: str
    version: str
    device: str
    precision: Precision = Precision.EXACT
    wanted_precision: Precision = Precision.EXACT
    precision_note: str | None = None  # why it is not the wanted one
    precision_measured: Mapping[str, Any] | None = None  # by the gate, against the exact one
    calibration: str = ""  # of int8: a hash of the networks that came of it
    models: tuple[LoadedModel, ...]
    class_names: tuple[str, ...]

    @abstractmethod
    def classify(self, batch: npt.NDArray[np.float32]) -> dict[str, ClassifierOutput]:
        """Answers per member name.

        Args:
            batch: float32 (N, 3, size, size), standardised.
        """

    @abstractmethod
    def detect(self, grey: npt.NDArray[np.uint8], *, confidence: float) -> RawDetections:
        """Lesion boxes above `confidence`.

        Args:
            grey: uint8 (H, W), 0 = black, any size.
        """
