"""What a file could do to the process that reads it, for the sandbox's tests."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing.shared_memory import SharedMemory

from spinexr.errors import SpineXRError
from spinexr.imaging import sandbox_worker as worker
from spinexr.imaging import shared_memory

CRASH, HANG, HOARD, LATE_CRASH, TOLD = b"crash", b"hang", b"hoard", b"late crash", b"told"


def work(request: worker.Request) -> worker.Reply | SpineXRError:
    """Read, but do what the file says where it is one of the words above."""
    word = shared_memory.read(request.file, request.file_bytes)
    if word == CRASH:
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == TOLD:
        os.kill(os.getpid(), signal.SIGTERM)
    if word == HANG:
        threading.Event().wait()
    if word == HOARD:
        bytearray(1 << 40)
    if word == LATE_CRASH:
        SharedMemory(request.pixels, create=True, size=4096).close()
        os.kill(os.getpid(), signal.SIGKILL)
    return worker.read(request)
