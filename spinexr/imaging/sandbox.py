"""Reading in sacrificial processes, so that no file can hurt the process that serves.

Decoders are native code and files are hostile by accident: some crash a decoder, some never end,
some ask for more memory than the machine has. Here a small pool of processes that hold nothing of
value reads them, under a limit of memory and of time. What happens to one file costs that file an
error and nobody else anything.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext

import numpy as np
from pebble import ProcessExpired, ProcessPool

from spinexr.domain import Radiograph
from spinexr.errors import (
    BusyError,
    DecoderCrashedError,
    DecodingMemoryError,
    DecodingTimeoutError,
    SpineXRError,
)
from spinexr.imaging import sandbox_worker as worker
from spinexr.imaging import shared_memory
from spinexr.processors import available_threads

_FILES_PER_WORKER = 500  # what leaks in a decoder leaks for so long
_TOLD_TO_END = (
    signal.SIGTERM,
    -signal.SIGTERM,
)  # exit codes: by its handler, and before it has one
_KILLED = (signal.SIGKILL, -signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """Limits of a pool of reading processes.

    workers: processes, which read one file each at a time.
    memory_mb: address space of each process, its own 170 MB included.
    timeout_s: wall time for one file.
    show_patient: whether the patient's name and ID are among the attributes that are shown.
    keep: keywords whose values a radiograph carries in `kept`.
    """

    workers: int = 2
    memory_mb: int = 384
    timeout_s: float = 6.0
    show_patient: bool = False
    keep: tuple[str, ...] = ()


class Sandbox:
    """A pool of processes that read DICOM files. Threads may share it."""

    def __init__(
        self,
        options: SandboxOptions | None = None,
        *,
        work: Callable[[worker.Request], worker.Reply | SpineXRError] = worker.read,
    ) -> None:
        """A pool that starts with `start` or with the first file.

        Args:
            work: what the processes do with a file.
        """
        self.options = options or SandboxOptions()
        self._lost: Counter[str] = Counter()
        self._work = work
        self._replacing = threading.Lock()
        self._closed = False
        self._pool = self._new_pool()

    def read(
        self, data: bytes, *, max_pixels: int, allow_other_body_part: bool = False
    ) -> Radiograph:
        """As `reader.read`, in another process.

        Raises:
            NotDicomError, UnanalysableError: as `reader.read`.
            DecoderCrashedError, DecodingTimeoutError, DecodingMemoryError: the process did not
                survive the file, or reached a limit.
            BusyError: too little shared memory is free, or the processes were ended from outside.
        """
        name = f"spinexr-{os.getpid()}-{uuid.uuid4().hex}"  # whose it is
        with _shared(f"{name}-file", data) as file:
            request = worker.Request(
                file=file,
                file_bytes=len(data),
                pixels=f"{name}-pixels",
                max_pixels=max_pixels,
                allow_other_body_part=allow_other_body_part,
                show_patient=self.options.show_patient,
                keep=self.options.keep,
            )
            try:
                return _with_pixels(self._run(request), request.pixels, data)
            finally:
                # A process that was killed leaves it behind.
                shared_memory.remove(request.pixels)

    @property
    def lost(self) -> dict[str, int]:
        """How many processes were lost to a file since the start, by the code of the error."""
        return {
            cls.code: self._lost[cls.code] for cls in (DecoderCrashedError, DecodingTimeoutError)
        }

    def start(self) -> Callable[[], None]:
        """Start the processes; what is returned waits until they are there.

        Raises (when the wait ends):
            DecoderCrashedError: they cannot start.
        """
        started = [self._pool.schedule(worker.ready) for _ in range(self.options.workers)]

        def wait() -> None:
            for future in started:
                try:
                    future.result()
                except (ProcessExpired, BrokenProcessPool, MemoryError) as e:
                    raise DecoderCrashedError(
                        "The processes that read files cannot start within "
                        f"{self.options.memory_mb} MB of memory. Raise SPINEXR_READER_MEMORY_MB; "
                        "if that changes nothing, `python -m spinexr doctor` says what they lack."
                    ) from e

        return wait

    def close(self) -> None:
        """End the processes, whatever they are doing."""
        with self._replacing:
            self._closed = True
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def _new_pool(self) -> ProcessPool:
        return ProcessPool(
            max_workers=self.options.workers,
            max_tasks=_FILES_PER_WORKER,
            initializer=worker.confine,
            initargs=(self.options.memory_mb, available_threads()),
            context=_clean_processes(),
        )

    def _replace(self, broken: ProcessPool) -> None:
        """A new pool: one that lost an idle process takes no files any more."""
        with self._replacing:
            if self._closed or self._pool is not broken:
                return  # another thread was here before
            self._pool = self._new_pool()
        broken.stop()  # type: ignore[no-untyped-call]
        broken.join()

    def _run(self, request: worker.Request) -> worker.Reply:
        try:
            return self._run_once(request)
        except _EndedError:  # no fault of this file
            shared_memory.remove(request.pixels)
        try:
            return self._run_once(request)
        except _EndedError as e:
            raise BusyError("The processes that read files were ended. Try again.") from e

    def _run_once(self, request: worker.Request) -> worker.Reply:
        pool = self._pool
        try:
            future = pool.schedule(self._work, args=(request,), timeout=self.options.timeout_s)
        except RuntimeError as e:
            self._replace(pool)
            raise _EndedError from e
        try:
            reply: worker.Reply | SpineXRError = future.result()
        except BrokenProcessPool as e:
            self._replace(pool)
            raise _EndedError from e
        except TimeoutError as e:
            self._lost[DecodingTimeoutError.code] += 1
            raise DecodingTimeoutError(
                f"Reading the file took more than {self.options.timeout_s:g} seconds and was "
                "stopped. The file may be damaged: export or copy it again."
            ) from e
        except ProcessExpired as e:
            if e.exitcode in _TOLD_TO_END:
                raise _EndedError from e
            self._lost[DecoderCrashedError.code] += 1
            if e.exitcode in _KILLED:
                raise DecoderCrashedError(
                    "The process that read the file was killed by the system, as where memory runs "
                    "out. Try again; if it happens again, the machine has too little memory, or "
                    "the file is damaged."
                ) from e
            raise DecoderCrashedError(
                "The decoder crashed on the image data (7FE0,0010). "
                "The file is damaged: export or copy it again."
            ) from e
        except MemoryError as e:
            raise DecodingMemoryError(
                f"Reading the file needs more than the {self.options.memory_mb} MB of memory that "
                "reading may use here. Its compressed data are damaged: export it again; or the "
                "image is too large: ask whoever runs SpineXR to allow more."
            ) from e
        if isinstance(reply, SpineXRError):
            raise reply
        return reply


class _EndedError(Exception):
    """The process that was to read a file was ended from outside, as with its whole service."""


def _clean_processes() -> BaseContext:
    """Starts processes that have nothing of this one: a fork of it would carry over its threads,
    locks and memory. They are forks of one that has only imported what all of them need, so that
    they share its memory and start at once; where there is no fork, each begins anew."""
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([worker.__name__, "spinexr.imaging.reader"])
    return context


def _with_pixels(reply: worker.Reply, name: str, data: bytes) -> Radiograph:
    dtype, size = np.dtype(reply.dtype), math.prod(reply.shape)
    pixels, offset = data, reply.offset
    if offset is None:
        pixels, offset = shared_memory.read(name, size * dtype.itemsize), 0
    stored = np.frombuffer(pixels, dtype, size, offset).reshape(reply.shape)
    return replace(reply.radiograph, stored=stored)


@contextmanager
def _shared(name: str, data: bytes) -> Iterator[str]:
    block = shared_memory.create(name, memoryview(data))
    try:
        yield name
    finally:
        block.close()
        with suppress(FileNotFoundError):
            block.unlink()
