"""Processes that are killed: one refusal each, and nothing else is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import psutil
import pytest

from tests import builders, scale
from tests.robustness.service import Answer, Service, running

EASY = builders.dicom()
_MORE_THAN_A_START_S = (
    0.25  # a new process has less to do; the hard file takes several times as much
)


@cache
def hard() -> bytes:
    """Noise of 6 megapixels: long enough in a decoder to be met there."""
    return builders.dicom(
        builders.pixels(3000, 2000), transfer_syntax=builders.LOSSLESS["jpeg_2000_lossless"]
    )


def busy_reader(service: Service) -> psutil.Process:
    """The process that began to work on the only hard file there is."""
    used = {r.pid: r.cpu_times().user for r in service.readers()}
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        for reader in service.readers():
            try:
                if reader.cpu_times().user > used.get(reader.pid, 0.0) + _MORE_THAN_A_START_S:
                    return reader
            except psutil.NoSuchProcess:
                continue
    raise AssertionError("no reader has anything to do")


def test_a_killed_decoder_costs_one_request_and_no_other(
    small_weights: Path, tmp_path: Path
) -> None:
    """Seen failing where a lost reader is said to be a fault (tools/weaken.py)."""
    number = scale.pick(4, 50)
    # With two readers, one stays for others while the other one dies.
    with (
        running(small_weights, tmp_path, SPINEXR_READERS="2", SPINEXR_READER_TIMEOUT_S="60",
                SPINEXR_READER_MEMORY_MB="1024") as service,
        ThreadPoolExecutor(2) as pool,
    ):  # fmt: skip
        for _ in range(number):
            both = [pool.submit(upload, service, hard()) for _ in range(2)]
            busy_reader(service).send_signal(signal.SIGKILL)
            answers = sorted((b.result().status, b.result().code) for b in both)
            assert answers == [(200, None), (422, "decoder_crashed")]
        lost = service.metric("spinexr_reader_restarts_total", cause="decoder_crashed")
        assert lost == number
        assert service.leftovers() == []
        assert blocks_of([service.worker.pid]) == []
    scale.record("killed decoders", kills=number, refusals=number)


def test_a_killed_server_starts_again_and_leaves_nothing(
    small_weights: Path, tmp_path: Path
) -> None:
    """Seen failing where spool files outlive a killed server (tools/weaken.py)."""
    times = []
    killed = []
    for _ in range(scale.pick(2, 10)):
        start = time.monotonic()
        service = Service(small_weights, tmp_path)
        times.append(time.monotonic() - start)
        everyone = [psutil.Process(service.process.pid)]
        everyone += everyone[0].children(recursive=True)
        killed.append(service.worker.pid)
        sender = threading.Thread(target=upload_into_the_void, args=(service, hard()))
        sender.start()
        busy_reader(service)
        for process in (everyone[0], service.worker):
            os.kill(process.pid, signal.SIGKILL)
        sender.join()
        _, alive = psutil.wait_procs(everyone, timeout=30)
        assert alive == []
        service.ended()
        assert service.leftovers() == []
    # The resource tracker removes blocks once their process is gone.
    deadline = time.monotonic() + 30
    while (left := blocks_of(killed)) and time.monotonic() < deadline:
        pass
    assert left == []
    scale.record("killed servers", kills=len(times), slowest_start_s=round(max(times), 1))


def test_a_killed_worker_is_replaced(small_weights: Path, tmp_path: Path) -> None:
    """Seen failing where nobody replaces a killed worker (tools/weaken.py)."""
    with running(small_weights, tmp_path) as service:
        killed = service.worker
        sender = threading.Thread(target=upload_into_the_void, args=(service, hard()))
        sender.start()
        busy_reader(service)
        killed.kill()
        sender.join()
        service.wait_for_log(service.ready_line, times=2)
        assert service._worker().pid != killed.pid
        assert upload(service, EASY).status == 200
        assert service.leftovers() == []


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT"])
def test_a_decoder_that_crashes_is_a_refusal(
    small_weights: Path, tmp_path: Path, name: str
) -> None:
    """Seen failing where files are read in the server itself (tools/weaken.py)."""
    with (
        running(small_weights, tmp_path, SPINEXR_READER_TIMEOUT_S="60",
                SPINEXR_READER_MEMORY_MB="1024") as service,
        ThreadPoolExecutor(1) as pool,
    ):  # fmt: skip
        hit = pool.submit(upload, service, hard())
        busy_reader(service).send_signal(getattr(signal, name))
        assert (hit.result().status, hit.result().code) == (422, "decoder_crashed")
        assert upload(service, EASY).status == 200


def upload(service: Service, data: bytes) -> Answer:
    client = service.client()
    try:
        return client.post(data)
    finally:
        client.close()


def upload_into_the_void(service: Service, data: bytes) -> None:
    with contextlib.suppress(OSError):
        upload(service, data)


def blocks_of(pids: list[int]) -> list[str]:
    """The blocks of shared memory that these processes have made."""
    names = [p.name for p in Path("/dev/shm").glob("spinexr-*")]  # noqa: S108
    return [n for n in names if int(n.split("-")[1]) in pids]
