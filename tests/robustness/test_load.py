"""Many clients, long runs, clients that go away or take their time, and an end in the middle."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests import builders, scale
from tests.processes import ROOT, free_port, wait_for_port
from tests.robustness.service import Answer, Client, Service, multipart, running

SOON_S = 1.0
FILES = [builders.dicom(builders.pixels(160, 112, seed=n)) for n in range(4)]


def upload_head(body: bytes, more: bytes = b"") -> bytes:
    """The head of a request with a body of `multipart`."""
    boundary = body[2:].split(b"\r", 1)[0]
    return (
        b"POST /upload HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n" + more
        + b"Content-Type: multipart/form-data; boundary=" + boundary
        + b"\r\nContent-Length: %d\r\n\r\n" % len(body)
    )  # fmt: skip


def result(answer: Answer) -> tuple[object, ...]:
    """What of an answer must not depend on what else goes on."""
    document = answer.document
    findings = [(f["label"], f["confidence"], *f["box"].values())
                for f in document["detection"]["findings"]]  # fmt: skip
    return (document["decision"], document["probability"], *findings)


def alone(service: Service) -> list[tuple[object, ...]]:
    """The results of FILES, one at a time."""
    client = service.client()
    try:
        return [result(client.post(data)) for data in FILES]
    finally:
        client.close()


def watch(service: Service, over: threading.Event, times: list[float]) -> None:
    """Ask whether it lives, again and again."""
    client = service.client()
    while not over.wait(0.02):
        answer = client.get("/livez")
        assert answer.status == 200
        times.append(answer.seconds)
    client.close()


def crowd(
    service: Service, *, clients: int, seconds: float, check: Callable[[int, Answer], None],
    patient: bool,
) -> list[float]:  # fmt: skip
    """`clients` that send for so long, each as soon as it has its answer; times of /livez.

    Args:
        patient: a client that is told to come back later waits a little.
    """
    over, times = threading.Event(), list[float]()
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        choose = random.Random(number)  # noqa: S311  (not for secrets)
        with contextlib.closing(service.client()) as client:
            while time.monotonic() < end:
                which = choose.randrange(len(FILES))
                answer = client.post(FILES[which])
                check(which, answer)
                if patient and answer.status == 503:
                    over.wait(choose.uniform(0.05, 0.2))

    with ThreadPoolExecutor(clients + 1) as pool:
        watching = pool.submit(watch, service, over, times)
        sending = [pool.submit(work, n) for n in range(clients)]
        try:
            for one in sending:
                one.result()
        finally:
            over.set()
        watching.result()
    return times


@pytest.mark.parametrize(("name", "clients", "patient"), [("full", 32, True), ("over", 128, False)])
def test_under_load_each_accepted_request_has_the_answer_it_has_alone(
    small_weights: Path, tmp_path: Path, name: str, clients: int, patient: bool
) -> None:
    """32 clients, then four times as many that do not wait.

    Seen failing where an answer is somebody else's (tools/weaken.py).
    """
    seconds = scale.pick(30.0, 600.0 if name == "full" else 120.0)
    outcomes: Counter[str] = Counter()
    lock = threading.Lock()
    with running(small_weights, tmp_path) as service:
        expected = alone(service)

        def check(which: int, answer: Answer) -> None:
            with lock:
                outcomes[answer.code or str(answer.status)] += 1
            if answer.status == 503:
                assert answer.code == "busy"
            else:
                assert answer.status == 200, answer
                assert result(answer) == expected[which]

        times = crowd(service, clients=clients, seconds=seconds, check=check, patient=patient)
        assert outcomes["200"] > 0
        # Every answer was counted once, and no request was answered twice.
        posted = service.metric("spinexr_requests_total", endpoint="upload.upload")
        assert posted == outcomes.total() + len(FILES)
        assert service.leftovers() == []
    p99 = float(np.quantile(times, 0.99))
    scale.record(f"load, {name}", clients=clients, seconds=seconds, livez_p99_ms=round(p99 * 1000),
                 **outcomes)  # fmt: skip
    if scale.LONG:  # on a quiet machine; the short form shares its cores with whatever else runs
        assert p99 < 0.2


def test_nothing_grows_with_the_number_of_requests(small_weights: Path, tmp_path: Path) -> None:
    """Seen failing where each image is kept (tools/weaken.py)."""
    number = scale.pick(300, 10_000)
    warm = number // 3
    memory: list[tuple[int, float]] = []
    with running(small_weights, tmp_path) as service:
        client = service.client()
        for n in range(number):
            answer = client.post(FILES[n % len(FILES)])
            assert answer.status == 200
            if n == warm:
                files, threads = service.open_files(), service.threads()
            if n >= warm and n % max(1, number // 60) == 0:
                memory.append((n, service.own_mb()))
        client.close()
        assert service.open_files() <= files + 2
        assert service.threads() <= threads + 2
        assert service.leftovers() == []
    requests, megabytes = np.array(memory).T
    slope, level = np.polyfit(requests, megabytes, 1)
    growth = 1000 * slope / (level + slope * number)
    scale.record("soak", requests=number, growth_per_1000=round(float(growth), 5),
                 first_mb=round(memory[0][1]), last_mb=round(memory[-1][1]))  # fmt: skip
    # A short run is too short to tell a slope from a step: there it must not be a leak of pixels.
    assert growth < scale.pick(0.10, 0.01)


def test_clients_that_go_away_while_they_send_leave_nothing(
    service: Service, client: Client
) -> None:
    """Seen failing where spool files have names and stay until the next start
    (tools/weaken.py).
    """
    body = multipart(builders.dicom(builders.pixels(800, 600)))
    head = upload_head(body)
    choose = random.Random(0)  # noqa: S311
    files = service.open_files()
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
            connection.sendall(head + body[: choose.randrange(len(body))])
    start = time.monotonic()
    assert client.get("/livez").status == 200
    assert time.monotonic() - start < SOON_S
    assert client.post(FILES[0]).status == 200
    assert service.leftovers() == []
    ends = time.monotonic() + 60
    while service.open_files() > files + 2 and time.monotonic() < ends:
        time.sleep(0.05)  # connections are being closed
    assert service.open_files() <= files + 2


def test_a_slow_upload_is_cut_and_its_thread_freed(small_weights: Path, tmp_path: Path) -> None:
    """Seen failing where uploads have no clock (tools/weaken.py)."""
    body = multipart(FILES[0])
    head = upload_head(body)
    with running(small_weights, tmp_path, SPINEXR_UPLOAD_TIMEOUT_S="1", SPINEXR_QUEUE="1",
                 SPINEXR_WEB_THREADS="2") as service:  # fmt: skip
        slow = [socket.create_connection(("127.0.0.1", service.port), timeout=30) for _ in "12"]
        for connection in slow:  # both threads are taken now
            connection.sendall(head + body[:100])
        for connection in slow:
            with connection:
                answer = connection.recv(65536)
                assert answer.startswith(b"HTTP/1.1 408")
                assert b"upload_timeout" in answer + connection.recv(65536)
                assert connection.recv(1) == b""  # and the connection is closed
        with contextlib.closing(service.client()) as client:
            assert client.post(FILES[0]).status == 200
        assert service.leftovers() == []


def test_a_head_that_does_not_end_is_not_waited_for(small_weights: Path, tmp_path: Path) -> None:
    """Seen failing where heads have no clock (tools/weaken.py)."""
    with running(small_weights, tmp_path, SPINEXR_QUEUE="1", SPINEXR_WEB_THREADS="2") as service:
        slow = [socket.create_connection(("127.0.0.1", service.port), timeout=60) for _ in "12"]
        for connection in slow:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: local")
        for connection in slow:
            with connection:
                assert connection.recv(1) == b""
        with contextlib.closing(service.client()) as client:
            assert client.get("/livez").status == 200


@pytest.fixture
def proxied(small_weights: Path, tmp_path: Path) -> Iterator[tuple[Service, int]]:
    """A service behind nginx with deploy/nginx.conf, and the proxy's port."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.skip("nginx is not installed")
    port = free_port()
    with running(small_weights, tmp_path, SPINEXR_PROXIES="1") as service:
        text = (ROOT / "deploy/nginx.conf").read_text(encoding="utf-8")
        text = text.replace("127.0.0.1:5000", f"127.0.0.1:{service.port}")
        text = text.replace("listen 8080", f"listen 127.0.0.1:{port}")
        text = re.sub(r"limit_conn clients \d+", "limit_conn clients 1000", text)
        text = text.replace("http {", f"http {{ client_body_temp_path {tmp_path}/bodies;", 1)
        text = f"daemon off; pid {tmp_path}/nginx.pid;\n{text}"
        config = tmp_path / "nginx.conf"
        config.write_text(text, encoding="utf-8")
        nginx = subprocess.Popen(
            [program, "-e", "stderr", "-c", str(config)], stderr=subprocess.DEVNULL
        )
        try:
            wait_for_port(port, nginx)
            yield service, port
        finally:
            nginx.terminate()
            nginx.wait(timeout=30)
    assert not [p for p in (tmp_path / "bodies").rglob("*") if p.is_file()]


