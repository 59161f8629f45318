"""The application factory."""

from __future__ import annotations

import structlog
from flask import Flask

from spinexr import DISCLAIMER, __version__, allocator, logs, memory, spool
from spinexr.domain import Read
from spinexr.imaging.sandbox import Sandbox
from spinexr.reporting import codes
from spinexr.settings import PROJECT_ROOT, Settings
from spinexr.tokens import read as read_tokens
from spinexr.web import (
    access,
    errors,
    health,
    language,
    metrics,
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

_log = structlog.stdlib.get_logger("spinexr.web")

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
        ConfigurationError: the spool or the audit file cannot be written, or the tokens or codes
            not read.
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
    logs.set_up(level=settings.log_level, form=settings.log_format, audit_file=settings.audit_file)
    tokens = read_tokens(settings.tokens_file) if settings.tokens_file else None
    spool.prepare(settings.uploads)
    sandbox = Sandbox(settings.sandbox_options)
    if models is None:
        models = Models.for_settings(settings, sandbox)
    app.extensions[EXTENSION] = State(
        settings=settings,
        models=models,
        read=read or sandbox.read,
        metrics=metrics.Metrics(ready=lambda: models.loaded, restarts=lambda: sandbox.lost),
        codes=codes.read(settings.codes),
        tokens=tokens,
    )
    if settings.open_to_others:
        _log.warning("anyone who reaches this address can use it", host=settings.host)
    if too_little := memory.shortage(memory.available_mb()):
        _log.warning("little memory", why=too_little)

    app.context_processor(
        lambda: {
            "disclaimer": DISCLAIMER,
            "version": __version__,
            "open_to_others": settings.open_to_others,
        }
    )
    language.register(app)
    presentation.register(app)
    requests.register(app)
    security.register(app, settings)
    access.register(app, tokens)
    errors.register(app)
    app.register_blueprint(pages.blueprint)
    app.register_blueprint(upload.blueprint)
    app.register_blueprint(pixels.blueprint)
    app.register_blueprint(samples.blueprint)
    app.register_blueprint(health.blueprint)
    security.limit_rates(app, settings)
    models.start()
    return app
