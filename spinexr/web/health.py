"""How the service is.

GET /health says which models there are, and what keeps them from answering. GET /livez and /readyz
are for whatever starts, stops and routes, GET /metrics for whatever watches.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from spinexr import __version__, stopping
from spinexr.errors import ModelsNotReadyError
from spinexr.inference.bundle import read_bundle
from spinexr.inference.predictor import Predictor
from spinexr.web.errors import retry_after_s
from spinexr.web.requests import note_error
from spinexr.web.state import state

blueprint = Blueprint("health", __name__)


@blueprint.get("/health")
def health() -> Response:
    try:
        response = jsonify(_ready(state().models.predictor()))
    except ModelsNotReadyError as e:
        response = jsonify(_not_ready(e, state().settings.weights, state().models.starting))
        response.status_code = 503
        note_error(e.code)
        response.headers["Retry-After"] = str(retry_after_s(e))
    return response


@blueprint.get("/livez")
def livez() -> Response:
    """200 as long as the process answers at all."""
    return Response("ok\n", content_type="text/plain; charset=utf-8")


@blueprint.get("/readyz")
def readyz() -> Response:
    """200 when the next radiograph can be analysed, 503 before that and once it is to stop."""
    ready = state().models.loaded is not None and not stopping.REQUESTED.is_set()
    response = Response("ready\n" if ready else "not ready\n", status=200 if ready else 503)
    response.content_type = "text/plain; charset=utf-8"
    return response


@blueprint.get("/metrics")
def metrics() -> Response:
    """Counts and times for Prometheus."""
    return Response(generate_latest(state().metrics.registry), content_type=CONTENT_TYPE_LATEST)


def _ready(predictor: Predictor) -> dict[str, Any]:
    summary = predictor.summary
    return {
        "status": "ok",
        "version": __version__,
        "bundle": {
            "name": summary.name,
            "assumed_profile": summary.assumed_profile,
            "training_data": summary.training_data.value,
            "description": summary.description,
            "caveat": summary.caveat,
        },
        "engine": {
            "name": predictor.engine.name,
            "version": predictor.engine.version,
            "device": predictor.engine.device,
            "precision": predictor.engine.precision,
            "wanted_precision": predictor.engine.wanted_precision,
            "precision_note": predictor.engine.precision_note,
            "precision_measured": predictor.engine.precision_measured,
        },
        "models": [
            {
                "name": m.name,
                "architecture": m.architecture,
                "file": m.file,
                "sha256": m.sha256,
                "loaded": True,
            }
            for m in predictor.engine.models
        ],
        "problems": [],
    }


def _not_ready(error: ModelsNotReadyError, weights: Path, starting: bool) -> dict[str, Any]:
    return {
        "status": "starting" if starting else "unavailable",
        "version": __version__,
        "bundle": None,
        "engine": None,
        "models": _expected_models(weights),
        "problems": [
            {"code": p.code, "message": p.message, "file": p.file} for p in error.problems
        ],
    }


def _expected_models(weights: Path) -> list[dict[str, Any]]:
    """The models that the manifests name, or the standard ones; none when a manifest is broken."""
    try:
        bundle = read_bundle(weights)
    except ModelsNotReadyError:
        return []
    expected = [(m.name, m.architecture, m.file) for m in bundle.ensemble.members]
    expected.append(("detector", bundle.detector.architecture, bundle.detector.file))
    return [
        {
            "name": name,
            "architecture": architecture,
            "file": bundle.relative(file),
            "sha256": None,
            "loaded": False,
        }
        for name, architecture, file in expected
    ]
