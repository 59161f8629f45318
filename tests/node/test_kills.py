"""Killed at any point, nothing that was answered is lost, and nothing becomes two objects."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from threading import Timer

import numpy as np
import pydicom
import pytest

from spinexr.node import seal
from spinexr.node.queue import Queue
from tests import scale
from tests.node import peers
from tests.node.peers import Archive, Web, association, radiograph
from tests.processes import ROOT, environment

# In the order in which an object meets them once it is received.
POINTS = (
    "next_received:after", "analysed:before", "analysed:after", "next_delivery:after",
    "delivered:before", "delivered:after",
)  # fmt: skip


_EACH = 4  # radiographs from one start to the next
_FIRST_ANALYSES_S = 4.0  # as long as several of them take, with what is loaded for the first


@contextmanager
def node(
    folder: Path, archive: Archive | Web, point: str, *key: Path
) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """(port, process) of a node that kills itself at the point."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.node.program", folder, str(archive.port), point, *key],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            yield int(process.stdout.readline() or 0), process
    finally:
        process.kill()
        process.wait()


def answered(port: int, number: int) -> bool:
    """Whether the node took the radiograph."""
    with association(port) as found:
        return found.is_established and found.send_c_store(radiograph(number)).get("Status") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_every_point_it_delivers_everything_and_each_object_once(tmp_path: Path) -> None:
    archive = Archive()
    try:
        for point in ("receive:before", "receive:after"):
            with node(tmp_path, archive, point) as (port, process):
                assert not answered(port, 0)  # so its sender will send it again
                assert process.wait(peers.LONGEST_S) == -9
        assert held(tmp_path) == (1, 0)
        for point in POINTS:
            with node(tmp_path, archive, point) as (_port, process):
                assert process.wait(peers.LONGEST_S) == -9, point
        assert held(tmp_path) == (0, 0)
        with node(tmp_path, archive, "none") as (port, _process):
            assert answered(port, 1)
            archive.wait(2, "objects")
    finally:
        archive.close()
    # Only where it did not live to note the archive's answer it asks once more, with the same
    # object under the same UID.
    assert archive.texts == ["CR1 1", "CR1 1", "CR1 2"]
    assert archive.kept[0] == archive.kept[1]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_before_it_could_answer_it_takes_the_second_sending_for_the_first(
    tmp_path: Path,
) -> None:
    archive = Archive()
    try:
        with node(tmp_path, archive, "receive:after") as (port, process):
            assert not answered(port, 0)
            assert process.wait(peers.LONGEST_S) == -9
        with node(tmp_path, archive, "none") as (port, _process):
            archive.wait(1)  # before its sender tries again
            assert answered(port, 0)
            assert answered(port, 1)
            archive.wait(2)
    finally:
        archive.close()
    assert archive.texts == ["CR1 1", "CR1 2"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_killed_at_any_moment_it_loses_nothing_and_makes_nothing_two(tmp_path: Path) -> None:
    """Received in a line, analysed, kept under a key, delivered by STOW-RS."""
    web = Web()
    key = tmp_path / "key"
    seal.write_key(key)
    rng = np.random.default_rng(7)
    kills = scale.pick(3, 60)
    number = letters = 0  # of those that it said it has
    try:
        for _ in range(kills):
            with node(tmp_path / "queue", web, "none", key) as (port, process):
                end = Timer(float(rng.uniform(0.0, _FIRST_ANALYSES_S)), process.kill)
                end.start()
                for _ in range(_EACH):
                    number += answered(port, number)
                end.join()
        all_of_them = {str(radiograph(n).SOPInstanceUID) for n in range(number)}
        for last in (100_000, 100_001):
            with node(tmp_path / "queue", web, "none", key) as (port, _process):
                assert answered(port, last)
                all_of_them.add(str(radiograph(last).SOPInstanceUID))
                while str(radiograph(last).SOPInstanceUID) not in referenced(web):
                    assert web.more.acquire(timeout=peers.LONGEST_S)
            letters += retry_those_that_ended_it(tmp_path / "queue", key)
    finally:
        web.close()
    scale.record(
        "node kills", kills=kills, objects=len(all_of_them), letters=letters,
        deliveries=len(web.bodies),
    )  # fmt: skip
    found = referenced(web)
    assert set(found) == all_of_them
    for bodies in found.values():
        assert len(set(bodies)) == 1  # the same object, where it could not be known to be there


def retry_those_that_ended_it(folder: Path, key: Path) -> int:
    """An object that was begun three times when the node ended is a dead letter."""
    queue = Queue(folder, seal=seal.from_file(key), max_bytes=peers.LIMIT)
    letters = queue.letters()
    assert {letter.code for letter in letters} <= {"worker_died"}
    for letter in letters:
        assert queue.retry(letter.name)
    queue.close()
    return len(letters)


def referenced(web: Web) -> dict[str, list[bytes]]:
    """The reports that were delivered, by the image that they are of."""
    found: dict[str, list[bytes]] = {}
    for body in list(web.bodies):
        data = body[body.index(b"DICM") - 128 : body.rindex(b"\r\n--")]
        report = pydicom.dcmread(BytesIO(data))
        image = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
        uid = str(image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        found.setdefault(uid, []).append(data)
    return found


def held(folder: Path) -> tuple[int, int]:
    """How many objects wait for analysis, and for delivery."""
    queue = Queue(folder, max_bytes=peers.LIMIT)
    counts = queue.counts
    queue.close()
    return counts.received, sum(counts.waiting.values())
