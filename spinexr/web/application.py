"""The application factory."""

from __future__ import annotations

import logging

from flask import Flask

from spinexr import DISCLAIMER, __version__, allocator, spool
from spinexr.domain import Read
from spinexr.imaging.sandbox import Sandbox
from spinexr.settings import PROJECT_ROOT, Settings
from spinexr.web import (
    errors,
    health,
    language,
    pages,
    pixels,
    presentation,
    requests,
    samples,
    security,
    upload,
)
from spinexr.web.models import Models
from spinexr.web.state import EXTENSION, State

# Multipart boundaries and field headers around a file of the largest size.
_MULTIPART_OVERHEAD_BYTES = 64 * 1024
# One file and a few options; more parts are an attack on the parser.
_MAX_FORM_PARTS = 16


def create_app(
    settings: Settings | None = None, *, models: Models | None = None, read: Read | None = None
) -> Flask:
    """Build the application and start loading its models.

    Args:
        settings: defaults to `Settings()`, not to the environment.
        models: a loader to use instead of one for `settings.weights`.
        read: what reads files, instead of a sandbox.

    Raises:
        ConfigurationError: the spool cannot be written.
    """
    settings = settings or Settings()
    allocator.give_back_freed_memory()
    app = Flask(
        "spinexr",
        root_path=str(PROJECT_ROOT),
        template_folder="templates",
        static_folder="static",
    )
    app.request_class = requests.request_class(settings.uploads)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_upload_bytes + _MULTIPART_OVERHEAD_BYTES,
        MAX_FORM_PARTS=_MAX_FORM_PARTS,
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of Flask's default provider
    _log_to_stderr(settings.log_level)
    spool.prepare(settings.uploads)
    sandbox = Sandbox(settings.sandbox_options)
    if models is None:
        models = Models.for_settings(settings, sandbox)
    app.extensions[EXTENSION] = State(settings=settings, models=models, read=read or sandbox.read)

    app.context_processor(lambda: {"disclaimer": DISCLAIMER, "version": __version__})
    language.register(app)
    presentation.register(app)
    requests.register(app)
    security.register(app, cors_origins=settings.cors_origins)
    errors.register(app)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(upload.blueprint)
    app.register_blueprint(pixels.blueprint)
    app.register_blueprint(samples.blueprint)
    app.register_blueprint(health.blueprint)
    models.start()
    return app


def _log_to_stderr(level: str) -> None:
    logger = logging.getLogger("spinexr")
    logger.setLevel(level.upper())
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
