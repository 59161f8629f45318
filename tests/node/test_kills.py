"""Killed at any point, nothing that was answered is lost, and nothing becomes two objects."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spinexr.node.queue import Queue
from tests.node import peers
from tests.node.peers import Archive, association, radiograph
from tests.processes import ROOT, environment

# In the order in which an object meets them once it is received.
POINTS = (
    "next_received:after", "analysed:before", "analysed:after", "next_delivery:after",
    "delivered:before", "delivered:after",
)  # fmt: skip


@contextmanager
def node(folder: Path, archive: Archive, point: str) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """(port, process) of a node that kills itself at the point."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.node.program", folder, str(archive.port), point],
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


def held(folder: Path) -> tuple[int, int]:
    """How many objects wait for analysis, and for delivery."""
    queue = Queue(folder, max_bytes=peers.LIMIT)
    counts = queue.counts
    queue.close()
    return counts.received, sum(counts.waiting.values())
