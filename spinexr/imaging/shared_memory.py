"""Blocks of shared memory that carry bytes from one process to another.

On Linux the bytes go through the block's file: writing to a mapping of memory that is not there
would kill the process with SIGBUS, and mapping each page costs more than copying it.
"""

from __future__ import annotations

import errno
import os
import sys
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import numpy as np

from spinexr.errors import BusyError

_FOLDER = Path("/dev/shm")  # noqa: S108  (where Linux has the blocks)


def create(name: str, data: memoryview) -> SharedMemory:
    """A new block that begins with `data`.

    Raises:
        BusyError: there is too little shared memory, as in containers with Docker's default.
        MemoryError: this process may not have so much.
    """
    block = None
    try:
        block = SharedMemory(name, create=True, size=max(1, data.nbytes))
        _write(block, data)
    except OSError as e:
        if block is not None:
            block.close()
            block.unlink()
        if e.errno == errno.ENOMEM:
            raise MemoryError from e
        raise BusyError(
            f"There is too little shared memory for {data.nbytes / 1e6:.0f} MB of image. Try "
            "again, send a smaller image, or give the server more (docker run --shm-size)."
        ) from e
    return block


def read(name: str, size: int) -> bytes:
    """The first `size` bytes of a block.

    Raises:
        MemoryError: this process may not have so much.
    """
    try:
        block = SharedMemory(name)
    except OSError as e:
        if e.errno == errno.ENOMEM:
            raise MemoryError from e
        raise
    try:
        if (file := _file(block)) is None:
            return np.ndarray(size, np.uint8, block.buf).tobytes()
        return os.pread(file, size, 0)
    finally:
        block.close()


def remove(name: str) -> None:
    """Remove a block if it is there."""
    try:
        block = SharedMemory(name)
    except FileNotFoundError:
        return
    except OSError:  # no file may be opened
        (_FOLDER / name).unlink(missing_ok=True)
        return
    block.close()
    block.unlink()


def _write(block: SharedMemory, data: memoryview) -> None:
    left = data.cast("B")
    if (file := _file(block)) is None:
        np.ndarray(left.nbytes, np.uint8, block.buf)[:] = np.frombuffer(left, np.uint8)
        return
    offset = 0
    while left:
        written = os.pwrite(file, left, offset)
        left, offset = left[written:], offset + written


def _file(block: SharedMemory) -> int | None:
    """The descriptor that can be read and written; elsewhere, shared memory can only be mapped."""
    return getattr(block, "_fd", None) if sys.platform == "linux" else None
