"""The one path: bytes → decode → gate → predict → Analysis. Page, API and CLI all call this."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from types import MappingProxyType

from spinexr.domain import Analysis, DetectPolicy, Notice, Read
from spinexr.inference.predictor import Predictor

UNFAMILIAR = Notice(
    "unlike_training_images",
    "This image is unlike the images that these weights were trained on. Do not rely on the "
    "scores and findings.",
)


def analyse(
    data: bytes | Callable[[], bytes],
    *,
    predictor: Predictor,
    max_pixels: int,
    detect: DetectPolicy = DetectPolicy.WHEN_ABNORMAL,
    allow_other_body_part: bool = False,
    candidates_from: float | None = None,
    read: Read | None = None,
    timeout_s: float = math.inf,
) -> Analysis:
    """Analyse one radiograph.

    Args:
        data: the bytes of one DICOM file, or what reads them, called once, when its turn has
            come: files that wait need not lie in memory.
        max_pixels: rows × columns may not exceed this.
        detect: when the lesion detector runs.
        allow_other_body_part: go on when the header names another body part than the spine.
        read: what reads the file; `sandbox.Sandbox.read` where files are not trusted. By default
            `reader.read`, in this process.
        candidates_from: also keep every box of at least this confidence, for evaluation.
        timeout_s: after so many seconds there is an error instead of an answer.

    Raises:
        SpineXRError: every refusal and failure; there is no partial answer.
    """
    if read is None:
        # Late: a server reads elsewhere, and needs no DICOM in its own memory.
        from spinexr.imaging import reader

        read = reader.read
    begun = perf_counter()
    with predictor.place(timeout_s=timeout_s):
        start = perf_counter()
        radiograph = read(
            data if isinstance(data, bytes) else data(),
            max_pixels=max_pixels,
            allow_other_body_part=allow_other_body_part,
        )
        read_ms = (perf_counter() - start) * 1000.0
        timed = predictor.predict(
            radiograph,
            detect=detect,
            candidates_from=candidates_from,
            timeout_s=max(0.0, timeout_s - (perf_counter() - begun)),
        )
    notices = radiograph.notices
    known = timed.prediction.familiarity
    if known is not None and known.unlike_training_images:
        notices = (*notices, UNFAMILIAR)
    return Analysis(
        radiograph=radiograph,
        prediction=timed.prediction,
        bundle=predictor.summary,
        engine=f"{predictor.engine.name} {predictor.engine.version}",
        device=predictor.engine.device,
        other_body_part_allowed=any(n.code == "other_body_part" for n in radiograph.notices),
        notices=notices,
        fingerprint=predictor.fingerprint,
        stage_ms=MappingProxyType({"read": read_ms, **timed.stage_ms}),
    )
