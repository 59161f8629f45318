"""Many objects at once, and hostile ones."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from pydicom import uid

from spinexr.domain import ObjectKind
from spinexr.imaging.sandbox import Sandbox, SandboxOptions
from spinexr.inference.predictor import Predictor
from spinexr.node import senders
from tests import builders, scale
from tests.node import peers
from tests.node.peers import Archive, destination, radiograph, running, send, wait_until
from tests.node.test_node import worker
from tests.processes import ROOT, environment
from tests.robustness.test_bombs import BOMBS
from tests.robustness.test_mutations import SYNTAXES, mutated

_CALLERS = 8
_MIB = 1024 * 1024
_LARGEST = peers.door().max_bytes


@pytest.mark.skipif(sys.platform == "win32", reason="measured on Linux")
def test_eight_associations_at_once_are_answered_in_their_order_and_memory_stays(
    tmp_path: Path,
) -> None:
    each = scale.pick(6, 125)
    archive = Archive()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.node.program", tmp_path, str(archive.port), "none"],
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    statuses: dict[int, list[int]] = {}
    try:
        with process.stdout:
            port = int(process.stdout.readline())
        memory = psutil.Process(process.pid).memory_info

        def sending(caller: int, start: int) -> None:
            images = [radiograph(1000 * caller + start + n) for n in range(each)]
            statuses.setdefault(caller, []).extend(send(port, *images))

        sizes = []
        for start in (0, each):  # the first half warms it up
            threads = [threading.Thread(target=sending, args=(n, start)) for n in range(_CALLERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            archive.wait(_CALLERS * (start + each))
            sizes.append(memory().rss // _MIB)
    finally:
        process.kill()
        process.wait()
        archive.close()
    assert statuses == {n: [0x0000] * 2 * each for n in range(_CALLERS)}
    assert len(archive.objects) == len(archive.kept) == _CALLERS * 2 * each
    numbers = [int(text.removeprefix("CR1 ")) - 1 for text in archive.texts]
    for caller in range(_CALLERS):
        mine = [n for n in numbers if n // 1000 == caller]
        assert mine == sorted(mine)
    scale.record("node", objects=_CALLERS * 2 * each, rss_mib=sizes)
    assert sizes[1] <= sizes[0] + 32


def test_hostile_objects_do_not_stop_the_node(tmp_path: Path, predictor: Predictor) -> None:
    number = scale.pick(40, 1000)
    archive = Archive()
    there = destination(archive.port, objects=(ObjectKind.REPORT,))
    sandbox = Sandbox(SandboxOptions())
    sandbox.start()()
    try:
        with running(
            tmp_path,
            work=worker(predictor, there, read=sandbox.read),
            ways=[(there, senders.to(there, ae_title=peers.NODE))],
        ) as (node, queue):
            sent = 0
            for data, instance, syntax in hostile(number):
                status = peers.send_raw(node.port, data, instance=instance, syntax=syntax)
                assert status == 0x0000, instance
                sent += 1
            assert send(node.port, radiograph(1)) == [0x0000]
            wait_until(queue, lambda: queue.counts.received == 0 and not queue.counts.waiting)
            assert node.alive
            codes = {letter.code for letter in queue.letters()}
            dead = queue.counts.dead
    finally:
        sandbox.close()
        archive.close()
    assert str(radiograph(1).InstanceNumber) == str(archive.kept[-1].InstanceNumber)
    assert "internal_error" not in codes
    assert {"corrupt_dicom", "image_too_large"} <= codes
    assert len(archive.kept) > number // 8  # damage that does no harm
    assert dead + len(archive.kept) == sent + 1


def hostile(number: int) -> Iterator[tuple[bytes, str, str]]:
    """(dataset, SOP Instance UID, transfer syntax) of damaged radiographs in every transfer syntax,
    and of all bombs that are not refused for their size."""
    rng = np.random.default_rng(5)
    array = builders.pixels(96, 72)
    names = sorted(SYNTAXES)
    for n in range(number):
        syntax = SYNTAXES[names[n % len(names)]]
        values = (array >> 4).astype(np.uint8) if syntax == uid.JPEGBaseline8Bit else array
        instance = f"1.2.3.{n}"
        whole = builders.dicom(
            values, transfer_syntax=syntax, attributes={"SOPInstanceUID": instance}
        )
        # Of nothing at all there would be nothing to answer.
        yield mutated(whole, rng)[start_of(whole) :] or b"\x08", instance, syntax
    longest_first = sorted(SYNTAXES.values(), key=len, reverse=True)
    for n, (make, _codes) in enumerate(BOMBS.values()):
        whole = make()
        start = start_of(whole)
        syntax = next(s for s in longest_first if s.encode() in whole[:start])
        if len(whole) < _LARGEST:
            yield whole[start:], f"1.2.4.{n}", syntax


def start_of(whole: bytes) -> int:
    """Where the dataset begins, after the file's own header."""
    return 144 + int.from_bytes(whole[140:144], "little")
