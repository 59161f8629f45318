"""What a file could do to the process that reads it, for the sandbox's tests."""

from __future__ import annotations

import os
import signal
import threading
from multiprocessing.shared_memory import SharedMemory

import numpy as np

from spinexr.errors import SpineXRError
from spinexr.imaging import sandbox_worker as worker

CRASH, HANG, HOARD, LATE_CRASH = b"crash", b"hang", b"hoard", b"late crash"


def work(request: worker.Request) -> worker.Reply | SpineXRError:
    """Read, but do what the file says where it is one of the words above."""
    block = SharedMemory(request.file)
    word = np.ndarray(request.file_bytes, np.uint8, block.buf).tobytes()
    block.close()
    if word == CRASH:
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == HANG:
        threading.Event().wait()
    if word == HOARD:
        bytearray(1 << 40)
    if word == LATE_CRASH:
        SharedMemory(request.pixels, create=True, size=4096).close()
        os.kill(os.getpid(), signal.SIGKILL)
    return worker.read(request)
