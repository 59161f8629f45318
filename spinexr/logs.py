"""The log: one line per event, for people or as JSON, and the audit file.

Lines carry a random request id, codes, endpoints and durations, never anything a client sent.
"""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

import structlog

from spinexr.errors import ConfigurationError, StorageError

AUDIT = "spinexr.audit"
_AUDIT_BYTES = 10_000_000
_AUDIT_FILES = 5


def set_up(*, level: str, form: str, audit_file: Path | None) -> None:
    """Write what SpineXR logs to standard error, and audit lines to a file where one is wanted.

    Args:
        form: console or json.

    Raises:
        ConfigurationError: the audit file cannot be written.
    """
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    logger = logging.getLogger("spinexr")
    logger.setLevel(level.upper())
    logger.propagate = False
    _replace(logger, logging.StreamHandler(), form)
    audit = logging.getLogger(AUDIT)
    audit.setLevel(logging.INFO)
    audit.propagate = audit_file is None
    if audit_file is None:
        _replace(audit, None, form)
        return
    try:
        audit_file.parent.mkdir(parents=True, exist_ok=True)
        handler = _AuditFile(
            audit_file, maxBytes=_AUDIT_BYTES, backupCount=_AUDIT_FILES, encoding="utf-8"
        )
    except OSError as e:
        raise ConfigurationError(
            f"SPINEXR_AUDIT_FILE={audit_file} cannot be written: {e.strerror}."
        ) from e
    _replace(audit, handler, "json")


def in_form(logger: logging.Logger, form: str) -> None:
    """Have what another library logs written in the form of our own lines."""
    for handler in logger.handlers:
        handler.setFormatter(_Formatter(form))


class _AuditFile(RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        raise StorageError(
            "The audit file cannot be written, so no result is given. Whoever runs the server must "
            "make room for it; try again then."
        ) from sys.exc_info()[1]


def _replace(logger: logging.Logger, handler: logging.Handler | None, form: str) -> None:
    """Our handler in the place of the one of an earlier application; those of others stay."""
    for old in [h for h in logger.handlers if isinstance(h.formatter, _Formatter)]:
        logger.removeHandler(old)
        if isinstance(old, logging.FileHandler):
            old.close()
    if handler is not None:
        handler.setFormatter(_Formatter(form))
        logger.addHandler(handler)


class _Formatter(structlog.stdlib.ProcessorFormatter):
    def __init__(self, form: str) -> None:
        stamped: list[structlog.types.Processor] = [
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ]
        last: structlog.types.Processor = (
            structlog.processors.JSONRenderer(ensure_ascii=False)
            if form == "json"
            else structlog.dev.ConsoleRenderer(colors=False, pad_event_to=0)
        )
        super().__init__(
            foreign_pre_chain=stamped,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *stamped,
                structlog.processors.format_exc_info,
                last,
            ],
        )
