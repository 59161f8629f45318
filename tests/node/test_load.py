"""Many objects at once, and hostile ones."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from spinexr.domain import ObjectKind
from spinexr.imaging.sandbox import Sandbox, SandboxOptions
from spinexr.inference.predictor import Predictor
from spinexr.node import senders
from spinexr.phantom import writer
from tests.node import peers
from tests.node.peers import Archive, destination, radiograph, running, send, wait_until
from tests.node.test_node import worker
from tests.processes import ROOT, environment
from tests.robustness import scale
from tests.robustness.test_mutations import damaged

_CALLERS = 8
_MIB = 1024 * 1024


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


def test_hostile_objects_do_not_stop_the_node(
    tmp_path: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = scale.pick(40, 1000)
    archive = Archive()
    there = destination(archive.port, objects=(ObjectKind.REPORT,))
    sandbox = Sandbox(SandboxOptions())
    sandbox.start()()
    original = radiograph()
    whole = writer.to_bytes(original)
    begins = whole.index(b"\x08\x00\x16\x00")  # the dataset, after the file's own header
    rng = np.random.default_rng(5)
    try:
        with running(
            tmp_path,
            work=worker(predictor, there, read=sandbox.read),
            ways=[(there, senders.to(there, ae_title=peers.NODE))],
        ) as (node, queue):
            for n in range(number):
                # Of nothing at all there would be nothing to answer.
                raw = damaged(whole, rng)[begins:] or whole[begins : begins + 1]

                def encoded(dataset: Dataset, *how: Any, raw: bytes = raw) -> bytes | None:
                    # The node's own deliveries come through here too.
                    return raw if dataset is original else encode(dataset, *how)

                with monkeypatch.context() as patch, peers.association(node.port) as found:
                    patch.setattr("pynetdicom.association.encode", encoded)
                    original.SOPInstanceUID = f"1.2.3.{n}"
                    assert found.send_c_store(original).Status == 0x0000, n
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
    assert dead + len(archive.kept) == number + 1
