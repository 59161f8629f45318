"""Which processors this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_NODES = Path("/sys/devices/system/node")


def available_threads() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def numa_nodes(nodes: Path = _NODES) -> list[frozenset[int]]:
    """The processors of each NUMA node that this process may use; of one node where there is one,
    or nobody says.

    Args:
        nodes: where Linux describes them, by its ABI documentation (stable/sysfs-devices-node).
    """
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # not on macOS and Windows
        return [frozenset(range(os.cpu_count() or 1))]
    found = []
    for file in sorted(nodes.glob("node[0-9]*/cpulist"), key=lambda f: int(f.parent.name[4:])):
        if here := allowed & _listed(file.read_text(encoding="ascii")):
            found.append(frozenset(here))
    return found or [frozenset(allowed)]


def _listed(text: str) -> set[int]:
    """The numbers of a list such as 0-3,8-11."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found
