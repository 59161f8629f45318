from __future__ import annotations

import os
from pathlib import Path

import pytest

from spinexr import processors


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two nodes of four processors each, the second with a half that may not be used."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 1, 2, 3, 8, 9}, raising=False)
    for name, listed in (("node0", "0-3\n"), ("node1", "8-9,12,13\n"), ("node2", "\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cpulist").write_text(listed)
    return tmp_path


def test_each_node_has_the_processors_that_may_be_used(nodes: Path) -> None:
    assert processors.numa_nodes(nodes) == [{0, 1, 2, 3}, {8, 9}]


def test_where_nobody_describes_nodes_there_is_one(nodes: Path, tmp_path: Path) -> None:
    assert processors.numa_nodes(tmp_path / "nowhere") == [{0, 1, 2, 3, 8, 9}]
