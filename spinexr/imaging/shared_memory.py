"""Blocks of shared memory that are really there."""

from __future__ import annotations

import os
from multiprocessing.shared_memory import SharedMemory

from spinexr.errors import BusyError


def create(name: str, size: int) -> SharedMemory:
    """A new block of at least `size` bytes.

    Raises:
        BusyError: there is too little shared memory, as in containers with Docker's default.
    """
    block = SharedMemory(name, create=True, size=max(1, size))
    try:
        # Without this, writing to what is not there kills the process with SIGBUS.
        if hasattr(os, "posix_fallocate") and (file := getattr(block, "_fd", -1)) >= 0:
            os.posix_fallocate(file, 0, block.size)
    except OSError as e:
        block.close()
        block.unlink()
        raise BusyError(
            f"There is too little shared memory for {size / 1e6:.0f} MB of image. Try again, send "
            "a smaller image, or give the server more (docker run --shm-size)."
        ) from e
    return block


def remove(name: str) -> None:
    """Remove a block if it is there."""
    try:
        block = SharedMemory(name)
    except FileNotFoundError:
        return
    block.close()
    block.unlink()
