"""The real server process over HTTP."""

from __future__ import annotations

import errno
import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from spinexr.errors import ConfigurationError
from spinexr.server import check_listening
from spinexr.settings import MEBIBYTE
from tests import builders
from tests.analyses import schema_errors
from tests.processes import ROOT, Server, environment, free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")


@pytest.fixture(scope="module")
def server(untrained_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`python app.py` with untrained weights, ready."""
    spool = tmp_path_factory.mktemp("spool")
    server = Server(
        [sys.executable, "app.py"],
        free_port(),
        SPINEXR_WEIGHTS=str(untrained_root),
        SPINEXR_UPLOADS=str(spool),
    )
    try:
        server.wait_for_log("models ready")
        yield server
    finally:
        server.kill()


def test_health_is_ok_and_names_the_bundle(server: Server) -> None:
    status, health = server.health()
    assert status == 200
    assert health["bundle"]["name"] == "untrained"
    assert [m["architecture"] for m in health["models"]] == [
        "densenet121",
        "resnet50",
        "tf_efficientnetv2_s",
        "yolo11n",
    ]


def test_an_upload_gives_json_that_follows_the_schema(server: Server) -> None:
    status, body = server.upload(builders.dicom(builders.pixels(640, 416)))
    assert status == 200
    document = json.loads(body)
    assert schema_errors(document) == []
    assert document["decision"] == "abnormal"
    assert document["detection"]["ran"]


def test_an_upload_of_more_than_a_buffer_gives_a_page(server: Server) -> None:
    data = builders.dicom(builders.pixels(1200, 800))
    assert len(data) > MEBIBYTE
    status, page = server.upload(data, accept="text/html")
    assert status == 200
    assert "Untrained weights" in page


def test_the_health_check_of_the_images_passes_here_and_fails_where_nothing_serves(
    server: Server,
) -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    checks = re.findall(r"^HEALTHCHECK .*\\\n\s+CMD (\[.*\])$", text, re.MULTILINE)
    assert len(checks) == 2
    for check in checks:
        _, *arguments = json.loads(check)
        for port, status in ((server.url.rsplit(":", 1)[1], 0), (str(free_port()), 1)):
            done = subprocess.run(
                [sys.executable, *arguments],
                env=environment() | {"PORT": port}, capture_output=True, check=False,
            )  # fmt: skip
            assert done.returncode == status


def test_17_megabytes_are_refused_with_an_answer_that_arrives(server: Server) -> None:
    status, body = server.upload(builders.dicom() + bytes(17 * MEBIBYTE))
    assert (status, json.loads(body)["code"]) == (413, "too_large")


def test_an_aborted_upload_leaves_the_server_well(server: Server) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
    connection.putrequest("POST", "/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(b"--x\r\n")
    connection.close()
    assert server.health()[0] == 200


def test_without_weights_it_starts_answers_and_ends(tmp_path: Path) -> None:
    server = Server(
        [sys.executable, "-m", "gunicorn", "app:app"],
        free_port(),
        SPINEXR_WEIGHTS=str(tmp_path),
        SPINEXR_UPLOADS=str(tmp_path / "uploads"),
    )
    try:
        server.wait_for_log("models not ready")
        status, health = server.health()
        assert status == 503
        assert len(health["problems"]) == 4
        assert "best.pt is missing" in server.get("/")[1]
        status, body = server.upload(builders.dicom())
        assert (status, json.loads(body)["code"]) == (503, "models_not_ready")
    finally:
        code, log = server.stop()
    assert code == 0
    assert "Traceback" not in log
    assert list((tmp_path / "uploads").iterdir()) == []


def test_every_line_of_a_json_log_is_json_gunicorn_s_too(tmp_path: Path) -> None:
    server = Server(
        [sys.executable, "-m", "gunicorn", "app:app"],
        free_port(),
        SPINEXR_WEIGHTS=str(tmp_path),
        SPINEXR_UPLOADS=str(tmp_path / "uploads"),
        SPINEXR_LOG_FORMAT="json",
    )
    try:
        server.wait_for_log("models not ready")
        (worker,) = (
            child
            for child in psutil.Process(server.process.pid).children()
            if "gunicorn" in " ".join(child.cmdline())
        )
        worker.kill()
        killed = json.loads(server.wait_for_log("SIGKILL"))
        assert killed["level"] == "error"
        server.wait_for_log("models not ready", times=2)
    finally:
        _code, log = server.stop()
    for line in log.splitlines():
        assert {"event", "level", "timestamp"} <= json.loads(line).keys()


def test_it_ends_in_order_while_networks_are_compiled(untrained_root: Path, tmp_path: Path) -> None:
    server = Server(
        [sys.executable, "app.py"],
        free_port(),
        SPINEXR_WEIGHTS=str(untrained_root),
        SPINEXR_UPLOADS=str(tmp_path / "uploads"),
        SPINEXR_ENGINES=str(tmp_path / "engines"),
    )
    try:
        server.wait_for_log("compiling")
    finally:
        code, log = server.stop()
    assert code == 0
    assert "SIG" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("command", [["app.py"], ["-m", "gunicorn", "app:app"]])
def test_a_nonsensical_setting_ends_the_start_with_a_sentence(command: list[str]) -> None:
    import subprocess

    done = subprocess.run(
        [sys.executable, *command],
        cwd=Path(__file__).parent.parent,
        env=environment(PORT="http"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "PORT='http' is not valid" in done.stderr
    assert "Traceback" not in done.stderr


def test_17_megabytes_without_announced_length_are_too_large(server: Server) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    parts = [head, *[bytes(MEBIBYTE)] * 17, b"\r\n--x--\r\n"]
    headers = {"Content-Type": "multipart/form-data; boundary=x", "Accept": "application/json"}
    connection.request("POST", "/upload", iter(parts), headers, encode_chunked=True)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (413, "too_large")
    connection.close()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"SPINEXR_UPLOADS": "/proc/nothing"}, "Uploads cannot be kept in /proc/nothing"),
        ({"SPINEXR_HOST": "999.1.1.1"}, "999.1.1.1"),
    ],
)
def test_what_keeps_it_from_starting_is_one_sentence(
    environ: dict[str, str], expected: str
) -> None:
    code, log = Server([sys.executable, "app.py"], free_port(), **environ).ended()
    assert code != 0
    assert expected in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["app.py"], "Set PORT to another port"),
        (["-m", "gunicorn", "app:app"], "Connection in use"),  # it asks five times
    ],
)
def test_a_taken_port_ends_the_start_and_is_named(command: list[str], expected: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port: int = taken.getsockname()[1]
        code, log = Server([sys.executable, *command], port).ended()
    assert code != 0
    assert expected in log
    assert str(port) in log
    assert "Traceback" not in log


def test_a_machine_without_ipv6_is_told_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = socket.AF_INET, *rest: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *rest)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1 where there is no IPv6"):
        check_listening("::1", free_port())
    check_listening("127.0.0.1", free_port())


def test_with_256_mb_of_memory_it_starts_and_warns(tmp_path: Path) -> None:
    limited = (
        "import resource as r, os, sys; r.setrlimit(r.RLIMIT_DATA, (256 * 2**20,) * 2); "
        "os.execv(sys.executable, [sys.executable, 'app.py'])"
    )
    server = Server(
        [sys.executable, "-c", limited],
        free_port(),
        SPINEXR_WEIGHTS=str(tmp_path),
        SPINEXR_UPLOADS=str(tmp_path / "uploads"),
    )
    try:
        assert "may use 256 MB of memory" in server.wait_for_log("little memory")
        server.wait_for_log("models not ready")
        assert server.get("/livez")[0] == 200
    finally:
        server.kill()
