"""Reading in processes of its own: the same answers, and no file hurts another."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import pytest

from spinexr.errors import (
    BusyError,
    DecoderCrashedError,
    DecodingMemoryError,
    DecodingTimeoutError,
    SpineXRError,
)
from spinexr.imaging import reader, shared_memory
from spinexr.imaging.sandbox import Sandbox, SandboxOptions
from spinexr.phantom import writer
from tests import builders, hostile_work
from tests.processes import ROOT, environment

PIXELS = 10_000_000
MODELS = ("torch", "timm", "ultralytics", "openvino", "cv2")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(SandboxOptions(timeout_s=60.0), work=hostile_work.work)
    made.start()()
    yield made
    made.close()


def assert_reads(sandbox: Sandbox) -> None:
    pixels = builders.pixels()
    found = sandbox.read(builders.dicom(pixels), max_pixels=PIXELS)
    np.testing.assert_array_equal(found.stored, pixels)


def blocks() -> list[str]:
    mine = f"spinexr-{os.getpid()}-*"
    return [f.name for f in Path("/dev/shm").glob(mine)]  # noqa: S108  (only looked at)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_a_sandbox_reads_what_the_reader_reads(sandbox: Sandbox, dtype: str) -> None:
    data = builders.dicom(builders.pixels(bits=8 if dtype == "uint8" else 12, dtype=dtype))
    found, expected = (read(data, max_pixels=PIXELS) for read in (sandbox.read, reader.read))
    np.testing.assert_array_equal(found.stored, expected.stored)
    assert found.stored.dtype == expected.stored.dtype
    np.testing.assert_array_equal(found.display, expected.display)
    assert (found.attributes, found.notices) == (expected.attributes, expected.notices)
    assert (found.spacing, found.photometric) == (expected.spacing, expected.photometric)


def test_pixels_that_lie_in_the_file_as_they_are_do_not_travel(sandbox: Sandbox) -> None:
    pixels = builders.pixels()
    pixels[:40] = 0  # as where the field was narrowed
    data = builders.dicom(pixels)
    found = sandbox.read(data, max_pixels=PIXELS)
    assert np.shares_memory(found.stored, np.frombuffer(data, np.uint8))
    np.testing.assert_array_equal(found.stored, pixels)


def test_pixels_are_those_that_were_read_even_where_the_file_has_their_like_elsewhere(
    sandbox: Sandbox,
) -> None:
    """The middle row occurs before the pixels; unused high bits hold something in the other file,
    so that the file's words are not the pixels."""
    pixels = builders.pixels()
    decoy, marked = builders.dataset(pixels), builders.dataset(pixels)
    decoy.private_block(0x0009, "TEST", create=True).add_new(1, "OB", pixels[80].tobytes())
    marked.PixelData = (pixels | 0xF000).tobytes()
    for dataset in (decoy, marked):
        data = writer.to_bytes(dataset)
        found, expected = (read(data, max_pixels=PIXELS) for read in (sandbox.read, reader.read))
        np.testing.assert_array_equal(expected.stored, pixels)
        np.testing.assert_array_equal(found.stored, pixels)


@pytest.mark.parametrize("data", [b"", b"no DICOM", builders.dicom()[:900]])
def test_refusals_are_those_of_the_reader_and_quote_no_traceback(
    sandbox: Sandbox, data: bytes
) -> None:
    with pytest.raises(SpineXRError) as expected:
        reader.read(data, max_pixels=PIXELS)
    with pytest.raises(SpineXRError) as found:
        sandbox.read(data, max_pixels=PIXELS)
    assert type(found.value) is type(expected.value)
    assert found.value.message == expected.value.message
    assert found.value.__cause__ is None


def test_limits_of_the_caller_hold_in_the_sandbox(sandbox: Sandbox) -> None:
    with pytest.raises(SpineXRError) as e:
        sandbox.read(builders.dicom(), max_pixels=1000)
    assert e.value.code == "image_too_large"


