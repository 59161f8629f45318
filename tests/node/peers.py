"""The node's neighbours on loopback: senders, archives, and parts of the node that are set."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pydicom
from pydicom import uid
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE

from spinexr.domain import ObjectKind
from spinexr.node.configuration import Destination, Tls
from spinexr.node.loops import Loop
from spinexr.node.metrics import Metrics
from spinexr.node.node import Node
from spinexr.node.queue import Output, Queue
from spinexr.node.receiver import Door
from spinexr.node.senders import Sender
from spinexr.node.work import Answer, Work
from spinexr.phantom.writer import Uids
from tests import builders

VERIFICATION = "1.2.840.10008.1.1"  # C-ECHO
NODE, CALLER, ARCHIVE = "SPINEXR", "CR1", "ARCHIVE"
NOW = datetime(2026, 1, 2, 3, 4, 5)
LIMIT = 64 * 1024 * 1024
# Fails a test that would hang; nothing waits for it where all is well.
LONGEST_S = 60.0


def radiograph(number: int = 0, *, seed: int = 0, **options: Any) -> Dataset:
    """A small radiograph with identifiers of its own."""
    uids = Uids.derived_from("node", "series", str(number))
    attributes = {
        "SOPInstanceUID": uids.instance,
        "StudyInstanceUID": uids.study,
        "SeriesInstanceUID": uids.series,
        "InstanceNumber": number + 1,
    } | options.pop("attributes", {})
    array = options.pop("pixels", builders.pixels(96, 72, seed=seed))
    made = builders.dataset(array, attributes=attributes, **options)
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return made


def report(
    text: str = "", *, more: bytes = b"", storage: str = uid.Comprehensive3DSRStorage
) -> bytes:
    """A small object as those that the node sends, as a file."""
    made = Dataset()
    made.SOPClassUID = storage
    made.SOPInstanceUID = Uids.derived_from("report", text).instance
    made.EncapsulatedDocument = more
    made.StudyInstanceUID = made.SeriesInstanceUID = Uids.derived_from("report").study
    made.SeriesDescription = text
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    stream = BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def echoing(data: bytes, caller: str) -> Answer:
    """Work that makes one report, named after what came in."""
    dataset = pydicom.dcmread(BytesIO(data))
    text = f"{caller} {dataset.InstanceNumber}"
    output = Output(ObjectKind.REPORT, report(text), ("archive",))
    return Answer((output,), "normal")


# --- senders --------------------------------------------------------------------------------------


@contextmanager
def association(
    port: int, *, caller: str = CALLER, called: str = NODE, syntax: str | None = None,
    storage: str | None = None, tls: Any = None,
) -> Iterator[Association]:  # fmt: skip
    """An association to the node; whether it was accepted is for the test to say."""
    ae = AE(ae_title=caller)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = LONGEST_S
    contexts = [
        build_context(VERIFICATION),
        build_context(
            storage or uid.DigitalXRayImageStorageForPresentation,
            syntax or uid.ExplicitVRLittleEndian,
        ),
    ]
    found = ae.associate("127.0.0.1", port, contexts=contexts, ae_title=called, tls_args=tls)
    try:
        yield found
    finally:
        if found.is_established:
            found.release()


def send(port: int, *datasets: Dataset, **options: Any) -> list[int]:
    """The status of each, sent in one association."""
    syntax = datasets[0].file_meta.TransferSyntaxUID
    with association(port, syntax=syntax, **options) as found:
        assert found.is_established
        return [int(found.send_c_store(d).Status) for d in datasets]


def send_raw(port: int, data: bytes, *, instance: str, syntax: str) -> int:
    """The status of an object that is any bytes."""
    answers: SimpleQueue[int] = SimpleQueue()

    def answered(event: evt.Event) -> None:
        answers.put(int(event.message.command_set.Status))

    with association(port, syntax=syntax) as found:
        found.bind(evt.EVT_DIMSE_RECV, answered)
        (context,) = (c for c in found.accepted_contexts if c.abstract_syntax != VERIFICATION)
        request = C_STORE()
        request.MessageID, request.Priority = 1, 2
        request.AffectedSOPClassUID = context.abstract_syntax
        request.AffectedSOPInstanceUID = instance
        request.DataSet = BytesIO(data)
        found.dimse.send_msg(request, context.context_id or 0)
        return answers.get(timeout=LONGEST_S)


# --- archives -------------------------------------------------------------------------------------


class Archive:
    """A C-STORE SCP that keeps what it is sent; `answers` are statuses that it gives first."""

    def __init__(self, *, answers: Sequence[int] = (), tls: Any = None, port: int = 0) -> None:
        self.kept: list[Dataset] = []
        self.answered: list[int] = []
        self.answers = list(answers)
        self.silent = threading.Event()
        self._more = threading.Condition()
        ae = AE(ae_title=ARCHIVE)
        ae.require_called_aet = True
        for storage in (
            uid.Comprehensive3DSRStorage, uid.GrayscaleSoftcopyPresentationStateStorage,
            uid.SecondaryCaptureImageStorage,
        ):  # fmt: skip
            ae.add_supported_context(storage, [uid.ExplicitVRLittleEndian])
        server: Any = ae.start_server(
            ("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)],
            ssl_context=tls,
        )  # fmt: skip
        self._server = server
        self.port = int(server.server_address[1])

    @property
    def texts(self) -> list[str]:
        return [str(d.SeriesDescription) for d in self.kept]

    @property
    def objects(self) -> set[str]:
        """What it would hold: one object for each UID."""
        return {str(d.SOPInstanceUID) for d in self.kept}

    def wait(self, number: int, what: str = "kept") -> None:
        """Until it has kept, or answered, so many."""
        with self._more:
            while (there := len(getattr(self, what))) < number:
                # As long as there is more now and then, it may take its time.
                more = self._more.wait_for(lambda: len(getattr(self, what)) > there, LONGEST_S)
                assert more, f"{there} of {number} {what}"

    def close(self) -> None:
        self.silent.clear()
        self._server.shutdown()

    def _store(self, event: Any) -> int:
        status = self.answers.pop(0) if self.answers else 0x0000
        if status == SILENCE:
            event.assoc.abort()
            return 0x0000
        with self._more:
            if status == 0x0000 or status >> 12 == 0xB:
                self.kept.append(pydicom.dcmread(BytesIO(event.encoded_dataset())))
            self.answered.append(status)
            self._more.notify_all()
        return status


SILENCE = -1  # the association ends in the place of an answer


class Web:
    """A STOW-RS server that answers what it is told to, and keeps what was sent."""

    def __init__(
        self, *answers: tuple[int, bytes], forever: tuple[int, bytes] = (200, b"{}"),
        kind: str = "application/dicom+json", tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.more = threading.Semaphore(0)
        given = list(answers)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:  # whoever sent it is gone
                    return
                outer.headers.append({"path": self.path, **dict(self.headers.items())})
                outer.bodies.append(body)
                outer.more.release()
                status, text = given.pop(0) if given else forever
                if status == 0:
                    outer.release.wait(LONGEST_S)
                    return
                self.send_response(status)
                if status in (301, 302, 307):
                    self.send_header("Location", text.decode())
                    text = b""
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None: ...

        self.release = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
            self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def destination(port: int = 0, **options: Any) -> Destination:
    """A destination named archive."""
    chosen: dict[str, Any] = {
        "name": "archive", "scheme": "dicom", "host": "127.0.0.1", "port": port, "path": "",
        "ae_title": ARCHIVE, "objects": tuple(ObjectKind), "modalities": frozenset(),
        "body_parts": frozenset(), "callers": frozenset(), "deidentify": False, "timeout_s": 30,
        "attempts": 5, "tls": Tls(), "user": "", "secret": "",
    }  # fmt: skip
    return Destination(**(chosen | options))


# --- the node -------------------------------------------------------------------------------------


def door(**options: Any) -> Door:
    chosen: dict[str, Any] = {
        "host": "127.0.0.1", "port": 0, "ae_title": NODE, "callers": (CALLER, "CR2"),
        "associations": 8, "max_bytes": 4 * 1024 * 1024, "timeout_s": LONGEST_S,
    }  # fmt: skip
    return Door(**(chosen | options))


@contextmanager
def running(
    folder: Path, *, work: Work = echoing, ways: Sequence[tuple[Destination, Sender]] = (),
    seal: Any = None, max_bytes: int = LIMIT, dropped: Sequence[str] = (), **options: Any,
) -> Iterator[tuple[Node, Queue]]:  # fmt: skip
    """A node at work; options of its door."""
    queue = Queue(folder, seal=seal, max_bytes=max_bytes)
    metrics = Metrics(lambda: queue.counts, tuple(d.name for d, _ in ways))
    node = Node(
        queue, work, door=door(**options), ways=tuple(ways), metrics=metrics, http_port=0,
        dropped=frozenset(dropped),
    )  # fmt: skip
    try:
        node.start()
        yield node, queue
    finally:
        node.stop()
        queue.close()


def held(queue: Queue) -> int:
    """How many objects wait for an analysis or lie dead, at one moment."""
    counts = queue.counts
    return counts.received + counts.dead


def wait_until(queue: Queue, condition: Callable[[], bool]) -> None:
    """Until a step of the queue has made it so."""
    for _ in range(int(LONGEST_S / 0.02)):
        if condition():
            return
        queue.wait(0.02)
    raise AssertionError("it did not come to that")


def steps(loop: Loop) -> int:
    """Do all that there is to do, on this thread; how many steps it took."""
    number = 0
    while loop.step():
        number += 1
        assert number < 1000
    return number
