"""gunicorn's threaded worker, with clocks: no client can hold one of its threads for ever.

gunicorn reads headers and bodies from a socket that waits without end, so a handful of clients that
send a byte now and then would take all threads. Here a request has one time for its head and one
for all of it, and an answer has one to be taken. What gunicorn's main thread waits for, it has the
poller wait for, since nobody is accepted or answered meanwhile.
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any

from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import TConn, ThreadWorker

from spinexr import stopping
from spinexr.errors import RequestError, SlowUploadError
from spinexr.faults import describe

HEAD_TIMEOUT_S = 10.0  # request line and headers, 8 KB as a rule
_PROBES = (b"GET /livez ", b"GET /readyz ")
_WITH_BODY = (b"\r\ncontent-length:", b"\r\ntransfer-encoding:")
_LONGEST_PROBE_BYTES = 2048
_LINGER_S = 2.0  # for a client to close first; as in gunicorn, which waits for each
_LINGER_BYTES = 64 * 1024
_REST_S = 0.05  # of a server that may open no more, until it looks again
ANSWER_TIMEOUT_S = 60.0  # 6 MB, the largest answer, at 0.8 Mbit/s


class TimedUnreader(SocketUnreader):  # type: ignore[misc]  # gunicorn has no types
    """Reads a socket within the times that a request has, counted from `begin`."""

    def __init__(self, sock: Any, *, whole_s: float) -> None:
        super().__init__(sock)
        self._whole_s = whole_s
        self.begin()

    def begin(self) -> None:
        """A request begins."""
        now = time.monotonic()
        self._head_ends, self._ends = now + HEAD_TIMEOUT_S, now + self._whole_s
        self._reading_head = True

    def head_is_read(self) -> None:
        """What comes now is the body."""
        self._reading_head = False

    def hear_out(self, most_s: float) -> None:
        """All that is still to come has so long, whatever the request had."""
        self._ends = min(self._ends, time.monotonic() + most_s)

    def chunk(self, size_hint: int | None = None) -> bytes:
        """What comes next.

        Raises:
            NoMoreData: the head is late; there is nobody worth answering.
            SlowUploadError: the body is.
        """
        left = (self._head_ends if self._reading_head else self._ends) - time.monotonic()
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
    linger: Callable[[TConn], None]  # of the worker

    def close(self, graceful: bool = False) -> None:
        if graceful:
            type(self).linger(self)
        else:
            super().close()

    def init(self) -> None:
        super().init()
        if not isinstance(self.parser.unreader, TimedUnreader):
            self.parser.unreader = TimedUnreader(self.sock, whole_s=Worker.upload_timeout_s)


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


class _CheckedBody:
    """A reader of bodies that says of a malformed one what the application understands."""

    def __init__(self, reader: Any, unreader: TimedUnreader) -> None:
        self._reader = reader
        self.hear_out = unreader.hear_out

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, none at the end.

        Raises:
            RequestError: the body breaks the rules of chunks, or ends early.
        """
        try:
            result: bytes = self._reader.read(size)
        except (ParseException, NoMoreData):
            raise RequestError(
                "The body of the request is malformed or ends early. Send it again."
            ) from None  # gunicorn's error quotes it
        return result


