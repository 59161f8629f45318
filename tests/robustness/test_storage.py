"""A full disk, one that cannot be written, no file left to open: said, and over when it is over."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import builders
from tests.disks import small_disk
from tests.robustness.service import Service, running

EASY = builders.dicom()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB."""
    with small_disk(tmp_path / "disk", megabytes=1) as folder:
        yield folder


def test_a_full_disk_is_507_until_there_is_room(small_weights: Path, disk: Path) -> None:
    """Seen failing where what cannot be kept is a fault (tools/weaken.py)."""
    large = builders.dicom(builders.pixels(1200, 900))
    assert len(large) > 2**20
    with running(small_weights, disk) as service, contextlib.closing(service.client()) as client:
        full = client.post(large)
        assert (full.status, full.code) == (507, "storage_unavailable")
        assert client.post(EASY).status == 200  # small enough
        (service.spool / "foreign").write_bytes(bytes(2**20 - 32768))
        assert client.post(EASY).status == 507
        (service.spool / "foreign").unlink()
        assert client.post(EASY).status == 200
        assert service.leftovers() == []


def test_a_disk_that_became_read_only_is_507_until_it_can_be_written(
    small_weights: Path, disk: Path
) -> None:
    """Seen failing where a disk that became read-only is a fault (tools/weaken.py)."""
    with running(small_weights, disk) as service, contextlib.closing(service.client()) as client:
        remount(disk, "ro")
        refused = client.post(EASY)
        assert (refused.status, refused.code) == (507, "storage_unavailable")
        assert client.get("/health").status == 200
        remount(disk, "rw")
        assert client.post(EASY).status == 200


def remount(disk: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", disk], check=True)  # noqa: S607


def test_without_file_descriptors_it_is_busy_and_recovers(
    small_weights: Path, tmp_path: Path
) -> None:
    """Seen failing where what cannot be opened for lack of descriptors has no room
    (tools/weaken.py).
    """
    with (
        running(small_weights, tmp_path) as service,
        contextlib.closing(service.client()) as client,
    ):
        assert client.post(EASY).status == 200
        process = psutil.Process(service.worker.pid)
        limits = process.rlimit(resource.RLIMIT_NOFILE)
        # The connection is there; nothing more can be opened.
        process.rlimit(resource.RLIMIT_NOFILE, (used(service), limits[1]))
        refused = client.post(EASY)
        process.rlimit(resource.RLIMIT_NOFILE, limits)
        assert (refused.status, refused.code) == (503, "busy")
        assert client.post(EASY).status == 200
        assert service.worker.is_running()


def used(service: Service) -> int:
    """A limit that leaves it no file descriptor."""
    numbers = {int(p.name) for p in Path(f"/proc/{service.worker.pid}/fd").iterdir()}
    return next(n for n in range(10_000) if n not in numbers)
