"""GET /livez and /metrics of the node, on this machine only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from spinexr.errors import ConfigurationError

_TIMEOUT_S = 10.0
_HOST = "127.0.0.1"


class Watching:
    """A small HTTP server on a thread of its own."""

    def __init__(self, port: int, registry: CollectorRegistry, alive: Callable[[], bool]) -> None:
        """Listen.

        Args:
            alive: whether everything that has to run does.

        Raises:
            ConfigurationError: the port cannot be listened on.
        """

        class Handler(BaseHTTPRequestHandler):
            timeout = _TIMEOUT_S

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
                elif self.path == "/livez":
                    lives = alive()
                    text = b"ok\n" if lives else b"not ok\n"
                    self._answer(200 if lives else 503, "text/plain; charset=utf-8", text)
                else:
                    self._answer(404, "text/plain; charset=utf-8", b"not found\n")

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing: it would quote whatever was asked for."""

        try:
            self._server = ThreadingHTTPServer((_HOST, port), Handler)
        except OSError as e:
            raise ConfigurationError(
                f"{_HOST}:{port} cannot be listened on ({e.strerror}). Set SPINEXR_NODE_HTTP_PORT "
                "to another port."
            ) from e
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="spinexr-watching", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
