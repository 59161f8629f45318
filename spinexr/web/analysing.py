"""One analysis of the web: what all its ways in share."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import structlog
from flask import g

from spinexr.analysis import analyse
from spinexr.domain import Analysis, DetectPolicy
from spinexr.errors import SpineXRError
from spinexr.logs import AUDIT
from spinexr.web.state import state

_audit = structlog.stdlib.get_logger(AUDIT)


def analysed(
    data: bytes | Callable[[], bytes],
    *,
    detect: DetectPolicy,
    allow_other_body_part: bool = False,
) -> Analysis:
    """The analysis of a file within the deployer's limits, counted and written down.

    Args: those of `spinexr.analysis.analyse`.

    Raises:
        SpineXRError: every refusal and failure.
    """
    now = state()
    predictor = now.models.predictor()
    start = perf_counter()
    outcome = "internal_error"
    try:
        analysis = analyse(
            data,
            predictor=predictor,
            max_pixels=now.settings.max_pixels,
            detect=detect,
            allow_other_body_part=allow_other_body_part,
            read=now.read,
            timeout_s=now.settings.request_timeout_s,
        )
        outcome = analysis.prediction.decision
    except SpineXRError as e:
        outcome = e.code
        raise
    finally:
        _audit.info(
            "analysis",
            request=g.get("request_id", "-"),
            bundle=predictor.fingerprint,
            outcome=outcome,
            ms=round((perf_counter() - start) * 1000.0),
        )
    now.metrics.analysed(analysis)
    return analysis
