"""The way in: who may send, what is taken, and what peers may do without harm."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import uid
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import encode

from spinexr.errors import ConfigurationError, NotDicomError
from spinexr.node import network, receiver
from spinexr.node.configuration import Tls
from spinexr.node.queue import Queue
from spinexr.node.work import Answer
from tests import builders
from tests.node import certificates, peers
from tests.node.peers import VERIFICATION, association, radiograph, running, send
from tests.processes import ROOT


def never(_data: bytes, _caller: str) -> Any:
    """Work that ends with a dead letter, so that the object stays in the queue."""
    raise NotDicomError("kept for the test to look at")


def test_an_echo_is_answered(tmp_path: Path) -> None:
    with running(tmp_path) as (node, _queue), association(node.port) as found:
        assert found.send_c_echo().Status == 0x0000


@pytest.mark.parametrize(
    ("caller", "called", "why"),
    [("STRANGER", peers.NODE, 0x03), (peers.CALLER, "OTHER", 0x07)],
)
def test_an_unknown_ae_title_is_rejected(
    tmp_path: Path, caller: str, called: str, why: int
) -> None:
    with (
        running(tmp_path) as (node, _queue),
        association(node.port, caller=caller, called=called) as found,
    ):
        assert found.is_rejected
        assert found.acceptor.primitive is not None
        assert found.acceptor.primitive.diagnostic == why


@pytest.mark.parametrize(
    "context",
    [
        {"storage": uid.CTImageStorage},
        {"storage": uid.EncapsulatedPDFStorage},
        {"syntax": uid.MPEG2MPML},
        {"syntax": uid.HTJ2K},
    ],
)
def test_other_objects_and_compressions_are_not_agreed_on(
    tmp_path: Path, context: dict[str, str]
) -> None:
    with running(tmp_path) as (node, _queue), association(node.port, **context) as found:
        accepted = {c.abstract_syntax for c in found.accepted_contexts}
    assert accepted == {VERIFICATION}


def test_orthanc_s_script_forwards_the_kinds_of_images_that_are_accepted() -> None:
    script = (ROOT / "deploy/orthanc/forward.lua").read_text(encoding="utf-8")
    assert set(re.findall(r"\['([\d.]+)'\] = true", script)) == set(receiver.STORAGE_CLASSES)


@pytest.mark.parametrize("syntax", builders.LOSSLESS | builders.LOSSY)
def test_every_compression_that_the_reader_knows_is_kept_as_it_came(
    tmp_path: Path, syntax: str
) -> None:
    chosen = (builders.LOSSLESS | builders.LOSSY)[syntax]
    seen = []

    def work(data: bytes, caller: str) -> Any:
        seen.append(data)
        return Answer((), "normal")

    image = radiograph(transfer_syntax=chosen)
    with running(tmp_path, work=work) as (node, queue):
        assert send(node.port, image) == [0x0000]
        peers.wait_until(queue, lambda: queue.counts.received == 0)
    kept = pydicom.dcmread(BytesIO(seen[0]))
    assert kept.file_meta.TransferSyntaxUID == chosen
    assert kept.PixelData == image.PixelData


def test_the_same_object_is_taken_twice_and_another_with_its_uid_is_not(tmp_path: Path) -> None:
    with running(tmp_path, work=never) as (node, queue):
        first, other = radiograph(0), radiograph(0, seed=1)
        assert send(node.port, first, first, other) == [0x0000, 0x0000, receiver.DIFFERS]
        assert send(node.port, other, caller="CR2") == [receiver.DIFFERS]
        assert peers.held(queue) == 1


def test_without_room_the_sender_hears_so_and_may_try_again(tmp_path: Path) -> None:
    with running(tmp_path, max_bytes=1) as (node, queue):
        assert send(node.port, radiograph()) == [receiver.NO_ROOM]
        queue._max_bytes = peers.LIMIT
        assert send(node.port, radiograph()) == [0x0000]


def test_an_object_that_cannot_be_kept_for_a_fault_of_ours_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("Mustermann")

    monkeypatch.setattr(Queue, "receive", broken)
    with running(tmp_path) as (node, _queue):
        assert send(node.port, radiograph()) == [receiver.FAULT]


def test_an_object_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    with running(tmp_path) as (node, queue):
        node._receiver._door = peers.door(max_bytes=1000)
        with association(node.port) as found:
            answer = found.send_c_store(radiograph())
        assert answer.get("Status") == receiver.TOO_LARGE
        assert queue.counts.received == 0
        node._receiver._door = peers.door()
        assert send(node.port, radiograph()) == [0x0000]


def test_an_object_that_goes_on_and_on_ends_its_association(tmp_path: Path) -> None:
    image = radiograph()
    image.PixelData = bytes(8 * 1024 * 1024)
    with running(tmp_path) as (node, queue):
        with association(node.port) as found:
            assert found.send_c_store(image).get("Status") is None
            found.join(peers.LONGEST_S)
            assert not found.is_alive()
        assert queue.counts.received == 0
        assert send(node.port, radiograph(1)) == [0x0000]


def test_an_association_that_is_aborted_keeps_what_was_answered(tmp_path: Path) -> None:
    with running(tmp_path, work=never) as (node, queue):
        with association(node.port) as found:
            assert found.send_c_store(radiograph()).Status == 0x0000
            found.abort()
        assert peers.held(queue) == 1
        assert send(node.port, radiograph(1)) == [0x0000]


def test_half_an_object_is_none(tmp_path: Path) -> None:
    with running(tmp_path, work=never) as (node, queue):
        with association(node.port) as found:
            connection: Any = found.dul.socket
            raw, real = connection.socket, connection.send
            sent: list[bytes] = []

            def half(data: bytes) -> None:
                sent.append(data)
                if len(sent) == 2:  # the command is whole, its object is not
                    raw.sendall(data[: len(data) // 2])
                    raw.shutdown(socket.SHUT_RDWR)
                    return
                real(data)

            connection.send = half
            assert found.send_c_store(radiograph()).get("Status") is None
        assert queue.counts.received == queue.counts.dead == 0
        assert send(node.port, radiograph(1)) == [0x0000]


def request_pdu(length: int) -> bytes:
    return b"\x01\x00" + length.to_bytes(4, "big")


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        request_pdu(0xFFFFFFFF),
        request_pdu(100) + b"\xff" * 100,
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03",
    ],
    ids=["http", "4 GB", "nonsense", "data first"],
)
def test_whatever_else_speaks_to_the_port_is_hung_up_on(tmp_path: Path, data: bytes) -> None:
    # The protocol gives a peer that was told to abort this long to hang up itself.
    with running(tmp_path, timeout_s=1.0) as (node, _queue):
        with socket.create_connection(("127.0.0.1", node.port), timeout=peers.LONGEST_S) as raw:
            raw.sendall(data)
            with contextlib.suppress(ConnectionResetError):
                while raw.recv(1024):  # an A-ABORT, perhaps, and the end
                    pass
        server: Any = node._receiver._server
        ae = server.ae
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = peers.LONGEST_S
        assert send(node.port, radiograph()) == [0x0000]


def test_a_silent_peer_is_hung_up_on_in_time(tmp_path: Path) -> None:
    with (
        running(tmp_path, timeout_s=0.3) as (node, _queue),
        socket.create_connection(("127.0.0.1", node.port), timeout=peers.LONGEST_S) as raw,
    ):
        raw.sendall(request_pdu(200) + b"\x00")  # and no more
        while raw.recv(1024):
            pass


def test_more_associations_than_allowed_are_rejected(tmp_path: Path) -> None:
    with running(tmp_path, associations=2) as (node, queue):
        with association(node.port) as a, association(node.port) as b:
            assert a.is_established
            assert b.is_established
            with association(node.port) as c:
                assert c.is_rejected
        server: Any = node._receiver._server
        peers.wait_until(queue, lambda: not server.active_associations)
        assert send(node.port, radiograph()) == [0x0000]


def test_connections_that_ask_for_nothing_keep_nobody_out(tmp_path: Path) -> None:
    """As those of a monitor: the library would count each for a timeout."""
    with running(tmp_path, associations=2) as (node, queue):
        server: Any = node._receiver._server
        begin, begun = server.process_request_thread, []

        def counted(*connection: Any) -> None:
            begin(*connection)
            begun.append(connection)

        server.process_request_thread = counted
        for _ in range(6):
            socket.create_connection(("127.0.0.1", node.port)).close()
        peers.wait_until(queue, lambda: len(begun) == 6 and not server.active_associations)
        assert send(node.port, radiograph()) == [0x0000]


def test_a_peer_that_waits_for_no_answer_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it sends meanwhile lies in memory."""
    go_on, receive = threading.Event(), Queue.receive

    def held_up(*args: Any, **options: Any) -> Any:
        go_on.wait(peers.LONGEST_S)
        return receive(*args, **options)

    monkeypatch.setattr(Queue, "receive", held_up)
    image = radiograph()
    with running(tmp_path, work=never) as (node, _queue):
        with association(node.port) as found:
            (context,) = (c for c in found.accepted_contexts if c.abstract_syntax != VERIFICATION)
            for n in range(6):
                request = C_STORE()
                request.MessageID, request.Priority = n + 1, 2
                request.AffectedSOPClassUID = image.SOPClassUID
                request.AffectedSOPInstanceUID = image.SOPInstanceUID
                request.DataSet = BytesIO(encode(image, False, True) or b"")
                found.dimse.send_msg(request, context.context_id or 0)
            found.join(peers.LONGEST_S)
            assert found.is_aborted
        go_on.set()
        assert send(node.port, radiograph(1)) == [0x0000]


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match="SPINEXR_NODE_PORT"),
            running(tmp_path, port=port),
        ):
            pass


