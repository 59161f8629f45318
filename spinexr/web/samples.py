"""GET /samples: phantom radiographs to try, analysed by one click and without JavaScript."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from flask import Blueprint, Response, abort, jsonify, render_template, request, send_file, url_for

from spinexr.settings import PROJECT_ROOT
from spinexr.web.analysing import analysed
from spinexr.web.state import state
from spinexr.web.upload import answer, wanted_type

blueprint = Blueprint("samples", __name__, url_prefix="/samples")

FOLDER = PROJECT_ROOT / "samples"


@dataclass(frozen=True, slots=True)
class Sample:
    """One phantom that ships with the project; `findings` are the classes drawn into it."""

    name: str
    title: str
    findings: tuple[str, ...]

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.dcm"


@cache
def shipped() -> tuple[Sample, ...]:
    """The samples of this installation; none where the folder was left out."""
    try:
        index = json.loads((FOLDER / "index.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    samples = (Sample(s["name"], s["title"], tuple(s["findings"])) for s in index)
    return tuple(s for s in samples if s.file.is_file())


@blueprint.get("")
def listing() -> Response:
    if wanted_type(request, "text/html", "application/json") == "application/json":
        response = jsonify(
            samples=[
                {
                    "name": s.name,
                    "title": s.title,
                    "findings": list(s.findings),
                    "file": url_for("samples.file", name=s.name),
                }
                for s in shipped()
            ]
        )
    else:
        loaded = state().models.loaded
        page = render_template(
            "samples.html", samples=shipped(), bundle=loaded.summary if loaded else None
        )
        response = Response(page)
    response.vary.add("Accept")
    return response


@blueprint.get("/<name>")
def file(name: str) -> Response:
    return send_file(_find(name).file, mimetype="application/dicom", as_attachment=True)


@blueprint.post("/<name>")
def analyse(name: str) -> Response:
    data = _find(name).file.read_bytes()
    return answer(analysed(data, detect=state().settings.detect_policy))


def _find(name: str) -> Sample:
    found = [s for s in shipped() if s.name == name]
    return found[0] if found else abort(404)
