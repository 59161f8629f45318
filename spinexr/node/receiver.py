"""The way in: a C-STORE and C-ECHO SCP that says success when an object is on the disk.

pynetdicom speaks the protocol. What it leaves open is closed here: how large a PDU and an object
may be, how long a PDU may take, and that a TLS handshake holds up nobody else.
"""

from __future__ import annotations

import contextlib
import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from pydicom import uid
from pynetdicom import AE, evt
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from spinexr.errors import ConfigurationError, InstanceDiffersError, QueueFullError
from spinexr.faults import describe
from spinexr.imaging.codecs import SUPPORTED_TRANSFER_SYNTAXES
from spinexr.node import network  # noqa: F401  (quietens the library)
from spinexr.node.queue import Queue

_log = structlog.stdlib.get_logger("spinexr.node")

STORAGE_CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
)
_VERIFICATION = "1.2.840.10008.1.1"  # the SOP class of C-ECHO
# PS3.4 table B.2-1: failures by group; within C000 the numbers are the implementation's own.
SUCCESS, NO_ROOM, TOO_LARGE, DIFFERS, FAULT = 0x0000, 0xA700, 0xA702, 0xC002, 0xC000
_PDU_BYTES = 1024 * 1024
_REQUEST_PDU_BYTES = 64 * 1024  # an association request with every context there is has a few KB
_MOST_UNANSWERED = 2  # the protocol allows one, unless more were agreed on, which they never are
_OVERHEAD_BYTES = 64 * 1024  # commands and headers around an object of the largest size


@dataclass(frozen=True, slots=True)
class Door:
    """How the node listens.

    max_bytes: of one object.
    timeout_s: how long a peer may be silent, and how long one PDU may take.
    """

    host: str
    port: int
    ae_title: str
    callers: tuple[str, ...]
    associations: int
    max_bytes: int
    timeout_s: float
    tls: ssl.SSLContext | None = None


