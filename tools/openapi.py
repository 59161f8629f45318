"""Write docs/openapi.json: what the real routes take and answer.

    python -m tools.openapi

Routes, methods and error codes come from the application itself; a route that is not described here
is an error, and so is a description without a route.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flask import Flask

from spinexr import __version__
from spinexr.domain import DetectPolicy, ObjectKind
from spinexr.errors import SpineXRError, all_error_classes
from spinexr.settings import Settings
from spinexr.web import create_app
from spinexr.web.errors import status_of
from spinexr.web.samples import shipped

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "docs/openapi.json"
_ANALYSIS = ROOT / "docs/schema/analysis-1.schema.json"

_PAGE = {"text/html": {"schema": {"type": "string"}}}
_PLAIN = {"text/plain": {"schema": {"type": "string"}}}
_RESULT = {
    "application/json": {"schema": {"$ref": "#/components/schemas/Analysis"}},
    "image/png": {"schema": {}},
    "application/dicom": {"schema": {}},
    "multipart/related": {"schema": {}},
    **_PAGE,
}
_FILE = {"type": "string", "format": "binary", "description": "One DICOM file"}
_SWITCH = {"type": "string", "enum": ["", "0", "1"]}
_OPTIONS = {
    "detect": {"type": "string", "enum": ["", *DetectPolicy]},
    "allow_other_body_part": _SWITCH,
    "activation_map": _SWITCH,
    "grouping_key": {"type": "string", "maxLength": 128},
    "object": {"type": "string", "enum": ["", *ObjectKind]},
}
_NAME = {
    "name": "name", "in": "path", "required": True,
    "schema": {"type": "string", "enum": [s.name for s in shipped()]},
}  # fmt: skip


def _form(**fields: object) -> dict[str, Any]:
    return {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": _FILE, **fields},
                }
            }
        },
    }


# (summary, body, parameters, status → content of a success, statuses of refusals)
_COMMON = (400, 401, 403, 404, 405, 408, 413, 429, 500, 503)
_OF_FILES = (*_COMMON, 415, 422, 507)
_ROUTES: dict[str, dict[str, Any]] = {
    "pages.index": {"summary": "The page", "answers": {200: _PAGE}},
    "upload.upload": {
        "summary": "Analyse one radiograph", "body": _form(**_OPTIONS), "answers": {200: _RESULT},
        "refusals": _OF_FILES,
    },
    "pixels.stored_values": {
        "summary": "The stored values of one radiograph",
        "body": _form(allow_other_body_part=_SWITCH),
        "answers": {200: {"application/vnd.spinexr.pixels": {"schema": {}}}},
        "refusals": _OF_FILES,
    },
    "samples.listing": {
        "summary": "The phantoms that ship with the project",
        "answers": {200: {"application/json": {"schema": {"$ref": "#/components/schemas/Samples"}},
                          **_PAGE}},
    },
    "samples.file": {
        "summary": "A phantom's file", "parameters": [_NAME],
        "answers": {200: {"application/dicom": {"schema": {}}}},
    },
    "samples.analyse": {
        "summary": "Analyse a phantom", "parameters": [_NAME], "answers": {200: _RESULT},
        "refusals": _OF_FILES,
    },
    "health.health": {
        "summary": "Which models answer, and what keeps them from it",
        "answers": {
            status: {"application/json": {"schema": {"$ref": "#/components/schemas/Health"}}}
            for status in (200, 503)
        },
    },
    "health.livez": {"summary": "Whether the process answers", "answers": {200: _PLAIN}},
    "health.readyz": {"summary": "Whether the next radiograph can be analysed",
                      "answers": {200: _PLAIN, 503: _PLAIN}},
    "health.metrics": {"summary": "Counts and times for Prometheus", "answers": {200: _PLAIN}},
    "language.choose": {
        "summary": "Choose the page's language", "answers": {303: _PAGE},
        "parameters": [{"name": "code", "in": "path", "required": True,
                        "schema": {"type": "string", "enum": ["en", "vi"]}}],
    },
    "access.login": {"summary": "The page to log in", "answers": {200: _PAGE}},
    "access.enter": {
        "summary": "Log in", "answers": {303: _PAGE, 401: _PAGE},
        "body": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": {
            "type": "object", "required": ["token"], "properties": {"token": {"type": "string"}},
        }}}},
    },
    "access.leave": {"summary": "Log out", "answers": {303: _PAGE}},
}  # fmt: skip
_SAMPLES = {
    "type": "object",
    "required": ["samples"],
    "properties": {
        "samples": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "title", "findings", "file"],
                "properties": {
                    "name": {"type": "string"},
                    "title": {"type": "string"},
                    "findings": {"type": "array", "items": {"type": "string"}},
                    "file": {"type": "string"},
                },
            },
        }
    },
}
_PROBLEMS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["code", "message", "file"],
        "properties": {
            "code": {"type": "string"},
            "message": {"type": "string"},
            "file": {"type": ["string", "null"]},
        },
    },
}
_HEALTH = {
    "type": "object",
    "required": ["status", "version", "bundle", "engine", "models", "problems"],
    "properties": {
        "status": {"enum": ["ok", "starting", "unavailable"]},
        "version": {"type": "string"},
        "bundle": {"type": ["object", "null"]},
        "engine": {"type": ["object", "null"]},
        "models": {"type": "array", "items": {"type": "object"}},
        "problems": _PROBLEMS,
    },
}


def main() -> None:
    """Rewrite docs/openapi.json."""
    FILE.write_text(as_text(), encoding="utf-8")


def as_text() -> str:
    """The document as it is kept."""
    with tempfile.TemporaryDirectory() as folder:
        described = document(_application(Path(folder)))
    return json.dumps(described, indent=1, ensure_ascii=False) + "\n"


def document(app: Flask) -> dict[str, Any]:
    """The OpenAPI document of an application's routes.

    Raises:
        LookupError: a route is not described, or a description has no route.
    """
    paths: dict[str, dict[str, Any]] = {}
    met = set()
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        met.add(rule.endpoint)
        path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            paths.setdefault(path, {})[method.lower()] = _operation(_ROUTES[rule.endpoint])
    if missing := _ROUTES.keys() - met:
        raise LookupError(f"described, but no routes: {sorted(missing)}")
    analysis = json.loads(
        _ANALYSIS.read_text(encoding="utf-8").replace("#/$defs/", "#/components/schemas/")
    )
    definitions = analysis.pop("$defs")
    analysis.pop("$schema")
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SpineXR",
            "version": __version__,
            "description": "Research software and never a diagnosis.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {
                "Analysis": analysis, **definitions, "Samples": _SAMPLES, "Health": _HEALTH,
                "Problem": _problem(all_error_classes()),
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        # Nobody is asked where the deployer has no file of tokens.
        "security": [{}, {"token": []}],
    }  # fmt: skip


def _operation(route: dict[str, Any]) -> dict[str, Any]:
    problem = {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}},
        **_PAGE,
    }
    responses = {
        str(status): {"description": "Refused: `code` says why", "content": problem}
        for status in sorted(route.get("refusals", _COMMON))
    }
    for status, content in route["answers"].items():
        both = content | problem if str(status) in responses else content
        responses[str(status)] = {"description": "Answered", "content": both}
    operation = {"summary": route["summary"], "responses": dict(sorted(responses.items()))}
    for key, name in (("parameters", "parameters"), ("body", "requestBody")):
        if key in route:
            operation[name] = route[key]
    return operation


def _problem(classes: Iterable[type[SpineXRError]]) -> dict[str, Any]:
    codes = sorted({c.code for c in classes if status_of(c("")) != 500})
    return {
        "type": "object",
        "required": ["type", "status", "code", "title", "detail"],
        "properties": {
            "type": {"const": "about:blank"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "code": {"type": "string", "description": "Among others: " + ", ".join(codes)},
            "title": {"type": "string"},
            "detail": {"type": "string"},
            "problems": _PROBLEMS,
        },
    }


def _application(folder: Path) -> Flask:
    """One with all routes, those of tokens too."""
    from spinexr import tokens
    from spinexr.web.models import Models

    file = folder / "tokens"
    file.write_text(tokens.line("anybody", tokens.new()), encoding="utf-8")
    settings = Settings(uploads=folder / "uploads", tokens_file=file, log_level="error")

    class Unloaded(Models):
        def start(self) -> None:
            """Nothing is analysed here."""

    def load() -> Any:
        raise AssertionError("nothing is loaded for a document")

    return create_app(settings, models=Unloaded(load))


if __name__ == "__main__":
    main()
