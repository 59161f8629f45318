"""A node in a process of its own that kills itself at a point, as kill -9 does.

    python -m tests.node.program QUEUE ARCHIVE_PORT POINT [KEY_FILE]

POINT is METHOD:before or METHOD:after, of the queue, or none. Its port is its only output. With a
key it analyses what it receives and delivers by STOW-RS; without one it makes one report of each
object and delivers by C-STORE.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from spinexr import logs
from spinexr.domain import ObjectKind
from spinexr.inference.predictor import Predictor
from spinexr.node import seal, senders
from spinexr.node.queue import Queue
from tests.fakes import FakeEngine, fake_bundle
from tests.node import peers
from tests.node.test_node import worker


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
    folder, port, point, *key = sys.argv[1:]
    logs.set_up(level="error", form="console", audit_file=None)
    if point != "none":
        kill_at(point)
    options: dict[str, Any] = {}
    there = peers.destination(int(port))
    if key:
        there = peers.destination(int(port), scheme="http", objects=(ObjectKind.REPORT,))
        predictor = Predictor(fake_bundle(), FakeEngine())
        options = {"seal": seal.from_file(Path(key[0])), "work": worker(predictor, there)}
    ways = [(there, senders.to(there, ae_title=peers.NODE))]
    with peers.running(Path(folder), ways=ways, **options) as (node, _queue):
        print(node.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
