"""The program as users start it: a process of its own."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_LONGEST_START_S = 120
# Compiled networks of the whole test run, apart from those of the working copy.
_ENGINES = tempfile.TemporaryDirectory(prefix="spinexr-engines-")


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without its settings of SpineXR, and with `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SPINEXR_") and k != "PORT"}
    return kept | {"SPINEXR_ENGINES": _ENGINES.name} | changes


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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

    def wait_for_log(self, text: str) -> str:
        """Read the log until `text` occurs in it; the line with it."""
        assert self.process.stderr is not None
        deadline = time.monotonic() + _LONGEST_START_S
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.process.stderr], [], [], 1.0)
            if not ready:
                continue
            line = self.process.stderr.readline()
            if not line:
                break
            self._log.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} not in the log:\n{''.join(self._log)}")

    def health(self) -> tuple[int, dict[str, Any]]:
        status, body = self.get("/health")
        document: dict[str, Any] = json.loads(body)
        return status, document

    def stop(self) -> tuple[int, str]:
        """Ask it to end; (exit status, whole log)."""
        self.process.terminate()
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Wait until it has ended by itself; (exit status, whole log)."""
        _, rest = self.process.communicate(timeout=60)
        return self.process.returncode, "".join(self._log) + rest

    def _send(self, request: urllib.request.Request) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read().decode()
