"""The C library's allocator, told to give back what is freed."""

from __future__ import annotations

import ctypes
import sys

# malloc.h of the GNU C library
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

# Large arrays in pages of 2 MB, where the system offers them: a tenth of the time of an
# uncompressed image is spent on asking for small ones. Read at the start of a process, by 2.35 on.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

_LARGE_BYTES = 1024 * 1024
_ARENAS = 2


def give_back_freed_memory() -> None:
    """Let freed images go back to the system at once; for the rest of this process.

    The GNU C library keeps what it expects to be wanted again, and learns from large arrays that
    are freed that still larger ones are to be kept, in each thread's arena anew. A server of
    images ends up with several times the memory that it uses. Does nothing elsewhere.
    """
    if libc := _gnu_libc():
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def give_back_now() -> None:
    """Let what is free go back to the system, once."""
    if libc := _gnu_libc():
        libc.malloc_trim(0)


def _gnu_libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