def test_crashes_cost_nobody_else_anything(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(6) as threads:
        crashes = [
            threads.submit(sandbox.read, hostile_work.CRASH, max_pixels=PIXELS) for _ in range(4)
        ]
        others = [threads.submit(assert_reads, sandbox) for _ in range(8)]
        for crash in crashes:
            with pytest.raises(DecoderCrashedError, match="crashed on the image data"):
                crash.result()
        for other in others:
            other.result()
    assert_reads(sandbox)


def test_a_process_that_is_lost_while_idle_costs_nobody_anything() -> None:
    sandbox = Sandbox(SandboxOptions(workers=1))
    sandbox.start()()
    pool = sandbox._pool
    (reader,) = pool._pool_manager.worker_manager.workers
    os.kill(reader, signal.SIGKILL)
    while pool.active:  # the pool looks for itself
        pass
    assert_reads(sandbox)
    sandbox.close()
    with pytest.raises(BusyError):
        assert_reads(sandbox)


def test_a_process_that_is_told_to_end_says_nothing_of_its_file(sandbox: Sandbox) -> None:
    before = sandbox.lost
    with pytest.raises(BusyError, match="ended"):
        sandbox.read(hostile_work.TOLD, max_pixels=PIXELS)
    assert sandbox.lost == before
    assert_reads(sandbox)


def test_memory_beyond_the_limit_is_refused_and_the_process_lives_on(sandbox: Sandbox) -> None:
    with pytest.raises(DecodingMemoryError, match="384 MB"):
        sandbox.read(hostile_work.HOARD, max_pixels=PIXELS)
    assert_reads(sandbox)


def test_what_does_not_end_is_stopped() -> None:
    sandbox = Sandbox(SandboxOptions(workers=1, timeout_s=0.5), work=hostile_work.work)
    sandbox.start()()
    with pytest.raises(DecodingTimeoutError, match=r"0\.5 seconds"):
        sandbox.read(hostile_work.HANG, max_pixels=PIXELS)
    sandbox.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at Linux's shared memory")
def test_nothing_stays_in_shared_memory(sandbox: Sandbox) -> None:
    assert_reads(sandbox)
    with pytest.raises(DecoderCrashedError):
        sandbox.read(hostile_work.LATE_CRASH, max_pixels=PIXELS)
    assert blocks() == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, shared memory is not written to")
@pytest.mark.skipif(sys.platform != "linux", reason="where blocks are files")
def test_a_block_is_removed_where_no_file_may_be_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(_name: str) -> None:
        raise OSError(errno.EMFILE, "none left")

    name = f"spinexr-{os.getpid()}-none-left"
    shared_memory.create(name, memoryview(b"pixels")).close()
    assert name in blocks()
    monkeypatch.setattr(shared_memory, "SharedMemory", none_left)
    shared_memory.remove(name)
    resource_tracker.unregister(f"/{name}", "shared_memory")
    assert name not in blocks()


def test_too_little_shared_memory_is_busy_not_a_damaged_file(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(BusyError, match="shm-size"):
        sandbox.read(builders.dicom(), max_pixels=PIXELS)
    monkeypatch.undo()
    assert_reads(sandbox)
    assert blocks() == []


def test_processes_that_end_before_they_begin_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spinexr.imaging.sandbox.worker.confine", os._exit)
    sandbox = Sandbox(SandboxOptions(workers=1))
    with pytest.raises(DecoderCrashedError, match="spinexr doctor"):
        sandbox.start()()
    sandbox.close()


def test_a_limit_in_which_no_process_can_start_is_said() -> None:
    sandbox = Sandbox(SandboxOptions(workers=1, memory_mb=1))
    with pytest.raises(DecoderCrashedError, match="cannot start within 1 MB"):
        sandbox.start()()
    sandbox.close()


@pytest.mark.parametrize(
    ("imported", "not_wanted"),
    [
        ("spinexr.imaging.sandbox_worker, spinexr.imaging.reader", (*MODELS, "flask")),
        ("spinexr.web, spinexr.inference.loading", ("pydicom", "imagecodecs")),
    ],
    ids=["the processes hold no models and no web server", "the server holds no decoders"],
)
def test_each_process_holds_what_it_needs(imported: str, not_wanted: tuple[str, ...]) -> None:
    """In a process of its own: here everything is imported already."""
    code = f"import sys, {imported}\nprint(sorted(set({not_wanted}) & set(sys.modules)))\n"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


@pytest.mark.skipif(sys.platform != "linux", reason="waits with Linux's pidfd")
def test_a_killed_server_leaves_no_processes(tmp_path: Path) -> None:
    script = tmp_path / "serve.py"
    script.write_text(
        "import multiprocessing, threading\n"
        "from spinexr.imaging.sandbox import Sandbox\n"
        "if __name__ == '__main__':\n"
        "    sandbox = Sandbox()\n"
        "    sandbox.start()()\n"
        "    print(*(p.pid for p in multiprocessing.active_children()), flush=True)\n"
        "    threading.Event().wait()\n"
    )
    server = subprocess.Popen(
        [sys.executable, str(script)], cwd=ROOT, env=environment(PYTHONPATH=str(ROOT)),
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert server.stdout is not None
    watched = [os.pidfd_open(int(pid)) for pid in server.stdout.readline().split()]
    assert len(watched) == 2
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()
    for process in watched:
        ended, _, _ = select.select([process], [], [], 60)
        assert ended
        os.close(process)
