"""An engine whose answers the test sets, behind the real interface."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from spinexr.domain import TrainingData
from spinexr.inference.bundle import (
    Bundle,
    DetectorSpec,
    EnsembleSpec,
    Flip,
    Intensity,
    MemberSpec,
    Preprocessing,
)
from spinexr.inference.engines.base import (
    ClassifierOutput,
    Engine,
    LoadedModel,
    RawDetections,
)

CLASSES = ("Osteophytes", "Disc space narrowing", "Surgical implant")
ABNORMAL, NORMAL = 2.0, -2.0  # logits
FEATURES = 8

NO_BOXES = RawDetections(
    boxes=np.zeros((0, 4), np.float32),
    confidences=np.zeros(0, np.float32),
    classes=np.zeros(0, np.int64),
)


def raw(*rows: tuple[float, float, float, float, float, int]) -> RawDetections:
    """Detections from (x1, y1, x2, y2, confidence, class) rows."""
    return RawDetections(
        boxes=np.array([r[:4] for r in rows], np.float32).reshape(-1, 4),
        confidences=np.array([r[4] for r in rows], np.float32),
        classes=np.array([r[5] for r in rows], np.int64),
    )


def fake_bundle(
    *,
    intensity: Intensity = Intensity.STORED_MINMAX,
    flips: tuple[Flip, ...] = (Flip.NONE,),
    assumed_profile: bool = False,
) -> Bundle:
    """The standard profile at 32 pixels, without files."""
    root = Path("weights")
    members = (("DenseNet121", 0.42), ("ResNet50", 0.26), ("EfficientNetV2-S", 0.32))
    return Bundle(
        root=root,
        name="fake",
        assumed_profile=assumed_profile,
        training_data=TrainingData.NONE,
        description="answers set by a test",
        licence="MIT",
        intended_use="tests",
        ensemble=EnsembleSpec(
            members=tuple(
                MemberSpec(name, name.lower(), root / f"{name}.pth", None, weight)
                for name, weight in members
            ),
            threshold=0.449,
            review_band=(0.399, 0.499),
            preprocessing=Preprocessing(
                size=32,
                intensity=intensity,
                mean=(0.485, 0.456, 0.406),
                std=(0.229, 0.224, 0.225),
                flips=flips,
            ),
        ),
        detector=DetectorSpec(
            architecture="yolo11n",
            file=root / "best.pt",
            sha256=None,
            classes=CLASSES,
            size=640,
            intensity=intensity,
            firm_confidence=0.25,
            tentative_confidence=0.15,
            on_normal_confidence=0.5,
            iou=0.7,
            max_detections=300,
        ),
    )


class FakeEngine(Engine):
    """Answers `logits` and `detections`; remembers what it was asked."""

    name = "fake"
    version = "1"
    device = "cpu"
    class_names = CLASSES

    def __init__(self) -> None:
        self.logits: dict[str, float] = dict.fromkeys(
            ("DenseNet121", "ResNet50", "EfficientNetV2-S"), ABNORMAL
        )
        self.detections = raw((10, 20, 60, 90, 0.8, 0), (30, 40, 80, 120, 0.2, 1))
        self.feature = 0.0  # in every place of every member's features
        self.activation = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
        self.batches: list[npt.NDArray[np.float32]] = []
        self.detect_calls: list[float] = []
        self.models = tuple(
            LoadedModel(name, name.lower(), f"{name}.pth", "0" * 64) for name in self.logits
        )

    def classify(self, batch: npt.NDArray[np.float32]) -> dict[str, ClassifierOutput]:
        self.batches.append(batch)
        return {
            name: ClassifierOutput(
                np.full(len(batch), logit, np.float32),
                np.full((len(batch), FEATURES), self.feature, np.float32),
                np.stack([self.activation] * len(batch)),
            )
            for name, logit in self.logits.items()
        }

    def detect(self, grey: npt.NDArray[np.uint8], *, confidence: float) -> RawDetections:
        self.detect_calls.append(confidence)
        return self.detections
