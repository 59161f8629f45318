"""Clients that break the rules of HTTP, hold connections, or come when the server must end."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from spinexr.settings import Settings
from tests import builders
from tests.processes import ROOT, environment, free_port
from tests.robustness.service import Client, Service, running

EASY = builders.dicom()
NAME = "DOE_JANE"


@contextlib.contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as raw:
        yield raw


def answer(raw: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(raw)
    response.begin()
    return response


@pytest.mark.parametrize(
    ("path", "status"), [("/upload", 400), (f"/{NAME}", 404), ("/samples/lumbar-normal", 200)]
)
@pytest.mark.parametrize("body", ["zz\r\n", f"{NAME}\r\n", "5\r\nabcdeXX", f"3;{NAME}=\x01\r\n"])
def test_chunks_that_are_none_are_no_fault_and_leave_no_trace(
    service: Service, path: str, status: int, body: str
) -> None:
    """A sample needs no body, so it is answered.

    Seen failing where chunks that are none are a fault (tools/weaken.py).
    """
    with connected(service) as raw:
        raw.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n"
            f"Transfer-Encoding: chunked\r\n\r\n{body}".encode()
        )
        raw.shutdown(socket.SHUT_WR)
        response = answer(raw)
        assert response.status == status
        kind = "application/json" if status == 200 else "application/problem+json"
        assert response.headers["Content-Type"].split(";")[0] == kind
    assert NAME not in service.log
    assert "Traceback" not in service.log


@pytest.mark.parametrize("header", ["Content-Length: 10", "Transfer-Encoding: chunked"])
def test_a_probe_that_promises_a_body_holds_up_no_other(service: Service, header: str) -> None:
    """Seen failing where a probe may bring a body (tools/weaken.py)."""
    with connected(service) as raw:
        raw.sendall(f"GET /livez HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode())
        with contextlib.closing(Client(service.port, timeout_s=5.0)) as prober:
            assert prober.get("/livez").status == 200


PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def alive(service: Service) -> bool:
    """Whether somebody else hears so within the time of an orchestrator's probe."""
    with contextlib.closing(Client(service.port, timeout_s=5.0)) as prober:
        return all(prober.get(path).status == 200 for path in ("/livez", "/readyz"))


def test_questions_asked_ahead_of_answers_hold_up_no_other(service: Service) -> None:
    """Seen failing where what was read ahead is forgotten (tools/weaken.py)."""
    with connected(service) as raw:
        raw.sendall(2 * PROBE)
        assert answer(raw).status == 200
        assert alive(service)
        raw.sendall(PROBE)
        assert alive(service)


def test_an_upload_that_is_begun_ahead_is_no_probe(service: Service) -> None:
    """Its head ends where a probe follows: together they would hold the probes' thread.

    Seen failing where what was read ahead is forgotten (tools/weaken.py).
    """
    with connected(service) as raw:
        raw.sendall(
            b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\nX: "
        )
        raw.recv(1)
        raw.sendall(b"GET /livez HTTP/1.1\r\n\r\n")  # a second host would be refused
        assert alive(service)


def test_answered_connections_that_stay_open_hold_up_no_other(service: Service) -> None:
    """Seen failing where the end of a connection is waited for (tools/weaken.py)."""
    with contextlib.ExitStack() as held:
        for _ in range(30):
            raw = held.enter_context(connected(service))
            raw.sendall(b"GET /livez HTTP/1.0\r\n\r\n")
        assert alive(service)


