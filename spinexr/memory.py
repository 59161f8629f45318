"""How much memory this process may use, and how much serving needs."""

from __future__ import annotations

import sys
from pathlib import Path

MEBIBYTE = 1024 * 1024
# The compiled networks with YOLO11n under load, as measured; larger detectors take more.
SERVING_NEEDS_MB = 512

_CGROUP_LIMITS = (
    "sys/fs/cgroup/memory.max",  # version 2, as a container sees its own
    "sys/fs/cgroup/memory/memory.limit_in_bytes",  # version 1
)


def available_mb(root: Path = Path("/")) -> int | None:
    """The least of the machine's memory, the container's limit and the process's own, in MB.

    None where nothing of it can be told. `root` is where the system's files are looked for.
    """
    limits = [*_of_machine(root), *_of_container(root), *_of_process()]
    return min(limits) // MEBIBYTE if limits else None


def shortage(available: int | None) -> str | None:
    """A sentence where there is less than serving needs."""
    if available is None or available >= SERVING_NEEDS_MB:
        return None
    return (
        f"This process may use {available} MB of memory; serving needs {SERVING_NEEDS_MB}. "
        "Give it more, or expect it to be ended by the system."
    )


def _of_machine(root: Path) -> list[int]:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:  # not on macOS and Windows
        return []
    return [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")]


def _of_container(root: Path) -> list[int]:
    found = []
    for name in _CGROUP_LIMITS:
        try:
            text = (root / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():  # "max" is none
            found.append(int(text))
    return found


def _of_process() -> list[int]:
    if sys.platform == "win32":
        return []
    import resource

    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return [limit for limit in limits if limit != resource.RLIM_INFINITY]