class Receiver:
    """The listening SCP."""

    def __init__(
        self,
        door: Door,
        queue: Queue,
        *,
        count: Callable[[str, str], None] = lambda _caller, _outcome: None,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """An SCP that listens from `start` on.

        Args:
            count: told the caller and the outcome of each object.
            clock: for people who look at dead letters.
        """
        self._door, self._queue, self._count, self._clock = door, queue, count, clock
        self._server: ThreadedAssociationServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Listen; the port.

        Raises:
            ConfigurationError: the address cannot be listened on.
        """
        door = self._door
        ae = AE(ae_title=door.ae_title)
        ae.require_called_aet = True
        ae.require_calling_aet = list(door.callers)
        ae.maximum_associations = door.associations
        ae.maximum_pdu_size = _PDU_BYTES
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = door.timeout_s
        ae.add_supported_context(_VERIFICATION)
        for storage in STORAGE_CLASSES:
            ae.add_supported_context(storage, list(SUPPORTED_TRANSFER_SYNTAXES))
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_PDU_RECV, self._weigh),
            (evt.EVT_DIMSE_RECV, self._message_ended),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        try:
            server = ae.make_server(
                (door.host, door.port),
                evt_handlers=handlers,
                server_class=_Server,
                request_handler=_Handler,
                ssl_context=door.tls,
            )
        except OSError as e:
            raise ConfigurationError(
                f"{door.host}:{door.port} cannot be listened on ({e.strerror}). Set "
                "SPINEXR_NODE_PORT to another port, or SPINEXR_NODE_HOST to an address of this "
                "machine."
            ) from e
        self._server = server
        self._thread = threading.Thread(
            target=server.serve_forever, name="spinexr-receiver", args=(0.1,), daemon=True
        )
        self._thread.start()
        return int(server.server_address[1])

    @property
    def alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """Listen no more and end all associations: what was not answered was not taken."""
        if self._server is None or self._thread is None:
            return
        associations = self._server.active_associations
        self._server.shutdown()
        self._thread.join()
        for association in associations:
            association.abort()
        for association in associations:
            association.join(self._door.timeout_s)

    def _store(self, event: Any) -> int:
        """Runs on the association's thread, so each association is answered in its order."""
        request = event.request
        caller = str(event.assoc.requestor.ae_title).strip()
        status, outcome, name = FAULT, "internal_error", None
        try:
            size = request.DataSet.getbuffer().nbytes
            if size > self._door.max_bytes:
                status, outcome = TOO_LARGE, "too_large"
            else:
                name = self._queue.receive(
                    event.encoded_dataset(),
                    instance=str(request.AffectedSOPInstanceUID),
                    caller=caller,
                    now=self._clock(),
                    # Without the file's header, which is this program's own.
                    content=request.DataSet.getvalue(),
                )
                status, outcome = SUCCESS, "received" if name else "repeated"
        except InstanceDiffersError as e:
            status, outcome = DIFFERS, e.code
        except QueueFullError as e:
            status, outcome = NO_ROOM, e.code
            _log.warning("no room for what is sent", why=e.message)
        # Anything else is a fault of this program; the sender must hear that it was not taken.
        except Exception as e:
            _log.error("an object was not taken", why=describe(e))
        _log.info("object", request=name or "-", caller=caller, outcome=outcome)
        self._count(caller, outcome)
        return status

    def _weigh(self, event: Any) -> None:
        """End the association of an object that goes on for too long: it lies in memory."""
        weight = getattr(event.assoc, "spinexr_weight", 0) + len(event.pdu)
        event.assoc.spinexr_weight = weight
        if weight > self._door.max_bytes + _OVERHEAD_BYTES:
            self._end(event.assoc, "too_large")

    def _message_ended(self, event: Any) -> None:
        event.assoc.spinexr_weight = 0
        # What comes before its turn lies in memory.
        if event.assoc.dimse.msg_queue.qsize() >= _MOST_UNANSWERED:
            self._end(event.assoc, "unanswered")

    def _end(self, association: Any, why: str) -> None:
        """Once: after an abort PDUs go on coming in for a while."""
        if not getattr(association, "spinexr_ended", False):
            association.spinexr_ended = True
            _log.warning("association ended", why=why)
            self._count(str(association.requestor.ae_title).strip(), why)
            association.abort()

    @staticmethod
    def _closed(event: Any) -> None:
        """A connection that ends before it asks for anything, as a probe's, counts no longer.

        The library would have it wait until a timeout, and refuse others meanwhile.
        """
        if event.assoc.requestor.primitive is None:
            event.assoc.dul.to_user_queue.put(None)

    def _rejected(self, event: Any) -> None:
        # Whose titles are not known may write anything there.
        _log.warning("association rejected", address=event.assoc.requestor.address)
        self._count("-", "rejected")


class _Socket(AssociationSocket):
    """Reads no PDU larger than agreed on, and waits for none longer than a timeout."""

    def recv(self, nr_bytes: int) -> bytearray:
        """So many bytes, fewer where the connection ends.

        Raises:
            OSError: the PDU is too large or too slow; the library then takes the connection as
                closed.
        """
        established = self.assoc.is_established
        if nr_bytes > (_PDU_BYTES if established else _REQUEST_PDU_BYTES):
            raise OSError("PDU larger than agreed on")
        timeout_s, connection = self.assoc.network_timeout, self.socket
        if connection is None:
            return bytearray()
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        data = bytearray()
        while len(data) < nr_bytes:
            if ends is not None:
                connection.settimeout(max(ends - time.monotonic(), 0.001))
            part = connection.recv(min(nr_bytes - len(data), 64 * 1024))
            if not part:
                break
            data += part
        connection.settimeout(timeout_s)  # what is sent has as long, each time
        return data


class _Handler(RequestHandler):
    def _create_association(self) -> Any:
        association = super()._create_association()
        # The library makes its own kind of socket; it has no way to be given another.
        association.dul.socket.__class__ = _Socket
        return association


class _Server(ThreadedAssociationServer):
    """Shakes hands on the thread of the connection, where it holds up nobody else."""

    daemon_threads = True

    def get_request(self) -> Any:
        assert self.socket is not None  # noqa: S101  (it listens)
        client, address = self.socket.accept()
        client.settimeout(self.ae.network_timeout)
        return client, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None:
            try:
                request = self.ssl_context.wrap_socket(request, server_side=True)
            except OSError:
                _log.warning("no TLS connection", address=client_address[0])
                with contextlib.suppress(OSError):
                    request.close()
                return
        super().process_request_thread(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.warning("connection ended", address=client_address[0])

    def shutdown(self) -> None:
        socketserver.BaseServer.shutdown(self)
        self.server_close()
