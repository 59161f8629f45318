"""The ways out: whatever a destination answers is one of three errors, or nothing."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pydicom import uid

from spinexr.errors import (
    DestinationDeniedError,
    DestinationUnavailableError,
    NodeError,
    ObjectRefusedError,
)
from spinexr.node import network, senders
from spinexr.node.configuration import Tls
from tests.node import certificates, peers
from tests.node.peers import Archive, Web, destination, report


@pytest.fixture
def archive() -> Iterator[Archive]:
    made = Archive()
    yield made
    made.close()


def dicom(archive: Archive, **options: object) -> senders.Sender:
    return senders.to(destination(archive.port, **options), ae_title=peers.NODE)


def test_what_is_sent_is_kept_as_it_is(archive: Archive) -> None:
    dicom(archive).send(report("hello"))
    assert archive.texts == ["hello"]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (0xA700, DestinationUnavailableError),
        (0xA702, DestinationUnavailableError),
        (0x0213, DestinationUnavailableError),
        (peers.SILENCE, DestinationUnavailableError),
        (0x0124, DestinationDeniedError),
        (0xA900, ObjectRefusedError),
        (0xC000, ObjectRefusedError),
        (0x0122, ObjectRefusedError),
        (0xB000, None),
    ],
)
def test_every_status_of_c_store_means_something(
    archive: Archive, status: int, error: type[NodeError] | None
) -> None:
    archive.answers = [status]
    sender = dicom(archive)
    if error is None:
        sender.send(report())
    else:
        with pytest.raises(error, match="archive"):
            sender.send(report())
    assert len(archive.kept) == (error is None)
    sender.send(report())  # the next one gets through


def test_an_archive_that_does_not_know_the_title_denies(archive: Archive) -> None:
    with pytest.raises(DestinationDeniedError, match="called AE title"):
        dicom(archive, ae_title="OTHER").send(report())


def test_an_archive_that_takes_no_such_objects_refuses(archive: Archive) -> None:
    with pytest.raises(ObjectRefusedError, match="kind"):
        dicom(archive).send(report(storage=uid.EnhancedSRStorage))


def test_an_archive_that_is_not_there_is_unavailable() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        sender = senders.to(destination(nobody.getsockname()[1]), ae_title=peers.NODE)
        with pytest.raises(DestinationUnavailableError):
            sender.send(report())


@pytest.mark.parametrize("scheme", ["dicom", "http"])
def test_one_that_takes_the_call_and_never_answers_is_unavailable(scheme: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        there = destination(silent.getsockname()[1], scheme=scheme, timeout_s=0.2)
        with pytest.raises(DestinationUnavailableError):
            senders.to(there, ae_title=peers.NODE).send(report())


def test_one_that_stops_reading_is_unavailable(archive: Archive) -> None:
    with socket.create_server(("127.0.0.1", 0)) as between:
        between.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        there = destination(between.getsockname()[1], timeout_s=0.5)
        enough = threading.Event()
        relay = threading.Thread(target=let_in, args=(between, archive.port, enough))
        relay.start()
        with pytest.raises(DestinationUnavailableError):
            senders.to(there, ae_title=peers.NODE).send(report(more=bytes(20_000_000)))
        enough.set()
        relay.join()


def let_in(between: socket.socket, port: int, enough: threading.Event) -> None:
    """Hand on what makes an association, and nothing after it."""
    caller, _ = between.accept()
    with caller, socket.create_connection(("127.0.0.1", port)) as archive:
        archive.sendall(caller.recv(65536))
        caller.sendall(archive.recv(65536))
        enough.wait()


def test_tls_judges_the_archive_s_certificate(tmp_path: Path) -> None:
    made = certificates.make(tmp_path)
    archive = Archive(tls=network.server_context(Tls(made.node, made.node_key, made.authority)))
    try:
        tls = Tls(made.caller, made.caller_key, made.authority)
        options = {"scheme": "dicoms", "host": "localhost"}
        dicom(archive, tls=tls, **options).send(report("hello"))
        assert archive.texts == ["hello"]
        for wrong in (Tls(made.caller, made.caller_key), Tls(authority=made.authority)):
            with pytest.raises(DestinationUnavailableError):
                dicom(archive, tls=wrong, **options).send(report())
        with pytest.raises(DestinationUnavailableError):  # made out to localhost
            dicom(archive, tls=tls, scheme="dicoms", host="127.0.0.1").send(report())
    finally:
        archive.close()


# --- STOW-RS --------------------------------------------------------------------------------------


def failed(reason: int, sequence: str = "00081198") -> bytes:
    item = {"00081197": {"vr": "US", "Value": [reason]}}
    return json.dumps({sequence: {"vr": "SQ", "Value": [item]}}).encode()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ((200, b"{}"), None),
        ((200, b""), None),
        ((202, failed(0xA700)), DestinationUnavailableError),
        ((202, failed(0xC000)), ObjectRefusedError),
        ((202, failed(0x0110, "0008119A")), ObjectRefusedError),
        ((409, failed(0x0111)), None),
        ((409, failed(0x0122)), ObjectRefusedError),
        ((409, failed(0xA700)), DestinationUnavailableError),
        ((409, b"<html>"), ObjectRefusedError),
        ((400, b""), ObjectRefusedError),
        ((415, b""), ObjectRefusedError),
        ((401, b""), DestinationDeniedError),
        ((403, b""), DestinationDeniedError),
        ((429, b""), DestinationUnavailableError),
        ((500, b""), DestinationUnavailableError),
        ((503, b""), DestinationUnavailableError),
        ((200, b"<html>welcome"), DestinationUnavailableError),
        ((302, b"http://127.0.0.1:9/"), DestinationUnavailableError),
    ],
)
def test_every_answer_of_stow_means_something(
    answer: tuple[int, bytes], error: type[NodeError] | None
) -> None:
    web = Web(answer)
    sender = senders.to(destination(web.port, scheme="http", path="/dicom-web"), ae_title="X")
    try:
        if error is None:
            sender.send(report())
        else:
            with pytest.raises(error, match="archive"):
                sender.send(report())
        assert len(web.bodies) == 1  # asked once: to try again is the queue's work
        assert report() in web.bodies[0]
        assert web.headers[0]["path"] == "/dicom-web/studies"
    finally:
        web.close()
    connections = psutil.Process().net_connections()
    assert not [c for c in connections if c.raddr and c.raddr.port == web.port], "left open"


def test_https_judges_the_archive_s_certificate_as_dicoms_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificates.make(tmp_path)
    web = Web(tls=network.server_context(Tls(made.node, made.node_key, made.authority)))

    def send(tls: Tls, host: str = "localhost") -> None:
        there = destination(web.port, scheme="https", host=host, tls=tls)
        senders.to(there, ae_title="X").send(report())

    mine = Tls(made.caller, made.caller_key)
    both = replace(mine, authority=made.authority)
    try:
        send(both)
        for wrong, host in (
            (mine, "localhost"), (Tls(authority=made.authority), "localhost"),
            (both, "127.0.0.1"),  # made out to localhost
        ):  # fmt: skip
            with pytest.raises(DestinationUnavailableError):
                send(wrong, host)
        monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))  # the system's own list
        send(mine)
    finally:
        web.close()
    assert len(web.bodies) == 2


@pytest.mark.parametrize(
    ("kind", "answer", "error"),
    [
        ("text/html; charset=utf-8", (200, b"<html>log in"), DestinationUnavailableError),
        ("application/dicom+json; charset=utf-8", (202, failed(0xC000)), ObjectRefusedError),
        ("application/DICOM+JSON", (202, failed(0xA700)), DestinationUnavailableError),
    ],
)
def test_success_counts_in_the_words_of_dicomweb_alone(
    kind: str, answer: tuple[int, bytes], error: type[NodeError]
) -> None:
    web = Web(answer, kind=kind)
    try:
        with pytest.raises(error):
            senders.to(destination(web.port, scheme="http"), ae_title="X").send(report())
    finally:
        web.close()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, None),
        ({"user": "spx", "secret": "pass"}, "Basic c3B4OnBhc3M="),
        ({"secret": "token"}, "Bearer token"),
    ],
)
def test_a_login_is_sent_where_there_is_one(options: dict[str, str], expected: str | None) -> None:
    web = Web()
    try:
        senders.to(destination(web.port, scheme="http", **options), ae_title="X").send(report())
    finally:
        web.close()
    assert web.headers[0].get("Authorization") == expected


def test_a_large_object_is_sent_in_one_piece() -> None:
    web = Web()
    try:
        sender = senders.to(destination(web.port, scheme="http"), ae_title="X")
        sender.send(report("x" * 64, more=bytes(3_000_000)))
    finally:
        web.close()
    assert len(web.bodies[0]) > 3_000_000
    assert "Transfer-Encoding" not in web.headers[0]
