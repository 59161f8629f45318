"""The program as users start it: a process of its own."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests import shared

ROOT = Path(__file__).parent.parent
_LONGEST_START_S = 120


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without its settings of SpineXR, and with `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPINEXR_") and k != "PORT"}
    return kept | {"SPINEXR_ENGINES": str(shared.ENGINES)} | changes


# Below those that Linux gives to whoever asks for any; others for each process of xdist, and mostly
# for another run beside this one.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_OWN_PORTS = 2_000
_PORTS = itertools.count(100 * (os.getpid() % 20))


def free_port() -> int:
    """A port nobody listens on now, and that nobody is given who does not ask for it."""
    for n in itertools.islice(_PORTS, _OWN_PORTS):
        port = 15_000 + _OWN_PORTS * _WORKER + n % _OWN_PORTS
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are taken")


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Until the process listens."""
    deadline = time.monotonic() + _LONGEST_START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {port} (exit status {process.poll()})")


def spinexr(*arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m spinexr` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "spinexr", *map(str, arguments)],
        cwd=ROOT,
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


class Server:
    """A server process on loopback."""

    def __init__(self, command: list[str], port: int, **env: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(PORT=str(port), **env),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._log: list[str] = []
        self._log_ended = False
        self._new_line = threading.Condition()
        # Read all the time: a full pipe would stop the server.
        self._reading = threading.Thread(target=self._read_log, daemon=True)
        self._reading.start()

    @property
    def log(self) -> str:
        """What it has logged so far."""
        with self._new_line:
            return "".join(self._log)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """(status, body); errors too are answers."""
        request = urllib.request.Request(self.url + path, headers=dict(headers or {}))
        return self._send(request)

    def upload(
        self, data: bytes, name: str = "image.dcm", accept: str = "application/json"
    ) -> tuple[int, str]:
        """Post one file as a browser does."""
        boundary = "spinexr-test-boundary"
        head = (
            f"--{boundary}\r\nContent-Disposition: form-data; "
            f'name="file"; filename="{name}"\r\nContent-Type: application/dicom\r\n\r\n'
        )
        body = head.encode() + data + f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Accept": accept,
        }
        return self._send(urllib.request.Request(self.url + "/upload", body, headers))

    def wait_for_log(self, text: str, *, times: int = 1) -> str:
        """Wait until `text` occurs in so many lines of the log; the last of them."""
        seen = 0
        with self._new_line:
            while True:
                for line in self._log[seen:]:
                    times -= text in line
                    if times == 0:
                        return line
                seen = len(self._log)
                if self._log_ended or not self._new_line.wait(_LONGEST_START_S):
                    raise AssertionError(f"{text!r} not in the log:\n{''.join(self._log)}")

    def health(self) -> tuple[int, dict[str, Any]]:
        status, body = self.get("/health")
        document: dict[str, Any] = json.loads(body)
        return status, document

    def stop(self) -> tuple[int, str]:
        """Ask it to end; (exit status, whole log)."""
        self.process.terminate()
        return self.ended()

    def kill(self) -> None:
        """End it and the processes that serve at once; what these started notices by itself."""
        running = self.process.poll() is None
        children = psutil.Process(self.process.pid).children() if running else []
        self.process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait until it has ended by itself; (exit status, whole log)."""
        self.process.wait(timeout=120)
        self._reading.join(timeout=60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.returncode, self.log

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._new_line:
                    self._log.append(line)
                    self._new_line.notify_all()
        with self._new_line:
            self._log_ended = True
            self._new_line.notify_all()

    def _send(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read().decode()
