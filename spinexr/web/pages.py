"""GET /: the page to drop a radiograph on."""

from __future__ import annotations

from flask import Blueprint, render_template

from spinexr.errors import ModelsNotReadyError
from spinexr.web import samples
from spinexr.web.state import state
from spinexr.web.upload import ACCEPTED_EXTENSIONS

blueprint = Blueprint("pages", __name__)


@blueprint.get("/")
def index() -> str:
    bundle, trouble = None, None
    try:
        bundle = state().models.predictor().summary
    except ModelsNotReadyError as e:
        trouble = e
    return render_template(
        "index.html",
        bundle=bundle,
        trouble=trouble,
        starting=state().models.starting,
        max_upload_mb=state().settings.max_upload_mb,
        max_upload_bytes=state().settings.max_upload_bytes,
        extensions=ACCEPTED_EXTENSIONS,
        samples=samples.shipped() if bundle else (),
    )
