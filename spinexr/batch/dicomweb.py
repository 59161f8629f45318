"""Archives that speak DICOMweb (PS3.18): QIDO-RS finds instances, WADO-RS fetches them.

An input is an address with `dicomweb+` before it:

    dicomweb+https://pacs.example/dicom-web/studies?StudyDate=20240101-20241231
    dicomweb+https://pacs.example/dicom-web/studies/1.2.3
    dicomweb+https://pacs.example/dicom-web/studies/1.2.3/series/1.2.4
    dicomweb+https://pacs.example/dicom-web/studies/1.2.3/series/1.2.4/instances/1.2.5
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from spinexr.errors import (
    BatchError,
    ConfigurationError,
    InputError,
    SourceDeniedError,
    SourceMissingError,
    SourceTimeoutError,
    TooLargeError,
)

PREFIX: Final = "dicomweb+"
PAGE: Final = 200
_TIMEOUT_S: Final = 20.0  # without a byte
_LONGEST_FETCH_S: Final = 300.0
_MOST_ATTEMPTS: Final = 3  # where a server asks to come back (429, 503)
_LONGEST_HEADER_BYTES: Final = 64 * 1024
_ANY_SYNTAX: Final = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_PATH = re.compile(
    r"(?P<base>.*?)/studies(?:/(?P<study>[0-9.]+)(?:/series/(?P<series>[0-9.]+)"
    r"(?:/instances/(?P<instance>[0-9.]+))?)?)?/?"
)
_SCHEMES = ("Bearer", "Basic")


@dataclass(frozen=True, slots=True)
class Credentials:
    """By origin (`https://pacs.example`), the value of the Authorization header for it alone."""

    by_origin: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def read(cls, file: Path | None) -> Self:
        """Lines of `ORIGIN Bearer TOKEN` or `ORIGIN Basic USER:PASSWORD`; # begins a comment.

        Raises:
            ConfigurationError: the file cannot be read, or a line is of another kind.
        """
        if file is None:
            return cls()
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as e:
            reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8"
            raise ConfigurationError(f"{file} cannot be read: {reason}.") from e
        found = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            words = line.split(maxsplit=2)
            parts = urlsplit(words[0])
            right = parts.scheme in ("http", "https") and parts.netloc and not parts.path
            if len(words) != 3 or words[1] not in _SCHEMES or not right:
                raise ConfigurationError(
                    f"{file}, line {number}, is neither “https://HOST Bearer TOKEN” nor "
                    "“https://HOST Basic USER:PASSWORD”."
                )
            value = words[2].strip()
            if words[1] == "Basic":
                value = base64.b64encode(value.encode()).decode()
            found[words[0]] = f"{words[1]} {value}"
        return cls(found)


@dataclass(frozen=True, slots=True)
class Query:
    """What an address asks for. `base`: the service. UIDs are empty where all are meant."""

    base: str
    study: str
    series: str
    instance: str
    filters: Mapping[str, str]

    @classmethod
    def of(cls, address: str) -> Self:
        """The parts of an address.

        Raises:
            BatchError: it names no studies, or holds a password.
        """
        parts = urlsplit(address.removeprefix(PREFIX))
        if parts.username or parts.password:
            raise BatchError(
                f"{without_user(address)} holds a password, which would stand in the results: put "
                "it into the file of SPINEXR_DICOMWEB_CREDENTIALS."
            )
        path = _PATH.fullmatch(parts.path)
        if parts.scheme not in ("http", "https") or not parts.netloc or path is None:
            raise BatchError(
                f"{address} is no address of studies, such as "
                f"{PREFIX}https://HOST/dicom-web/studies?StudyDate=20240101-20241231."
            )
        base = urlunsplit((parts.scheme, parts.netloc, path["base"], "", ""))
        filters = dict(parse_qsl(parts.query, keep_blank_values=True))
        if wrong := filters.keys() & {"limit", "offset", "includefield", "fuzzymatching"}:
            raise BatchError(f"{address}: {min(wrong)} cannot be chosen.")
        study, series, instance = (path[n] or "" for n in ("study", "series", "instance"))
        return cls(base, study, series, instance, filters)

    @property
    def origin(self) -> str:
        parts = urlsplit(self.base)
        return f"{parts.scheme}://{parts.netloc}"


def is_dicomweb(address: str) -> bool:
    """Whether an address is of this kind."""
    return address.startswith(PREFIX)


def without_user(address: str) -> str:
    """The address without a user's name and password."""
    return re.sub(r"//[^/@]*@", "//", address)


