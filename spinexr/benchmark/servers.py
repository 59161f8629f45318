"""Server processes of the benchmark, on loopback, with their memory."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from spinexr.errors import ConfigurationError
from spinexr.settings import PROJECT_ROOT

_LONGEST_START_S = 600.0
_POLL_S = 0.02
_SAMPLE_S = 0.2  # asking costs the kernel milliseconds
_BOUNDARY = "spinexr-benchmark"


@dataclass
class Server:
    """A running server and what it takes to talk to it."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    ready_s: float = 0.0

    def post(self, data: bytes, *, html: bool = False) -> tuple[float, int, bytes]:
        """Seconds, status and body of one POST /upload."""
        head = (
            f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; '
            f'filename="image.dcm"\r\nContent-Type: application/dicom\r\n\r\n'
        )
        body = head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={_BOUNDARY}",
            "Accept": "text/html" if html else "application/json",
        }
        start = perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request("POST", "/upload", body, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        return perf_counter() - start, response.status, answer

    def health(self) -> Any:
        """What GET /health says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/health")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def memory_bytes(self) -> int:
        """Proportional set size of the server and all its children (Linux; 0 elsewhere)."""
        return sum(_pss(pid) for pid in _family(self.process.pid))


@dataclass
class PeakMemory:
    """The largest memory of a server while it is watched."""

    bytes: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watch(self, server: Server) -> Iterator[None]:
        def sample() -> None:
            while not self._stop.wait(_SAMPLE_S):
                self.bytes = max(self.bytes, server.memory_bytes())

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


@contextmanager
def reference(weights: Path, *, threads: int) -> Iterator[Server]:
    """The plain reference server, ready."""
    port = _free_port()
    command = [
        sys.executable, "-m", "spinexr.benchmark.reference", str(weights), str(port), str(threads),
    ]  # fmt: skip
    name = "reference, 1 thread" if threads == 1 else f"reference, {threads} threads"
    with _started(name, command, port, {}) as server:
        yield server


@contextmanager
def spinexr(
    weights: Path, engines: Path, *, precision: str = "exact", queue: int = 32
) -> Iterator[Server]:
    """SpineXR's own server, ready.

    Args:
        queue: so long that no client of the benchmark is refused.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="spinexr-benchmark-") as uploads:
        # The plain server's decoder is not a part of SpineXR, but pydicom loads what it finds.
        (Path(uploads) / "gdcm.py").write_text("raise ImportError\n", encoding="ascii")
        environment = {
            "PYTHONPATH": uploads,
            "PORT": str(port),
            "SPINEXR_HOST": "127.0.0.1",
            "SPINEXR_WEIGHTS": str(weights),
            "SPINEXR_ENGINES": str(engines),
            "SPINEXR_ENGINE": "openvino",
            "SPINEXR_PRECISION": precision,
            "SPINEXR_UPLOADS": uploads,
            "SPINEXR_QUEUE": str(queue),
            "SPINEXR_WEB_THREADS": str(queue + 4),
            "SPINEXR_LOG_LEVEL": "warning",
        }
        command = [sys.executable, str(PROJECT_ROOT / "app.py")]
        with _started(f"SpineXR, {precision}", command, port, environment) as server:
            engine = server.health()["engine"]
            if engine["precision"] != precision:
                raise ConfigurationError(
                    f"Nothing can be measured in {precision}: {engine['precision_note']}"
                )
            yield server


@contextmanager
def _started(
    name: str, command: list[str], port: int, environment: Mapping[str, str]
) -> Iterator[Server]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPINEXR_") and k != "PORT"}
    with tempfile.TemporaryFile() as log:
        start = perf_counter()
        process = subprocess.Popen(  # noqa: S603  (the command is our own)
            command, cwd=PROJECT_ROOT, env={**kept, **environment}, stdout=log, stderr=log
        )
        server = Server(name, process, port)
        try:
            _wait_until_ready(server, start)
            yield server
        except ConfigurationError as e:
            log.seek(0)
            tail = log.read().decode(errors="replace")[-2000:]
            raise ConfigurationError(f"{e.message}\n{tail}") from e
        finally:
            process.terminate()
            process.wait()


def _wait_until_ready(server: Server, start: float) -> None:
    pause = threading.Event()
    while True:
        pause.wait(_POLL_S)
        if server.process.poll() is not None:
            raise ConfigurationError(f"{server.name} ended with {server.process.returncode}.")
        server.ready_s = perf_counter() - start
        if server.ready_s > _LONGEST_START_S:
            raise ConfigurationError(f"{server.name} was not ready in {_LONGEST_START_S:.0f} s.")
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            continue
        finally:
            connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        found.append(parent)
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                todo += [int(child) for child in task.read_text().split()]
            except OSError:  # it has ended meanwhile
                continue
    return found


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return 0
    return next(
        (int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0
    )