def test_eight_callers_at_once_are_all_answered(tmp_path: Path) -> None:
    answers: dict[int, list[int]] = {}

    def sending(thread: int) -> None:
        images = [radiograph(1000 * thread + n) for n in range(5)]
        answers[thread] = send(node.port, *images)

    with running(tmp_path, work=never) as (node, queue):
        threads = [threading.Thread(target=sending, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == dict.fromkeys(range(8), [0x0000] * 5)
        assert peers.held(queue) == 40


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> certificates.Made:
    return certificates.make(tmp_path_factory.mktemp("tls"))


def test_with_tls_only_callers_with_a_certificate_get_in(
    tmp_path: Path, made: certificates.Made
) -> None:
    server = network.server_context(Tls(made.node, made.node_key, made.authority))
    known = network.client_context(Tls(made.caller, made.caller_key, made.authority))
    unknown = network.client_context(Tls(authority=made.authority))
    with running(tmp_path, tls=server) as (node, _queue):
        assert send(node.port, radiograph(), tls=(known, "localhost")) == [0x0000]
        for wrong in ((unknown, "localhost"), None):
            with association(node.port, tls=wrong) as found:
                assert not found.is_established
        assert send(node.port, radiograph(1), tls=(known, "localhost")) == [0x0000]


def test_a_handshake_that_does_not_go_on_holds_up_nobody(
    tmp_path: Path, made: certificates.Made
) -> None:
    server = network.server_context(Tls(made.node, made.node_key))
    client = network.client_context(Tls(authority=made.authority))
    with (
        running(tmp_path, tls=server) as (node, _queue),
        socket.create_connection(("127.0.0.1", node.port)),
    ):
        assert send(node.port, radiograph(), tls=(client, "localhost")) == [0x0000]


def test_files_that_hold_no_certificate_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("no certificate")
    with pytest.raises(ConfigurationError, match="TLS files"):
        network.server_context(Tls(tmp_path / "a", tmp_path / "a"))


def test_old_tls_is_not_spoken(made: certificates.Made) -> None:
    context = network.server_context(Tls(made.node, made.node_key))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
