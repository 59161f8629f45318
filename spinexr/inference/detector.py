"""Raw boxes → findings, by the bundle's confidence levels."""

from __future__ import annotations

import numpy as np

from spinexr.domain import Box, Finding
from spinexr.errors import ModelOutputError
from spinexr.inference.bundle import DetectorSpec
from spinexr.inference.engines.base import RawDetections


def to_findings(
    raw: RawDetections,
    class_names: tuple[str, ...],
    *,
    firm_confidence: float,
    rows: int,
    columns: int,
) -> tuple[Finding, ...]:
    """All boxes, most confident first, clipped to the image.

    Raises:
        ModelOutputError: a box or a confidence is not a number, or a class does not exist.
    """
    if not (np.isfinite(raw.boxes).all() and np.isfinite(raw.confidences).all()):
        raise ModelOutputError("The detector answered with boxes that are not numbers.")
    findings = []
    for box, confidence, index in zip(raw.boxes, raw.confidences, raw.classes, strict=True):
        if not 0 <= index < len(class_names):
            raise ModelOutputError(f"The detector answered with the unknown class {index}.")
        x1, x2 = np.clip(box[[0, 2]].astype(float), 0, columns)
        y1, y2 = np.clip(box[[1, 3]].astype(float), 0, rows)
        if x2 <= x1 or y2 <= y1:  # wholly outside the image
            continue
        findings.append(
            Finding(
                label=class_names[index],
                class_index=int(index),
                confidence=min(1.0, float(confidence)),
                box=Box(float(x1), float(y1), float(x2), float(y2)),
                tentative=bool(confidence < firm_confidence),
            )
        )
    return tuple(sorted(findings, key=lambda f: -f.confidence))


def select(
    findings: tuple[Finding, ...], spec: DetectorSpec, *, abnormal: bool
) -> tuple[Finding, ...]:
    """The findings to show: on an abnormal image those from the tentative level up, on a normal
    one only those of at least the bundle's on-normal level, the fusion rule of VinDr-SpineXR."""
    lowest = spec.tentative_confidence if abnormal else spec.on_normal_confidence
    return tuple(f for f in findings if f.confidence >= lowest)
