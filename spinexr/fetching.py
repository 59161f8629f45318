"""Fetching one file from the network: whole, as expected, or not at all."""

from __future__ import annotations

import hashlib
import ipaddress
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

import requests
import urllib3

from spinexr.errors import ConfigurationError

_STALL_S = 30.0  # without a byte
_CHUNK_BYTES = 1 << 20
_TRIES = 5
_PAUSE_S = 1.0  # before the first new try; doubled each time

Progress = Callable[[str, int, int], None]  # what, bytes done, of how many


def fetch(
    url: str,
    file: Path,
    *,
    sha256: str,
    largest_bytes: int,
    progress: Progress = lambda _what, _done, _total: None,
    stall_s: float = _STALL_S,
    pause_s: float = _PAUSE_S,
) -> None:
    """Fetch a file, go on where an earlier try was cut off, and compare its SHA-256.

    Args:
        url: https, or file; http to this machine only.
        file: where it goes; `.part` beside it holds what has come so far.
        sha256: what it must have, 64 hexadecimal digits.
        largest_bytes: more are not taken, whatever the server says.

    Raises:
        ConfigurationError: another address, a refusal, too many bytes, another SHA-256, or a
            connection that fails again and again. `file` is then as it was.
    """
    parts = urlsplit(url)
    if file.exists():
        raise ConfigurationError(f"{file} exists: remove it, or choose another --out.")
    part = file.with_name(f"{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if parts.scheme == "file" and not parts.netloc:
            _copy(Path(unquote(parts.path)), part, largest_bytes)
        elif parts.scheme == "https" or (parts.scheme == "http" and _is_here(parts.hostname)):
            _download(url, part, largest_bytes, progress, stall_s, pause_s)
        else:
            raise ConfigurationError(f"{url} is no address to fetch from: use https or file.")
        _compare(part, sha256.lower(), url)
        part.replace(file)
    except OSError as e:
        raise ConfigurationError(f"{file} cannot be written: {e.strerror or e}.") from e


def _download(
    url: str, part: Path, largest_bytes: int, progress: Progress, stall_s: float, pause_s: float
) -> None:
    trouble = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            if _go_on(url, part, largest_bytes, progress, stall_s):
                return
            trouble = "the connection ended early"
        except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
            trouble = type(e).__name__
    have = part.stat().st_size if part.exists() else 0
    raise ConfigurationError(
        f"{url} could not be fetched in {_TRIES} tries ({trouble}); {have:,} bytes are kept in "
        f"{part.name}, and the same command goes on from there."
    )


def _go_on(url: str, part: Path, largest_bytes: int, progress: Progress, stall_s: float) -> bool:
    """One try; whether all bytes are there."""
    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(
        url, headers=headers, stream=True, timeout=stall_s, allow_redirects=True
    ) as response:
        if response.status_code == 416 and have:  # what there is, is all there is, or not of it
            return True
        if response.status_code not in (200, 206):
            raise ConfigurationError(f"{url} was answered with status {response.status_code}.")
        if urlsplit(response.url).scheme != urlsplit(url).scheme:
            raise ConfigurationError(f"{url} leads to {response.url}, which is no https.")
        if response.status_code == 200:
            have = 0  # the server does not go on from the middle
        announced = response.headers.get("Content-Length", "")
        total = have + int(announced) if announced.isdigit() else 0
        _limit(total, largest_bytes, url)
        with part.open("ab" if have else "wb") as stream:
            # As it comes: a chunk that has to be full would be lost when the connection is.
            while chunk := response.raw.read1(_CHUNK_BYTES):
                have += len(chunk)
                _limit(have, largest_bytes, url)
                stream.write(chunk)
                progress(f"Fetching {part.stem}", have, max(total, have))
    return not total or have == total


def _limit(size: int, largest_bytes: int, url: str) -> None:
    if size > largest_bytes:
        raise ConfigurationError(
            f"{url} has more than {largest_bytes:,} bytes, the most that are taken; raise "
            "--limit-mb if it is meant."
        )


def _copy(source: Path, part: Path, largest_bytes: int) -> None:
    if not source.is_file():
        raise ConfigurationError(f"{source} is not a file.")
    _limit(source.stat().st_size, largest_bytes, str(source))
    shutil.copyfile(source, part)


def _compare(part: Path, sha256: str, url: str) -> None:
    with part.open("rb") as stream:
        found = _digest(stream)
    if found != sha256:
        part.unlink()
        raise ConfigurationError(
            f"What came from {url} has the SHA-256 {found}, not {sha256}. It was thrown away: it "
            "is another file, or it was changed on the way."
        )


def _digest(stream: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _is_here(host: str | None) -> bool:
    """Whether it is this machine."""
    if host is None:
        return False
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
