"""The real server, small networks, and what can be seen of it from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.processes import Server, free_port

_RESTED_S = 4.0
_BOUNDARY = "spinexr-robustness"


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "")

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def code(self) -> str | None:
        """The code of a problem; None for a result."""
        if self.content_type != "application/problem+json":
            return None
        return str(self.document["code"])


class Client:
    """One connection that is kept, and made anew when the server closes it."""

    def __init__(self, port: int, timeout_s: float = 60.0) -> None:
        self._port = port
        self._timeout_s = timeout_s
        self._connection = self._new()
        self._answered = 0.0

    def post(
        self, data: bytes, *, name: str = "a.dcm", path: str = "/upload", **headers: str
    ) -> Answer:
        """Upload one file as programs do."""
        given = {"Accept": "application/json"} | {
            k.replace("_", "-"): v for k, v in headers.items()
        }
        given["Content-Type"] = f"multipart/form-data; boundary={_BOUNDARY}"
        return self.send("POST", path, multipart(data, name), given)

    def get(self, path: str, **headers: str) -> Answer:
        return self.send("GET", path, None, headers)

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        start = time.perf_counter()
        try:
            return self._send(method, path, body, headers, start)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # The server closes a connection that rests for 5 s. One that it closes earlier has
            # lost a request.
            if time.monotonic() - self._answered < _RESTED_S:
                raise
            self._connection.close()
            self._connection = self._new()
            return self._send(method, path, body, headers, start)

    def close(self) -> None:
        self._connection.close()

    def _send(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str], start: float
    ) -> Answer:
        self._connection.request(method, path, body, headers)
        with self._connection.getresponse() as response:
            content = response.read()
            self._answered = time.monotonic()
            return Answer(response.status, response.headers, content, time.perf_counter() - start)

    def _new(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout_s)


class Service(Server):
    """`python app.py` with small networks, ready."""

    ready_line = "models ready"

    def __init__(self, weights: Path, folder: Path, **env: str) -> None:
        self.port = free_port()
        self.spool = folder / "uploads"
        settings = {
            "SPINEXR_WEIGHTS": str(weights),
            "SPINEXR_UPLOADS": str(self.spool),
            "SPINEXR_RATE_LIMIT": "none",
        }
        super().__init__([sys.executable, "app.py"], self.port, **settings | env)
        try:
            self.wait_for_log(self.ready_line)
            self.worker = self._worker()
        except BaseException:  # nobody else holds it yet
            self.kill()
            raise

    def client(self) -> Client:
        return Client(self.port)

    def readers(self) -> list[psutil.Process]:
        """The processes that read files: forks of the one that only starts them."""
        found = []
        for child in self.worker.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                parent = child.parent()
                if parent is not None and parent.pid != self.worker.pid:
                    found.append(child)
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Sum over the samples of /metrics of that name and these labels."""
        with contextlib.closing(self.client()) as client:
            text = client.get("/metrics").body.decode()
        wanted = [f'{k}="{v}"' for k, v in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.split("{")[0].split(" ")[0] == name and all(w in line for w in wanted)
        )

    def leftovers(self) -> list[Path]:
        """What lies in the spool."""
        return [p for p in self.spool.iterdir() if p.name != ".gitkeep"]

    def own_mb(self) -> float:
        """Memory of the server and all it started that is no file's, in MB of 1,000,000 bytes.

        What is a file's, libraries above all, is shared with whoever else has it mapped, so that
        its share changes with what else runs.
        """
        total = 0
        for each in (self.worker, *self.worker.children(recursive=True)):
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{each.pid}/smaps_rollup").read_text(encoding="ascii")
                total += sum(map(int, re.findall(r"^Pss_(?:Anon|Shmem): +(\d+) kB", text, re.M)))
        return total * 1024 / 1e6

    def open_files(self) -> int:
        return int(self.worker.num_fds())

    def threads(self) -> int:
        return int(self.worker.num_threads())

    def _worker(self) -> psutil.Process:
        """The process that serves: the arbiter's only child."""
        (worker,) = [
            c for c in psutil.Process(self.process.pid).children() if "app:app" in c.cmdline()
        ]
        return worker


@contextlib.contextmanager
def running(weights: Path, folder: Path, **env: str) -> Iterator[Service]:
    """A service for one test."""
    service = Service(weights, folder, **env)
    try:
        yield service
    finally:
        service.kill()


def proportional_bytes(process: psutil.Process) -> int:
    """PSS of a process and all below it: shared pages count once."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += each.memory_full_info().pss
    return total


def peak_bytes(process: psutil.Process) -> int:
    """The most address space that a process has had."""
    return _status_bytes(process, "VmPeak")


def peak_resident_bytes(process: psutil.Process) -> int:
    """The most memory that a process has had since it was told to forget the peak."""
    return _status_bytes(process, "VmHWM")


def _status_bytes(process: psutil.Process, name: str) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return 1024 * int(re.findall(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[0])


def multipart(data: bytes, name: str = "a.dcm") -> bytes:
    """A form with one file."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; '
        f'filename="{name}"\r\nContent-Type: application/dicom\r\n\r\n'
    )
    return head.encode() + data + f"\r\n--{_BOUNDARY}--\r\n".encode()
