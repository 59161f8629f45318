"""The one mapping from exceptions to HTTP answers: problem+json (RFC 9457) or a page."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from flask import Flask, Response, g, jsonify, render_template, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from spinexr.errors import (
    AccessError,
    BusyError,
    ConfigurationError,
    DeadlineError,
    ForbiddenError,
    InputError,
    MethodNotAllowedError,
    ModelsNotReadyError,
    NodeError,
    NotDicomError,
    NotFoundError,
    NotReadyError,
    RateLimitError,
    RequestError,
    SlowUploadError,
    SpineXRError,
    StorageError,
    TooLargeError,
    UnanalysableError,
)
from spinexr.faults import describe
from spinexr.web.requests import OUT_OF_DESCRIPTORS, note_error, too_many_files
from spinexr.web.state import state

_log = structlog.stdlib.get_logger("spinexr.web")

STATUS_OF_FAMILY: dict[type[SpineXRError], HTTPStatus] = {
    AccessError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    SlowUploadError: HTTPStatus.REQUEST_TIMEOUT,
    RateLimitError: HTTPStatus.TOO_MANY_REQUESTS,
    # Some before their families
    StorageError: HTTPStatus.INSUFFICIENT_STORAGE,
    NotFoundError: HTTPStatus.NOT_FOUND,
    MethodNotAllowedError: HTTPStatus.METHOD_NOT_ALLOWED,
    RequestError: HTTPStatus.BAD_REQUEST,
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    NotDicomError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    UnanalysableError: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    ConfigurationError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
# Of batches and of the DICOM node.
NEVER_ANSWERED = (InputError, NodeError)
_RETRY_AFTER_BUSY_S = 2
_RETRY_AFTER_RATE_S = 10
_RETRY_AFTER_STARTING_S = 10
_RETRY_AFTER_BROKEN_S = 300  # somebody has to mend it first


def register(app: Flask) -> None:
    """Answer every exception here and nowhere else."""
    app.register_error_handler(SpineXRError, _refusal)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _fault)


def status_of(error: SpineXRError) -> HTTPStatus:
    """The HTTP status of the error's family."""
    for family, status in STATUS_OF_FAMILY.items():
        if isinstance(error, family):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def too_large() -> TooLargeError:
    """The error for more bytes than the setting allows."""
    limit = state().settings.max_upload_mb
    return TooLargeError(
        f"The file is larger than {limit} MB, the most that is accepted. Export it compressed, as "
        "JPEG 2000 or JPEG-LS, or ask whoever runs SpineXR to allow more."
    )


def _refusal(error: SpineXRError) -> Response:
    problems = error.problems if isinstance(error, ModelsNotReadyError) else ()
    response = _answer(
        status_of(error),
        error.code,
        error.title,
        error.message,
        [{"code": p.code, "message": p.message, "file": p.file} for p in problems],
    )
    if isinstance(error, NotReadyError):
        response.headers["Retry-After"] = str(retry_after_s(error))
    elif isinstance(error, RateLimitError):
        response.headers["Retry-After"] = str(_RETRY_AFTER_RATE_S)
    elif isinstance(error, AccessError):
        response.headers["WWW-Authenticate"] = 'Bearer realm="SpineXR"'
    return response


def retry_after_s(error: NotReadyError) -> int:
    """Seconds after which a client may sensibly ask again."""
    if isinstance(error, BusyError | DeadlineError | StorageError):
        return _RETRY_AFTER_BUSY_S
    return _RETRY_AFTER_STARTING_S if state().models.starting else _RETRY_AFTER_BROKEN_S


def _http_error(error: HTTPException) -> Response:
    if isinstance(error, RequestEntityTooLarge):
        # Also raised for too many form parts and for form fields of many bytes; a body that does
        # not announce its length is taken to be the common case.
        length = request.content_length
        if length is None or length > state().settings.max_upload_bytes:
            return _refusal(too_large())
        return _refusal(RequestError("The form has more or longer fields than a file and options."))
    status = HTTPStatus(error.code or 500)
    if status == HTTPStatus.NOT_FOUND:
        response = _refusal(NotFoundError("Check the address, or go to the start."))
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        response = _refusal(MethodNotAllowedError(_of_other_methods(request.method)))
    else:
        response = _answer(
            status,
            status.phrase.lower().replace(" ", "_").replace("-", "_"),
            status.phrase,
            error.description or status.description,
            [],
        )
    for name, value in error.get_headers():
        if name in ("Allow", "Retry-After"):
            response.headers[name] = value
    return response


def _of_other_methods(method: str) -> str:
    if method in ("GET", "HEAD"):
        return (
            "It takes files and shows nothing by itself. Results are shown once and have no "
            "address of their own: choose the file again."
        )
    return f"{method} does nothing here; the header Allow names what does."


def _fault(error: Exception) -> Response:
    if isinstance(error, OSError) and error.errno in OUT_OF_DESCRIPTORS:
        return _refusal(too_many_files())
    _log.error("fault", request=g.get("request_id", "-"), fault=describe(error))
    return _answer(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal_error",
        "Something went wrong on the server",
        "No result was produced. Try again; if it happens again, report it with the request id "
        f"{g.get('request_id', '-')}.",
        [],
    )


def _answer(
    status: HTTPStatus, code: str, title: str, detail: str, problems: list[dict[str, str | None]]
) -> Response:
    note_error(code)
    if wants_page():
        page = render_template(
            "error.html", status=status.value, code=code, title=title, detail=detail,
            problems=problems,
        )  # fmt: skip
        response = Response(page, status=status, content_type="text/html; charset=utf-8")
    else:
        body: dict[str, object] = {
            "type": "about:blank",
            "status": status.value,
            "code": code,
            "title": title,
            "detail": detail,
        }
        if problems:
            body["problems"] = problems
        response = jsonify(body)
        response.status_code = status.value
        response.content_type = "application/problem+json"
    response.vary.add("Accept")
    return response


def wants_page() -> bool:
    """Browsers name text/html; `*/*` alone is a program."""
    accept = request.accept_mimetypes
    page = max((q for value, q in accept if value in ("text/html", "text/*")), default=0.0)
    return page > 0 and page >= max(accept["application/json"], accept["application/problem+json"])
