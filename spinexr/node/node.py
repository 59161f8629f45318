"""The node as a whole."""

from __future__ import annotations

import structlog

from spinexr.errors import QueueFullError
from spinexr.node.configuration import Destination
from spinexr.node.loops import Analysing, Delivering, Loop
from spinexr.node.metrics import Metrics
from spinexr.node.queue import Queue
from spinexr.node.receiver import Door, Receiver
from spinexr.node.senders import Sender
from spinexr.node.watching import Watching
from spinexr.node.work import Work

_log = structlog.stdlib.get_logger("spinexr.node")


class Node:
    """Receives, analyses, delivers, until it is stopped."""

    def __init__(
        self,
        queue: Queue,
        work: Work,
        *,
        door: Door,
        ways: tuple[tuple[Destination, Sender], ...],
        metrics: Metrics,
        http_port: int,
        dropped: frozenset[str] = frozenset(),
        bundle: str = "",
    ) -> None:
        """A node over an open queue.

        Args:
            ways: each destination and what sends to it.
            http_port: of /livez and /metrics; 0 for any.
        """
        self._queue, self._metrics, self._http_port = queue, metrics, http_port
        self._destinations = [d.name for d, _ in ways]
        self._receiver = Receiver(door, queue, count=metrics.received)
        self._loops: list[Loop] = [
            Analysing(queue, work, dropped=dropped, bundle=bundle, count=metrics.worked),
            *(
                Delivering(
                    queue, d.name, sender, attempts=d.attempts, count=metrics.delivered
                )
                for d, sender in ways
            ),
        ]  # fmt: skip
        self._watching: Watching | None = None
        self.port = 0

    @property
    def http_port(self) -> int:
        return self._watching.port if self._watching is not None else 0

    def start(self) -> None:
        """Listen and work.

        Raises:
            ConfigurationError: an address cannot be listened on.
        """
        self._watching = Watching(self._http_port, self._metrics.registry, lambda: self.alive)
        try:
            self._queue.begin(self._destinations)
        except QueueFullError as e:  # what is delivered makes room
            _log.warning("the queue is full at the start", why=e.message)
        self.port = self._receiver.start()
        for loop in self._loops:
            loop.start()
        _log.info("node ready", port=self.port, http_port=self.http_port)

    @property
    def alive(self) -> bool:
        """Whether everything that has to run does."""
        return self._receiver.alive and all(loop.alive for loop in self._loops)

    def stop(self) -> None:
        """Take nothing more, finish what was begun, and end; the rest stays in the queue."""
        self._receiver.stop()
        for loop in self._loops:
            loop.stop()
        for loop in self._loops:
            loop.join()
        if self._watching is not None:
            self._watching.close()
