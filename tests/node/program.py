"""A node in a process of its own that kills itself at a point, as kill -9 does.

    python -m tests.node.program QUEUE ARCHIVE_PORT POINT

POINT is METHOD:before or METHOD:after, of the queue, or none. Its port is its only output.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from spinexr import logs
from spinexr.node import senders
from spinexr.node.queue import Queue
from tests.node import peers


def kill_at(point: str) -> None:
    """Make the queue's method end the process, before it has done anything or when all is done."""
    name, _, moment = point.partition(":")
    real = getattr(Queue, name)

    def method(self: Queue, *arguments: Any, **options: Any) -> Any:
        if moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(self, *arguments, **options)
        if result is not None or name in ("analysed", "delivered"):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(Queue, name, method)


def main() -> None:
    folder, port, point = sys.argv[1:]
    logs.set_up(level="error", form="console", audit_file=None)
    if point != "none":
        kill_at(point)
    there = peers.destination(int(port))
    sender = senders.to(there, ae_title=peers.NODE)
    with peers.running(Path(folder), ways=[(there, sender)]) as (node, _queue):
        print(node.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