def test_what_a_refused_request_still_sends_is_not_heard_for_long(service: Service) -> None:
    """A byte now and then would hold a thread until the time of uploads is over.

    Seen failing where a refused body is heard to its end (tools/weaken.py).
    """
    with connected(service) as raw:
        raw.sendall(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        raw.settimeout(1.0)
        for _ in range(30):  # of the 120 s that an upload has
            raw.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                assert raw.recv(12) == b"HTTP/1.1 404"
                break
        else:
            pytest.fail("no answer")


def test_a_neighbour_that_is_no_proxy_cannot_say_where_it_is(service: Service) -> None:
    """gunicorn believes all of this machine; here a proxy has to be named.

    Seen failing where all of this machine is believed (tools/weaken.py).
    """
    with connected(service) as raw:
        raw.sendall(b"GET /a/livez HTTP/1.1\r\nHost: localhost\r\nSCRIPT_NAME: /a\r\n\r\n")
        assert answer(raw).status == 404


def test_silent_connections_hold_no_thread(small_weights: Path, tmp_path: Path) -> None:
    """Seen failing where silence holds a thread (tools/weaken.py)."""
    with running(small_weights, tmp_path) as service, contextlib.ExitStack() as held:
        for _ in range(150):  # threads: 16
            held.enter_context(connected(service))
        with contextlib.closing(Client(service.port, timeout_s=4.0)) as client:
            assert client.get("/livez").status == 200
            assert client.post(EASY).status == 200


def test_probes_are_answered_while_every_thread_waits_for_an_upload(
    small_weights: Path, tmp_path: Path
) -> None:
    """Seen failing where probes wait with everybody else (tools/weaken.py)."""
    with running(small_weights, tmp_path) as service, contextlib.ExitStack() as held:
        for _ in range(Settings().web_threads):
            raw = held.enter_context(connected(service))
            raw.sendall(
                b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
            )
        for path in ("/livez", "/readyz"):
            with contextlib.closing(Client(service.port, timeout_s=10.0)) as prober:
                assert prober.get(path).status == 200


def test_more_connections_than_may_be_opened_wait_and_end_nothing(
    small_weights: Path, tmp_path: Path
) -> None:
    """Seen failing where a server that may open no more files ends (tools/weaken.py)."""
    with running(small_weights, tmp_path) as service:
        process = psutil.Process(service.worker.pid)
        limits = process.rlimit(resource.RLIMIT_NOFILE)
        with contextlib.ExitStack() as held:
            process.rlimit(resource.RLIMIT_NOFILE, (service.open_files() + 5, limits[1]))
            for _ in range(20):
                held.enter_context(connected(service))
            first = held.enter_context(connected(service))
            process.rlimit(resource.RLIMIT_NOFILE, limits)
            first.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert answer(first).status == 200
        assert service.worker.is_running()
        with contextlib.closing(service.client()) as client:
            assert client.post(EASY).status == 200


def test_a_server_that_was_asked_to_end_is_not_ready_and_finishes_what_it_has(
    small_weights: Path, tmp_path: Path
) -> None:
    """Seen failing where a server that is to end is ready (tools/weaken.py)."""
    with running(small_weights, tmp_path) as service, connected(service) as upload:
        body = b"".join(
            [b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.dcm"\r\n\r\n', EASY,
             b"\r\n--x--\r\n"]
        )  # fmt: skip
        head = (
            "POST /upload HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        upload.sendall(head.encode() + body[:1000])
        probe = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)
        probe.request("GET", "/readyz")
        assert probe.getresponse().read() is not None
        os.kill(service.process.pid, signal.SIGTERM)
        statuses = [200]
        while statuses[-1] == 200:  # until the signal has come to the worker
            probe.request("GET", "/readyz")
            response = probe.getresponse()
            response.read()
            statuses.append(response.status)
        assert statuses[-1] == 503
        upload.sendall(body[1000:])
        assert answer(upload).status == 200
        code, _ = service.ended()
        assert code == 0


def test_an_upload_that_never_comes_does_not_hold_up_the_end(
    small_weights: Path, tmp_path: Path
) -> None:
    """With the default of 20 s for what is in flight that makes 25 s at most.

    Seen failing where an upload that never comes is waited for at the end (tools/weaken.py).
    """
    with (
        running(small_weights, tmp_path, SPINEXR_GRACEFUL_TIMEOUT_S="5") as service,
        connected(service) as raw,
    ):
        raw.sendall(
            b"POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
            b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
        )
        begun = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        service.ended()
        assert time.monotonic() - begun <= 5 + 5


@pytest.mark.parametrize("arguments", [["--bind", "0.0.0.0:{port}"], ["--bind", "[::]:{port}"]])
def test_an_address_given_to_gunicorn_itself_needs_what_one_in_the_settings_needs(
    small_weights: Path, tmp_path: Path, arguments: list[str]
) -> None:
    """Seen failing where an address on gunicorn's command line is let pass (tools/weaken.py)."""
    words = [a.format(port=free_port()) for a in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", *words, "app:app"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        env=environment(SPINEXR_WEIGHTS=str(small_weights), SPINEXR_UPLOADS=str(tmp_path / "u")),
    )  # fmt: skip
    assert done.returncode != 0
    assert "SPINEXR_INSECURE" in done.stderr