def test_300_slow_senders_behind_the_proxy_are_nobodys_trouble(
    proxied: tuple[Service, int],
) -> None:
    """Seen failing where the proxy hands on what has not arrived (tools/weaken.py)."""
    service, port = proxied
    body = multipart(FILES[0])
    head = upload_head(body)
    slow = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(300)]
    try:
        for connection in slow:
            connection.sendall(head + body[:500])
        for part in range(5):
            for connection in slow:
                connection.sendall(body[500 + 10 * part : 510 + 10 * part])
            with contextlib.closing(Client(port)) as client:
                livez = client.get("/livez")
                assert livez.status == 200
                assert livez.seconds < SOON_S
                assert client.post(FILES[0]).status == 200
    finally:
        for connection in slow:
            connection.close()
    assert service.leftovers() == []


def test_behind_the_proxy_metrics_are_not_for_the_outside(proxied: tuple[Service, int]) -> None:
    """Seen failing where a proxy passes metrics on (tools/weaken.py)."""
    _, port = proxied
    with contextlib.closing(Client(port)) as client:
        assert client.get("/metrics").status == 403
        assert client.post(FILES[0], Origin=f"http://127.0.0.1:{port}").status == 200
        assert client.post(FILES[0], Origin="http://evil.example").status == 403


def test_an_end_in_the_middle_answers_everybody(small_weights: Path, tmp_path: Path) -> None:
    """Seen failing where an end does not wait (tools/weaken.py)."""
    body = multipart(FILES[0])
    head = upload_head(body, b"Expect: 100-continue\r\n")
    with running(small_weights, tmp_path, SPINEXR_QUEUE="16", SPINEXR_WEB_THREADS="20") as service:
        address = ("127.0.0.1", service.port)
        waiting = [socket.create_connection(address, timeout=60) for _ in range(16)]
        for connection in waiting:
            connection.sendall(head)
        for connection in waiting:  # each has a thread once it is told to go on
            assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        start = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        answers = []
        for connection in waiting:
            connection.sendall(body)
        for connection in waiting:
            with connection:
                response = http.client.HTTPResponse(connection)
                response.begin()
                answers.append((response.status, json.loads(response.read())["decision"]))
        status, log = service.ended()
        seconds = time.monotonic() - start
    assert answers == [(200, "abnormal")] * 16
    assert status == 0, log
    assert seconds <= 25.0
    assert service.leftovers() == []
    scale.record("SIGTERM", in_flight=16, seconds=round(seconds, 1))
