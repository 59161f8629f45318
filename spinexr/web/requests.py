"""Requests: where their bytes wait, what is logged of them, and what is left of them (nothing)."""

from __future__ import annotations

import contextlib
import errno
import secrets
import tempfile
from pathlib import Path
from time import perf_counter
from typing import IO

import structlog
from flask import Flask, Request, Response, g, request

from spinexr import spool
from spinexr.errors import BusyError, RequestError, SlowUploadError, StorageError
from spinexr.web.state import state

_log = structlog.stdlib.get_logger("spinexr.web")

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
# A little more than the uploads that people try by mistake; beyond it the connection is cut.
_HEARD_OUT_BYTES = 64 * 1024 * 1024
_HEARD_OUT_S = 10.0
_CHUNK_BYTES = 64 * 1024
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def request_class(uploads: Path) -> type[Request]:
    """A request class whose uploaded files wait in `uploads`.

    The files have no name where the system can do that (Linux) and a random one that is removed
    at once elsewhere, so nothing survives a request, nor the process.
    """

    class SpooledRequest(Request):
        def _load_form_data(self) -> None:
            try:
                super()._load_form_data()
            except OSError as e:
                raise _unkept(e) from e

        def _get_file_stream(
            self,
            total_content_length: int | None,
            content_type: str | None,
            filename: str | None = None,
            content_length: int | None = None,
        ) -> IO[bytes]:
            # Closed by `discard`, below.
            stream = tempfile.TemporaryFile(dir=uploads, prefix=spool.PREFIX)  # noqa: SIM115
            g.setdefault("spooled", []).append(stream)
            return stream

    return SpooledRequest


def register(app: Flask) -> None:
    """Give each request a random id, and log its outcome without anything it carried."""

    @app.before_request
    def begin() -> None:
        g.request_id = secrets.token_hex(8)
        g.started = perf_counter()

    @app.teardown_request
    def discard(_error: BaseException | None) -> None:
        # Parsing may fail half-way, when no one but this holds the files that were begun.
        for stream in g.pop("spooled", ()):
            with contextlib.suppress(OSError):  # on a full disk, what was not written yet
                stream.close()

    @app.after_request
    def hear_out(response: Response) -> Response:
        _discard_body(request)
        return response

    @app.after_request
    def end(response: Response) -> Response:
        response.headers["X-Request-Id"] = g.get("request_id", "")
        took_ms = (perf_counter() - g.started) * 1000.0 if "started" in g else 0.0
        # The endpoint, not the path: a path is the client's text.
        method = request.method if request.method in _METHODS else "-"
        endpoint = request.endpoint or "-"
        code = g.get("error_code", "ok")
        _log.info(
            "request",
            request=g.get("request_id", "-"),
            method=method,
            endpoint=endpoint,
            status=response.status_code,
            code=code,
            ms=round(took_ms),
        )
        state().metrics.answered(
            endpoint=endpoint,
            method=method,
            status=response.status_code,
            code=code,
            seconds=took_ms / 1000.0,
        )
        return response


def too_many_files() -> BusyError:
    """The error where no file can be opened."""
    return BusyError("Too many files are open at once. Try again in a few seconds.")


def _unkept(error: OSError) -> BusyError | StorageError:
    if error.errno in OUT_OF_DESCRIPTORS:
        return too_many_files()
    return StorageError(
        "The server has no room to receive the file. Nothing was analysed; try again later."
    )


def _discard_body(request: Request) -> None:
    """Read what a refusal left unread.

    A client that is still sending when the connection closes gets a reset, not the answer.
    """
    if not request.environ.get("wsgi.input_terminated"):  # reading past its end would wait for ever
        return
    stream = request.environ["wsgi.input"]
    unread = _HEARD_OUT_BYTES
    deadline = perf_counter() + _HEARD_OUT_S
    # gunicorn reads on until it has all that it was asked for: its reader has a clock of its own.
    hear_out = getattr(getattr(stream, "reader", None), "hear_out", None)
    if hear_out is not None:
        hear_out(_HEARD_OUT_S)
    # The client may be gone, make no sense, or be too slow to be waited for.
    with contextlib.suppress(OSError, RequestError, SlowUploadError):
        while (
            unread > 0
            and perf_counter() < deadline
            and (chunk := stream.read(min(unread, _CHUNK_BYTES)))
        ):
            unread -= len(chunk)


def note_error(code: str) -> None:
    """Put the code of the error into the request's log line."""
    g.error_code = code
