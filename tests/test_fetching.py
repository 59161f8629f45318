"""Fetching: whole and as expected, or not at all; from a server that drops, stalls and lies."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from spinexr import fetching
from spinexr.cli import main
from spinexr.errors import ConfigurationError

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LIMIT = 10_000_000

Answer = Callable[["Handler", int], None]  # the request, how many came before


class Handler(BaseHTTPRequestHandler):
    """Answers as the test says."""

    answer: Answer
    seen: list[str | None]

    def do_GET(self) -> None:
        number = len(self.seen)
        self.seen.append(self.headers.get("Range"))
        type(self).answer(self, number)

    def start(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    @property
    def first(self) -> int:
        """Where the client wants to go on."""
        wanted = self.headers.get("Range")
        return int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving(answer: Answer) -> Iterator[tuple[str, list[str | None]]]:
    """Address of a file, and the Range headers of requests for it."""
    seen: list[str | None] = []
    kind = type("Serving", (Handler,), {"answer": staticmethod(answer), "seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/best.pt", seen
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def fetch(url: str, file: Path, **options: Any) -> None:
    given = {"sha256": SHA256, "largest_bytes": LIMIT, "pause_s": 0.0, **options}
    fetching.fetch(url, file, **given)


def whole(request: Handler, _number: int) -> None:
    request.start(200, len(CONTENT))
    request.wfile.write(CONTENT)


def honest(request: Handler, _number: int) -> None:
    """Goes on from the middle."""
    rest = CONTENT[request.first :]
    request.start(206 if request.first else 200, len(rest))
    request.wfile.write(rest)


def dropping(request: Handler, number: int) -> None:
    """Breaks off the first two times."""
    rest = CONTENT[request.first :]
    request.start(206 if request.first else 200, len(rest))
    request.wfile.write(rest[: 700_000 if number < 2 else len(rest)])


def test_a_file_is_fetched_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    shown: list[tuple[int, int]] = []
    with serving(whole) as (url, _):
        fetch(url, tmp_path / "deep" / "best.pt",
              progress=lambda _what, done, total: shown.append((done, total)))  # fmt: skip
    assert (tmp_path / "deep" / "best.pt").read_bytes() == CONTENT
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["best.pt"]
    assert shown[-1] == (len(CONTENT), len(CONTENT))


def test_a_connection_that_breaks_off_is_gone_on_with(tmp_path: Path) -> None:
    with serving(dropping) as (url, seen):
        fetch(url, tmp_path / "best.pt")
    assert (tmp_path / "best.pt").read_bytes() == CONTENT
    assert seen == [None, "bytes=700000-", "bytes=1400000-"]


def test_an_earlier_try_is_gone_on_with(tmp_path: Path) -> None:
    (tmp_path / "best.pt.part").write_bytes(CONTENT[:1000])
    with serving(honest) as (url, seen):
        fetch(url, tmp_path / "best.pt")
    assert seen == ["bytes=1000-"]
    assert (tmp_path / "best.pt").read_bytes() == CONTENT


def test_a_server_that_cannot_go_on_starts_again(tmp_path: Path) -> None:
    (tmp_path / "best.pt.part").write_bytes(b"of another file")
    with serving(whole) as (url, _):
        fetch(url, tmp_path / "best.pt")
    assert (tmp_path / "best.pt").read_bytes() == CONTENT


def test_a_server_that_stalls_is_given_up_and_what_came_is_kept(tmp_path: Path) -> None:
    release = threading.Event()

    def stalling(request: Handler, _number: int) -> None:
        request.start(206 if request.first else 200, len(CONTENT) - request.first)
        if not request.first:
            request.wfile.write(CONTENT[:5000])
            request.wfile.flush()
        release.wait(30)

    with serving(stalling) as (url, _):
        try:
            with pytest.raises(ConfigurationError, match="5,000 bytes are kept"):
                fetch(url, tmp_path / "best.pt", stall_s=0.2)
        finally:
            release.set()
    assert not (tmp_path / "best.pt").exists()
    assert (tmp_path / "best.pt.part").read_bytes() == CONTENT[:5000]


def test_another_file_is_thrown_away(tmp_path: Path) -> None:
    def lying(request: Handler, _number: int) -> None:
        request.start(200, len(CONTENT))
        request.wfile.write(CONTENT[::-1])

    with serving(lying) as (url, _), pytest.raises(ConfigurationError, match="thrown away"):
        fetch(url, tmp_path / "best.pt")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("announced", [True, False])
def test_more_than_the_limit_is_not_taken(tmp_path: Path, announced: bool) -> None:
    def endless(request: Handler, _number: int) -> None:
        request.start(200, 10**12 if announced else None)
        for _ in range(100):
            try:
                request.wfile.write(bytes(1_000_000))
            except OSError:
                return

    with serving(endless) as (url, _), pytest.raises(ConfigurationError, match="10,000,000"):
        fetch(url, tmp_path / "best.pt")
    assert not (tmp_path / "best.pt").exists()
    part = tmp_path / "best.pt.part"
    assert not part.exists() or part.stat().st_size <= LIMIT


def test_a_refusal_is_not_tried_again(tmp_path: Path) -> None:
    def missing(request: Handler, _number: int) -> None:
        request.start(404, 0)

    with serving(missing) as (url, seen), pytest.raises(ConfigurationError, match="status 404"):
        fetch(url, tmp_path / "best.pt")
    assert len(seen) == 1


@pytest.mark.parametrize(
    "url", ["http://weights.example/best.pt", "ftp://weights.example/a", "best.pt", "file://host/a"]
)
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigurationError, match="use https or file"):
        fetch(url, tmp_path / "best.pt")


def test_a_file_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "best.pt").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match="exists"):
        fetch("https://weights.example/best.pt", tmp_path / "best.pt")
    assert (tmp_path / "best.pt").read_bytes() == b"mine"


def test_the_command_takes_a_file_address(tmp_path: Path) -> None:
    source = tmp_path / "source file"
    source.write_bytes(CONTENT)
    out = tmp_path / "best.pt"
    command = ["weights", "fetch", source.as_uri(), "--sha256", SHA256, "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == CONTENT


@pytest.mark.parametrize("sha256", ["", "123", "g" * 64])
def test_the_command_wants_a_hash(tmp_path: Path, sha256: str) -> None:
    command = ["weights", "fetch", "file:///x", "--sha256", sha256, "--out", str(tmp_path / "y")]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code != 0
    assert "64 hexadecimal digits" in refused.output
