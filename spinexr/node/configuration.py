"""The node's file: who may send, where objects go, and which."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import SplitResult, urlsplit

from spinexr.domain import ObjectKind
from spinexr.errors import ConfigurationError, all_error_classes

# About a day of attempts five minutes apart, the longest pause.
_ATTEMPTS = 300
_TIMEOUT_S = 30
_AE_TITLE = re.compile(r"[^\\\x00-\x1f\x7f-\uffff]{1,16}")  # PS3.5 section 6.2, AE
_DICOM, _WEB = ("dicom", "dicoms"), ("http", "https")


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a TLS connection.

    certificate, key: what this side shows.
    authority: whose certificates the other side has to show; the system's on the way out, and
        none on the way in, by default.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None


@dataclass(frozen=True, slots=True)
class Destination:
    """Where objects go, and which radiographs' objects go there: those that meet every condition
    given; an empty one is met by all.

    scheme: dicom, dicoms, http or https.
    secret: password, or token where there is no user.
    """

    name: str
    scheme: str
    host: str
    port: int
    path: str
    ae_title: str
    objects: tuple[ObjectKind, ...]
    modalities: frozenset[str]
    body_parts: frozenset[str]
    callers: frozenset[str]
    deidentify: bool
    timeout_s: int
    attempts: int
    tls: Tls
    user: str
    secret: str

    def __repr__(self) -> str:
        return f"Destination({self.name})"  # a secret must not get into a log

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    def wants(self, *, modality: str, body_part: str, caller: str) -> bool:
        """Whether it gets the objects of such a radiograph."""
        given = (
            (self.modalities, modality), (self.body_parts, body_part), (self.callers, caller),
        )  # fmt: skip
        return all(not allowed or value.strip().upper() in allowed for allowed, value in given)


@dataclass(frozen=True, slots=True)
class Configuration:
    """What the file says.

    callers: AE titles that may send.
    dropped: codes of refusals that are not worth a dead letter.
    tls: None for connections in the clear.
    """

    callers: tuple[str, ...]
    destinations: tuple[Destination, ...]
    dropped: frozenset[str]
    tls: Tls | None

    @property
    def asks_for_certificates(self) -> bool:
        return self.tls is not None and self.tls.authority is not None


def read(file: Path | None) -> Configuration:
    """The configuration in a TOML file; files that it names are looked for beside it.

    Raises:
        ConfigurationError: it cannot be read, or something in it is not valid; says what.
    """
    if file is None:
        raise ConfigurationError(
            "The node needs a file that says who may send and where objects go: set "
            "SPINEXR_NODE_CONFIG (docs/how-to/pacs-node.md has an example)."
        )
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise ConfigurationError(f"SPINEXR_NODE_CONFIG={file} cannot be read: {e.strerror}.") from e
    except ValueError as e:
        raise ConfigurationError(f"SPINEXR_NODE_CONFIG={file} is not TOML: {e}.") from e
    return _configuration(_Table(document, file, ""))


def _configuration(table: _Table) -> Configuration:
    callers = table.texts("callers")
    if not callers:
        table.refuse("callers", "must name at least one AE title that may send")
    for title in callers:
        _check_ae_title(table, "callers", title)
    dropped = table.texts("drop")
    known = {cls.code for cls in all_error_classes()}
    for code in dropped:
        if code not in known:
            table.refuse("drop", f"{code!r} is not an error code")
    tls = table.table("tls")
    destinations = tuple(_destination(t) for t in table.tables("destinations"))
    if not destinations:
        table.refuse("destinations", "must have at least one entry")
    for number, destination in enumerate(destinations, 1):
        if strange := destination.callers - _upper(callers):
            where = f"destinations {number}: callers"
            table.refuse(where, f"{min(strange)!r} is not among those that may send")
    names = [d.name for d in destinations]
    if twice := {n for n in names if names.count(n) > 1}:
        table.refuse("destinations", f"two have the name {min(twice)!r}")
    found = Configuration(
        callers=callers,
        destinations=destinations,
        dropped=frozenset(dropped),
        tls=_server_tls(tls) if tls is not None else None,
    )
    table.finish()
    return found


def _server_tls(table: _Table) -> Tls:
    tls = Tls(table.file("certificate"), table.file("key"), table.file("clients"))
    for name, value in (("certificate", tls.certificate), ("key", tls.key)):
        if value is None:
            table.refuse(name, "is needed for TLS")
    table.finish()
    return tls


def _destination(table: _Table) -> Destination:
    name = table.text("name")
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,31}", name):
        table.refuse("name", "must have 1 to 32 small letters, digits, dashes or _")
    address = table.text("address")
    parts, port = _split(table, address)
    kinds = table.texts("objects") or _default_kinds(table)
    for kind in kinds:
        if kind not in set(ObjectKind):
            table.refuse("objects", f"{kind!r} is not one of {', '.join(ObjectKind)}")
    deidentify = table.switch("deidentify")
    if deidentify and ObjectKind.PICTURE in kinds:
        table.refuse("objects", "picture may have a name burned in, so it is never de-identified")
    user, secret = table.text("user", ""), _secret(table)
    if bool(user) != (table.get("password_file") is not None):
        table.refuse("password_file", "goes with user, and user with it; token_file with neither")
    if parts.scheme in _DICOM and secret:
        table.refuse("address", "logins are for http and https; dicoms has certificates")
    tls = Tls(table.file("certificate"), table.file("key"), table.file("authority"))
    if parts.scheme in ("dicom", "http") and tls != Tls():
        table.refuse("address", "certificates are for dicoms and https")
    found = Destination(
        name=name,
        scheme=parts.scheme,
        host=parts.hostname or "",
        port=port,
        path=parts.path.rstrip("/"),
        ae_title=parts.username or "",
        objects=tuple(ObjectKind(kind) for kind in kinds),
        modalities=_upper(table.texts("modalities")),
        body_parts=_upper(table.texts("body_parts")),
        callers=_upper(table.texts("callers")),
        deidentify=deidentify,
        timeout_s=table.number("timeout_s", _TIMEOUT_S, 1, 3600),
        attempts=table.number("attempts", _ATTEMPTS, 1, 1_000_000),
        tls=tls,
        user=user,
        secret=secret,
    )
    table.finish()
    return found


def _default_kinds(table: _Table) -> tuple[str, ...]:
    left_out = (ObjectKind.PICTURE,) if table.get("deidentify") else ()
    return tuple(kind.value for kind in ObjectKind if kind not in left_out)


def _split(table: _Table, address: str) -> tuple[SplitResult, int]:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as e:
        table.refuse("address", f"{address!r} is no address ({e})")
    if parts.scheme not in _DICOM + _WEB or not parts.hostname or parts.query or parts.fragment:
        table.refuse(
            "address",
            f"{address!r} must look like dicom://AE_TITLE@host:port, dicoms://… or "
            "https://host/dicom-web",
        )
    if parts.password is not None:
        table.refuse("address", "must hold no password: use user and password_file")
    if parts.scheme in _DICOM:
        if not parts.username or port is None or parts.path:
            table.refuse("address", f"{address!r} must look like dicom://AE_TITLE@host:port")
        _check_ae_title(table, "address", parts.username)
        return parts, port
    if parts.username:
        table.refuse("address", "must hold no user: use user and password_file")
    return parts, port or {"http": 80, "https": 443}[parts.scheme]


def _secret(table: _Table) -> str:
    files = [table.file(name) for name in ("password_file", "token_file")]
    given = [f for f in files if f is not None]
    if len(given) > 1:
        table.refuse("token_file", "stands in the place of user and password_file")
    if not given:
        return ""
    secret = given[0].read_text(encoding="utf-8").strip()
    if not secret or not secret.isprintable():
        table.refuse("password_file", f"{given[0]} must hold one line")
    return secret


def _check_ae_title(table: _Table, name: str, title: str) -> None:
    if not _AE_TITLE.fullmatch(title) or title != title.strip() or not title:
        table.refuse(name, f"{title!r} is no AE title (1 to 16 characters)")


def _upper(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value.strip().upper() for value in values)


class _Table:
    """A table of the document that knows its place, and what of it nobody asked for."""

    def __init__(self, values: Mapping[str, Any], file: Path, place: str) -> None:
        self._values, self._file, self._place = values, file, place
        self._asked: set[str] = set()

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raises: ConfigurationError."""
        raise ConfigurationError(f"{self._file}: {self._place}{name}: {why}.")

    def get(self, name: str) -> Any:
        self._asked.add(name)
        return self._values.get(name)

    def text(self, name: str, default: str | None = None) -> str:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not value:
            self.refuse(name, "must be a text")
        return str(value)

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.get(name)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            self.refuse(name, "must be a list of texts")
        return tuple(value)

    def number(self, name: str, default: int, lowest: int, highest: int) -> int:
        value = self.get(name)
        if value is None:
            return default
        if type(value) is not int or not lowest <= value <= highest:
            self.refuse(name, f"must be a whole number from {lowest} to {highest}")
        return int(value)

    def switch(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool | None):
            self.refuse(name, "must be true or false")
        return bool(value)

    def file(self, name: str) -> Path | None:
        """A file that can be read."""
        if self.get(name) is None:
            return None
        file = self._file.parent / Path(self.text(name)).expanduser()
        try:
            with file.open("rb"):
                pass
        except OSError as e:
            self.refuse(name, f"{file} cannot be read ({e.strerror})")
        return file

    def table(self, name: str) -> _Table | None:
        value = self.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.refuse(name, "must be a table")
        return _Table(value, self._file, f"{self._place}{name}.")

    def tables(self, name: str) -> list[_Table]:
        value = self.get(name) or []
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            self.refuse(name, f"must be tables, each begun with [[{name}]]")
        return [_Table(v, self._file, f"{name} {i}: ") for i, v in enumerate(value, 1)]

    def finish(self) -> None:
        """That everything in it was asked for."""
        if unknown := sorted(self._values.keys() - self._asked):
            self.refuse(unknown[0], "is not known here")
