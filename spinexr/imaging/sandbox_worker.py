"""What runs inside the processes of the sandbox.

The server imports this module too, to name the work; what reads files is imported where it is used,
so that only the processes hold it: pydicom, numpy and the codecs, and nothing else."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from typing import Any

# Linear algebra is not done here, and its threads would reserve more memory than may be used.
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
import numpy.typing as npt

from spinexr import allocator
from spinexr.domain import Radiograph
from spinexr.errors import SpineXRError
from spinexr.imaging import shared_memory

_MEBIBYTE = 1024 * 1024
_LEAST_ROOM_BYTES = 32 * _MEBIBYTE  # of a radiograph of 4 megapixels and its file, twice


@dataclass(frozen=True, slots=True)
class Request:
    """A file in one block of shared memory, and the name of the block for its pixels."""

    file: str
    file_bytes: int
    pixels: str
    max_pixels: int
    allow_other_body_part: bool
    show_patient: bool = False
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A radiograph whose `stored` is an empty stand-in.

    offset: where its pixels lie in the file, as they are; None where they lie in shared memory.
    """

    radiograph: Radiograph
    shape: tuple[int, ...]
    dtype: str
    offset: int | None


def confine(memory_mb: int, threads: int) -> None:
    """Give up what reading a file does not need; for the rest of this process.

    Where a limit cannot be set, as on Windows, the process goes on without it.
    """
    from spinexr.imaging import codecs

    codecs.use_threads(threads)
    allocator.give_back_freed_memory()
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        limit = memory_mb * _MEBIBYTE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def ready() -> None:
    """Says by its end that the process is there and has room to read a file.

    Raises:
        MemoryError: it has not.
    """
    bytearray(_LEAST_ROOM_BYTES)


def read(request: Request) -> Reply | SpineXRError:
    """Read a file; a refusal is returned, not raised, so that it travels without a traceback,
    which could quote the file."""
    from spinexr.imaging import reader

    data = shared_memory.read(request.file, request.file_bytes)
    try:
        radiograph = reader.read(
            data,
            max_pixels=request.max_pixels,
            allow_other_body_part=request.allow_other_body_part,
            show_patient=request.show_patient,
            keep=request.keep,
        )
    except SpineXRError as e:
        return e.with_traceback(None)
    stored = np.ascontiguousarray(radiograph.stored)
    offset = _offset(stored, data)
    if offset is None:
        try:
            shared_memory.create(request.pixels, stored.data).close()
        except SpineXRError as e:
            return e.with_traceback(None)
    # A view would keep the whole image in this process until the next one.
    stand_in = replace(radiograph, stored=stored[:0].copy())
    return Reply(stand_in, stored.shape, stored.dtype.str, offset)


def _offset(stored: npt.NDArray[np.integer[Any]], data: bytes) -> int | None:
    """Where the pixels lie in the file if nothing was done to them, so that whoever has the file
    has them."""
    # By the middle row: the first one may be black, and zeros lie before it too.
    middle = len(stored) // 2
    offset = data.find(stored[middle].tobytes()) - stored[:middle].nbytes
    if not 0 <= offset <= len(data) - stored.nbytes:
        return None
    there = np.frombuffer(data, stored.dtype, stored.size, offset)
    return offset if np.array_equal(there, stored.ravel()) else None