def _first_bytes(sock: socket.socket) -> bytes | None:
    """What has arrived on a connection, left there; None where nothing has."""
    try:
        sock.setblocking(False)  # with a time limit Python waits, whatever the flags say
        return sock.recv(_LONGEST_PROBE_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except (OSError, ValueError):  # gone; TLS cannot look ahead
        return b""


def _is_whole_probe(head: bytes) -> bool:
    """Whether a question about life has arrived to its end, so that nobody can hold its thread."""
    return (
        head.startswith(_PROBES)
        and b"\r\n\r\n" in head
        and not any(header in head.lower() for header in _WITH_BODY)
    )


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """`ThreadWorker` whose clients cannot be slower than the clocks above."""

    upload_timeout_s = 120.0  # gunicorn.conf.py sets the deployer's

    def init_process(self) -> None:
        """Serve until the end."""
        log: Any = self.log
        self.log: Any = _DiscreetLog(log)
        self._prober = ThreadPoolExecutor(1, thread_name_prefix="probes")
        self._lingering: deque[TConn] = deque()  # the first to end first
        _TimedConnection.linger = self._linger
        super().init_process()

    def accept(self, listener: socket.socket) -> None:
        """Take all who wait, since a probe may be the last of them, before any is handled: each
        call of the system would wait for threads that work. gunicorn takes one a turn, and ends
        where no file may be opened any more."""
        accepted = []
        exhausted = False
        try:
            while self.nr_conns < self.worker_connections:
                accepted.append(listener.accept())
                self.nr_conns += 1
        except (BlockingIOError, ConnectionAbortedError):
            pass
        except OSError as e:
            if e.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            exhausted = True
        finally:
            for sock, client in accepted:
                self.enqueue_req(_TimedConnection(self.cfg, sock, client, listener.getsockname()))
        if exhausted:
            time.sleep(_REST_S)  # others wait in the system's queue

    def enqueue_req(self, conn: TConn) -> None:
        """Have a connection handled once it says something; a probe by a thread of its own."""
        began = conn.initialized or conn.data_ready
        # A request that was read ahead is first, and what has arrived since may belong to it.
        ahead = conn.parser is not None and conn.parser.unreader.buf.getvalue()
        head = b"" if ahead else _first_bytes(conn.sock)
        if head is None and not began:
            self._await_first_bytes(conn)
            return
        pool = self._prober if _is_whole_probe(head or b"") else self.tpool
        # As in gunicorn, which knows one pool.
        handled = pool.submit(self.handle, conn)
        handled.add_done_callback(
            lambda done: self.method_queue.defer(self.finish_request, conn, done)
        )

    def _await_first_bytes(self, conn: TConn) -> None:
        """As gunicorn does once a thread has waited for them in vain."""
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + self.cfg.keepalive
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def murder_pending(self) -> None:
        """Close what has waited long enough."""
        super().murder_pending()
        while self._lingering and self._lingering[0].timeout <= time.monotonic():
            self._end(self._lingering[0])

    def _linger(self, conn: TConn) -> None:
        """Say that no more is coming, and close once the client has (RFC 9112, 9.6): closing at
        once would take an answer back that it has not read."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
            conn.sock.setblocking(False)
            conn.unheard = _LINGER_BYTES
            self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._drain, conn))
        except (OSError, ValueError):  # gone
            conn.close()
            return
        conn.timeout = time.monotonic() + _LINGER_S
        self._lingering.append(conn)
        self.nr_conns += 1  # its descriptor is still open

    def _drain(self, conn: TConn, _sock: socket.socket) -> None:
        try:
            data = conn.sock.recv(min(conn.unheard, 4096))
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except OSError:
            data = b""
        conn.unheard -= len(data)
        if not data or conn.unheard <= 0:
            self._end(conn)

    def _end(self, conn: TConn) -> None:
        self._lingering.remove(conn)
        self.poller.unregister(conn.sock)
        self.nr_conns -= 1
        conn.close()

    def handle(self, conn: TConn) -> Any:
        """One request of a connection."""
        if conn.parser is not None:
            conn.parser.unreader.begin()
        return super().handle(conn)

    def handle_request(self, req: Any, conn: TConn) -> Any:
        """The application's answer to a request whose head has arrived."""
        conn.parser.unreader.head_is_read()
        req.body.reader = _CheckedBody(req.body.reader, conn.parser.unreader)
        conn.sock.settimeout(ANSWER_TIMEOUT_S)
        return super().handle_request(req, conn)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM."""
        stopping.REQUESTED.set()
        super().handle_exit(sig, frame)

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        try:
            return bool(super()._keepalive_after(conn, keepalive))
        except (RequestError, SlowUploadError):  # it was answered; what is left is not waited for
            return False
