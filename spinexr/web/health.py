"""GET /health: 200 only when every model has answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify

from spinexr import __version__
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
