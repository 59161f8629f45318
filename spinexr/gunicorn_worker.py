"""gunicorn's threaded worker, with clocks: no client can hold one of its threads for ever.

gunicorn reads headers and bodies from a socket that waits without end, so a handful of clients that
send a byte now and then would take all threads. Here a request has one time for its head and one
for all of it, and an answer has one to be taken.
"""

from __future__ import annotations

import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any

from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers import gthread
from gunicorn.workers.gthread import TConn, ThreadWorker

from spinexr import stopping
from spinexr.errors import SlowUploadError
from spinexr.faults import describe

HEAD_TIMEOUT_S = 10.0  # request line and headers, 8 KB as a rule
_PROBES = (b"GET /livez ", b"GET /readyz ")
_LONGEST_PROBE_BYTES = 2048
ANSWER_TIMEOUT_S = 60.0  # 6 MB, the largest answer, at 0.8 Mbit/s


class TimedUnreader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads a socket within the times that a request has, counted from `begin`."""

    def __init__(self, sock: Any, *, whole_s: float) -> None:
        super().__init__(sock)
        self._whole_s = whole_s
        self.begin()

    def begin(self) -> None:
        """A request begins."""
        self._began = time.monotonic()
        self._reading_head = True

    def head_is_read(self) -> None:
        """What comes now is the body."""
        self._reading_head = False

    def chunk(self, size_hint: int | None = None) -> bytes:
        """What comes next.

        Raises:
            NoMoreData: the head is late; there is nobody worth answering.
            SlowUploadError: the body is.
        """
        allowed = HEAD_TIMEOUT_S if self._reading_head else self._whole_s
        left = self._began + allowed - time.monotonic()
        earlier = self.sock.gettimeout()
        try:
            # 0 would mean not to wait and to raise another error.
            left = max(left, 1e-6)
            self.sock.settimeout(left if earlier is None else min(left, earlier))
            result: bytes = super().chunk(size_hint)
        except TimeoutError:
            if self._reading_head:
                raise NoMoreData from None
            raise SlowUploadError(
                f"The request did not arrive within {self._whole_s:g} seconds. Try again over a "
                "faster connection."
            ) from None
        finally:
            self.sock.settimeout(earlier)
        return result


class _TimedConnection(TConn):  # type: ignore[misc]  # gunicorn has no types
    def init(self) -> None:
        super().init()
        if not isinstance(self.parser.unreader, TimedUnreader):
            self.parser.unreader = TimedUnreader(self.sock, whole_s=Worker.upload_timeout_s)


gthread.TConn = _TimedConnection  # what the worker makes of every connection


class _DiscreetLog:
    """A worker's log without clients' words, which gunicorn quotes: addresses, first lines."""

    def __init__(self, log: Any) -> None:
        self._log = log

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def warning(self, _message: str, *_args: object) -> None:
        """What gunicorn says of a request that it cannot parse."""
        self._log.warning("a request was refused: %s", type(sys.exc_info()[1]).__name__)

    def exception(self, _message: object, *_args: object) -> None:
        """What gunicorn says of a fault."""
        error = sys.exc_info()[1]
        self._log.error("fault: %s", describe(error) if error else "unknown")


def _is_whole_probe(sock: socket.socket) -> bool:
    """Whether a question about life has arrived to its end, so that nobody can hold its thread."""
    try:
        head = sock.recv(_LONGEST_PROBE_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (OSError, ValueError):  # nothing yet; TLS cannot look ahead
        return False
    return head.startswith(_PROBES) and b"\r\n\r\n" in head


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """`ThreadWorker` whose clients cannot be slower than the clocks above."""

    upload_timeout_s = 120.0  # gunicorn.conf.py sets the deployer's

    def init_process(self) -> None:
        """Serve until the end."""
        log: Any = self.log
        self.log: Any = _DiscreetLog(log)
        self._prober = ThreadPoolExecutor(1, thread_name_prefix="probes")
        super().init_process()

    def accept(self, listener: socket.socket) -> None:
        """Take all who wait, since a probe may be the last of them; gunicorn takes one a turn."""
        while self.nr_conns < self.worker_connections:
            before = self.nr_conns
            super().accept(listener)
            if self.nr_conns == before:
                return

    def enqueue_req(self, conn: TConn) -> None:
        """Have a connection handled; a probe by a thread of its own."""
        pool = self._prober if _is_whole_probe(conn.sock) else self.tpool
        # As in gunicorn, which knows one pool.
        handled = pool.submit(self.handle, conn)
        handled.add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

    def handle(self, conn: TConn) -> Any:
        """One request of a connection."""
        if conn.parser is not None:
            conn.parser.unreader.begin()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """The application's answer to a request whose head has arrived."""
        conn.parser.unreader.head_is_read()
        conn.sock.settimeout(ANSWER_TIMEOUT_S)
        return super().handle_request(req, conn)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM."""
        stopping.REQUESTED.set()
        super().handle_exit(sig, frame)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except SlowUploadError:  # it was answered; what is left of it will not be waited for
            return False
