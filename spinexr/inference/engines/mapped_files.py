"""Memory of mapped files: OpenVINO maps weights, repacks them for the processor and keeps both."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_MADV_DONTNEED = 4  # asm-generic/mman-common.h


def release_pages(file: Path) -> int:
    """Give back the pages of this process's read-only mappings of a file; only on Linux.

    What is needed again is read again from the file.

    Returns:
        Bytes of the mappings.
    """
    if sys.platform != "linux":
        return 0
    libc = ctypes.CDLL(None, use_errno=True)
    released = 0
    target = os.fsencode(file.resolve())
    for line in Path("/proc/self/maps").read_bytes().splitlines():
        parts = line.split(maxsplit=5)
        # Pages that were written to exist nowhere else, so a writable mapping is left alone.
        if len(parts) < 6 or parts[5] != target or b"w" in parts[1]:
            continue
        start, end = (int(address, 16) for address in parts[0].split(b"-"))
        pages = ctypes.c_void_p(start), ctypes.c_size_t(end - start)
        if libc.madvise(*pages, _MADV_DONTNEED) == 0:
            released += end - start
    return released
