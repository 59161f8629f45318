"""POST /pixels: one radiograph in, its stored values out, for the viewer of the page."""

from __future__ import annotations

from flask import Blueprint, Response, request

from spinexr.reporting import pixels
from spinexr.web.state import state
from spinexr.web.upload import parse

blueprint = Blueprint("pixels", __name__)


@blueprint.post("/pixels")
def stored_values() -> Response:
    settings = state().settings
    wanted = parse(request, settings.max_upload_bytes, settings.detect_policy)
    # Pixels are read in the places of analyses: what holds for those holds for their memory.
    with state().models.predictor().place(timeout_s=settings.request_timeout_s):
        radiograph = state().read(
            wanted.contents(),
            max_pixels=settings.max_pixels,
            allow_other_body_part=wanted.allow_other_body_part,
        )
        body = pixels.encode(radiograph)
    return Response(body, content_type=pixels.MEDIA_TYPE)