class Search(Protocol):
    """A page of a search: DICOM in JSON, as dicomweb-client gives it."""

    def __call__(self, *, limit: int, offset: int) -> Sequence[Mapping[str, Any]]: ...


class Archive:
    """Services that are asked for instances. Threads may share it."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        """Services of any origin, each asked with its own credentials and no others."""
        self._credentials = credentials or Credentials()
        self._of_thread = threading.local()

    def instances(self, address: str) -> Iterator[str]:
        """The addresses of the instances that an address leads to, page by page.

        Raises:
            BatchError: the address is wrong.
            InputError: the service refuses, or does not answer.
        """
        query = Query.of(address)
        if query.instance:
            yield address
            return
        client = self._client(query)
        studies: Iterator[Mapping[str, Any]] = iter(({_STUDY: {"Value": [query.study]}},))
        if not query.study:
            search = partial(client.search_for_studies, search_filters=dict(query.filters))
            studies = _pages(search, _STUDY)
        for study in studies:
            uid = _value(study, _STUDY)
            search = partial(
                client.search_for_instances, uid, query.series or None,
                search_filters=dict(query.filters) if query.study else None,
            )  # fmt: skip
            for found in _pages(search, _INSTANCE):
                series = query.series or _value(found, _SERIES)
                instance = _value(found, _INSTANCE)
                yield (f"{PREFIX}{query.base}/studies/{uid}/series/{series}/instances/{instance}")

    def fetch(self, address: str, *, max_bytes: int) -> bytes:
        """One instance as a DICOM file.

        Raises:
            TooLargeError: it has more than `max_bytes`.
            InputError: the service refuses, or does not answer.
        """
        query = Query.of(address)
        session = self._session(query)
        url = address.removeprefix(PREFIX)
        with (
            _refusals(),
            session.get(
                url, headers={"Accept": _ANY_SYNTAX}, stream=True, timeout=_TIMEOUT_S
            ) as response,
        ):
            response.raise_for_status()
            body = _bounded(response, max_bytes + _LONGEST_HEADER_BYTES)
            data = _first_part(body, response.headers.get("Content-Type", ""))
        if len(data) > max_bytes:
            raise TooLargeError(_too_large(max_bytes))
        return data

    def _client(self, query: Query) -> Any:
        import_client()
        from dicomweb_client.web import DICOMwebClient

        client = DICOMwebClient(query.base, session=self._session(query), timeout=_TIMEOUT_S)
        client.set_http_retry_params(
            max_attempts=_MOST_ATTEMPTS, wait_exponential_multiplier=200,
            retriable_error_codes=(429, 503),
        )  # fmt: skip
        return client

    def _session(self, query: Query) -> Any:
        """One for each thread and origin: sessions keep connections, and are not shared."""
        import requests

        sessions: dict[str, requests.Session] = self._of_thread.__dict__.setdefault("sessions", {})
        if query.origin not in sessions:
            session = sessions[query.origin] = requests.Session()
            if value := self._credentials.by_origin.get(query.origin):
                session.auth = partial(_authorised, value)
        return sessions[query.origin]


def import_client() -> None:
    """Say what is missing where the package is.

    Raises:
        BatchError: dicomweb-client is not installed.
    """
    import logging

    # It logs addresses, and headers with credentials.
    logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL + 1)
    try:
        import dicomweb_client  # noqa: F401
    except ImportError as e:
        raise BatchError(
            f"DICOMweb needs the package {e.name}: pip install -r requirements-remote.txt"
        ) from e


def _authorised(value: str, request: Any) -> Any:
    """As `auth` of a session: given to this origin and not to another one it redirects to."""
    request.headers["Authorization"] = value
    return request


def _pages(search: Search, key: str) -> Iterator[Mapping[str, Any]]:
    offset, before = 0, ""
    while True:
        with _refusals():
            page = search(limit=PAGE, offset=offset)
        if not page:
            return
        first = _value(page[0], key)
        if first == before:
            raise InputError(
                "The archive gives the same page again and again: it does not know “offset”. Name "
                "fewer studies at once."
            )
        yield from page
        offset, before = offset + len(page), first


def _value(found: Mapping[str, Any], tag: str) -> str:
    """A UID of an answer, which becomes part of an address."""
    try:
        value = str(found[tag]["Value"][0])
    except (KeyError, IndexError, TypeError) as e:
        raise InputError("The archive's answer names no UID.") from e
    if not re.fullmatch(r"[0-9.]{1,64}", value):
        raise InputError("The archive's answer holds something else in the place of a UID.")
    return value


@contextmanager
def _refusals() -> Iterator[None]:
    """What a service refuses, in words and with a stable code."""
    import requests

    try:
        yield
    except (InputError, TooLargeError):
        raise
    except requests.Timeout as e:
        raise SourceTimeoutError(
            f"The archive did not answer within {_TIMEOUT_S:g} seconds. Try it again with "
            "--resume --retry-failed."
        ) from e
    except Exception as e:
        response = getattr(e, "response", None)
        if response is None and hasattr(e, "last_attempt"):  # of the package `retrying`
            response = e.last_attempt.value
        if response is not None:
            raise refusal(int(response.status_code)) from e
        if isinstance(e, (requests.RequestException, ValueError)):
            raise InputError(
                f"The archive cannot be reached, or is none ({type(e).__name__})."
            ) from e
        raise


def refusal(status: int) -> InputError:
    """What a status of HTTP means for an input."""
    if status in (401, 403):
        return SourceDeniedError(
            f"The server refuses access (HTTP {status}): check the credentials (docs/batch.md)."
        )
    if status in (404, 410):
        return SourceMissingError(f"The server does not have it (HTTP {status}).")
    if status in (408, 504):
        return SourceTimeoutError(f"The server took too long (HTTP {status}). Try it again.")
    return InputError(f"The server refuses (HTTP {status}). Try it again later.")


def _bounded(response: Any, most: int) -> bytes:
    data, end = bytearray(), time.monotonic() + _LONGEST_FETCH_S
    for piece in response.iter_content(64 * 1024):
        data += piece
        if len(data) > most:
            raise TooLargeError(_too_large(most - _LONGEST_HEADER_BYTES))
        if time.monotonic() > end:
            raise SourceTimeoutError(
                f"The archive sent for more than {_LONGEST_FETCH_S:g} seconds and was not done."
            )
    return bytes(data)


def _first_part(body: bytes, content_type: str) -> bytes:
    """The first part of a multipart message (RFC 2046), or all of one that is none."""
    from email.message import Message

    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_maintype() != "multipart":
        return body
    boundary = b"--" + str(header.get_param("boundary", "")).encode()
    start = body.find(boundary)
    begin = body.find(b"\r\n\r\n", start)
    end = body.find(b"\r\n" + boundary, begin)
    if len(boundary) == 2 or -1 in (start, begin, end):
        raise InputError("The archive's answer was cut off.")
    return body[begin + 4 : end]


def _too_large(max_bytes: int) -> str:
    from spinexr.batch import archives

    return archives.too_large(max_bytes)
