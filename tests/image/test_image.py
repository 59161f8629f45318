"""The image that serves, run on a read-only root: what `tools/image_root.sh` left in TEST_IMAGE.

Needs Linux and root, and minutes to build what it tries: skipped where TEST_IMAGE is not set.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import ROOT, Server, free_port
from tests.robustness.service import Client, proportional_bytes

_GIVEN = os.environ.get("TEST_IMAGE")
pytestmark = pytest.mark.skipif(_GIVEN is None, reason="TEST_IMAGE names no image")
IMAGE = Path(_GIVEN or ".")
IMAGE_ROOT = IMAGE / "root"
_MEGABYTE = 1_000_000

# What a container engine does: the image's root read-only, scratch space, no capabilities.
_START = """
set -e
mkdir -p "$0/uploads"
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t tmpfs -o mode=1777 tmpfs "$0/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$0/uploads"
mount -t tmpfs tmpfs "$0/dev"
for device in null zero random urandom; do
    touch "$0/dev/$device"
    mount --bind "/dev/$device" "$0/dev/$device"
done
mkdir -m 1777 "$0/dev/shm"
mount -t proc proc "$0/proc"
exec chroot "$0" setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set=-all \\
    --no-new-privs env -i "$@"
"""


@pytest.fixture(scope="module")
def config() -> Any:
    return json.loads((IMAGE / "config.json").read_text())


@pytest.fixture(scope="module")
def served(config: Any) -> Iterator[tuple[Server, int]]:
    port = free_port()
    changes = [f"PORT={port}", "SPINEXR_HOST=127.0.0.1", "SPINEXR_UPLOADS=/uploads",
               "PYTHONWARNINGS=ignore"]  # fmt: skip
    start = f"cd {shlex.quote(config['WorkingDir'])} && exec {shlex.join(config['Cmd'])}"
    program = [
        "unshare", "--mount", "--pid", "--fork", "--kill-child",
        "bash", "-c", _START, str(IMAGE_ROOT.resolve()), *config["Env"], *changes,
        "bash", "-c", start,
    ]  # fmt: skip
    server = Server(program, port)
    try:
        server.wait_for_log("models ready")
        yield server, port
    finally:
        server.stop()


def test_it_runs_as_uid_1000_and_says_what_it_is(config: Any) -> None:
    assert config["User"] == "1000"
    assert config["Cmd"] == ["gunicorn", "app:app"]
    assert "PORT=5000" in config["Env"]
    assert config["Labels"]["org.opencontainers.image.title"] == "SpineXR"


def test_it_holds_neither_torch_nor_compiler_nor_checkpoints() -> None:
    packages = {p.name for p in IMAGE_ROOT.glob("usr/local/lib/python3*/site-packages/*")}
    assert "openvino" in packages
    assert not packages & {"torch", "torchvision", "timm", "ultralytics", "scipy", "sklearn"}
    for program in ("gcc", "cc", "make", "git"):
        assert not list(IMAGE_ROOT.glob(f"usr/bin/{program}"))
    app = IMAGE_ROOT / "app"
    assert not [f for f in app.rglob("*") if f.suffix in (".pt", ".pth")]
    assert len(list((app / "engines").glob("*/network.xml"))) == 4


def test_it_adds_at_most_500_mb_to_its_base() -> None:
    added = size(IMAGE_ROOT) - size(IMAGE / "base")
    print(f"image without base: {added / _MEGABYTE:.0f} MB")
    assert added <= 500 * _MEGABYTE


def test_it_answers_on_a_read_only_root(served: tuple[Server, int]) -> None:
    server, port = served
    assert server.get("/health")[0] == 200
    status, page = server.get("/")
    assert status == 200
    assert "never a diagnosis" in page.lower()
    client = Client(port)
    for sample in samples():
        answer = client.post(sample.read_bytes())
        assert answer.status == 200
        assert answer.document["engine"]["name"].startswith("openvino")
    client.close()


def test_under_load_it_stays_within_512_mb(served: tuple[Server, int]) -> None:
    server, port = served
    files = [s.read_bytes() for s in samples()] * 4

    def post(data: bytes) -> int:
        client = Client(port)
        try:
            return client.post(data).status
        finally:
            client.close()

    family = psutil.Process(server.process.pid)
    most = 0
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(post, f) for f in files]
        while not all(a.done() for a in answers):
            most = max(most, proportional_bytes(family))
    assert {a.result() for a in answers} == {200}
    print(f"summed PSS under load: {most / _MEGABYTE:.0f} MB")
    assert most <= 512 * 1024 * 1024


def test_at_sigterm_it_ends_well(served: tuple[Server, int]) -> None:
    server, port = served
    (gunicorn,) = [
        p for p in psutil.Process(server.process.pid).children() if "gunicorn" in str(p.cmdline())
    ]
    gunicorn.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=40) == 0
    with pytest.raises(ConnectionRefusedError):
        http.client.HTTPConnection("127.0.0.1", port, timeout=2).request("GET", "/livez")


def test_the_health_check_of_the_image_finds_no_server_when_there_is_none(config: Any) -> None:
    chroot = shutil.which("chroot")
    assert chroot is not None
    inside = ("env", "-i", *config["Env"], f"PORT={free_port()}")
    done = subprocess.run(
        [chroot, IMAGE_ROOT, *inside, *config["Healthcheck"]["Test"][1:]],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1


def samples() -> list[Path]:
    return sorted((ROOT / "samples").glob("*.dcm"))


def size(folder: Path) -> int:
    """Bytes of the files, linked ones once."""
    seen = {}
    for file in folder.rglob("*"):
        status = file.lstat()
        seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())
