"""Whole analyses through the real path, with an engine whose answers are set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy.typing as npt
from jsonschema import Draft202012Validator

from spinexr.analysis import analyse
from spinexr.domain import Analysis, DetectPolicy
from spinexr.inference.predictor import Predictor
from tests import builders
from tests.fakes import ABNORMAL, NORMAL, FakeEngine, fake_bundle

SCHEMA = Path(__file__).parent.parent / "docs/schema/analysis-1.schema.json"


def analysis(
    pixels: npt.NDArray[Any] | None = None,
    *,
    abnormal: bool = True,
    detect: DetectPolicy = DetectPolicy.WHEN_ABNORMAL,
    allow_other_body_part: bool = False,
    **dicom: Any,
) -> Analysis:
    """The analysis of `builders.dicom(pixels, **dicom)`."""
    engine = FakeEngine()
    engine.logits = dict.fromkeys(engine.logits, ABNORMAL if abnormal else NORMAL)
    predictor = Predictor(fake_bundle(), engine)
    try:
        return analyse(
            builders.dicom(pixels, **dicom),
            predictor=predictor,
            max_pixels=40_000_000,
            detect=detect,
            allow_other_body_part=allow_other_body_part,
        )
    finally:
        predictor.close()


def schema_errors(document: object) -> list[str]:
    """What the published schema says against a document."""
    validator = Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8")))
    return [e.message for e in validator.iter_errors(document)]
