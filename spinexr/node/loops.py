"""What runs on threads: one that analyses, and one for each destination.

Both take the oldest first and stay with it until it is done, so whatever a caller sends in an order
is delivered in that order; while a destination is down, its line waits, and nobody else's.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import perf_counter

import structlog

from spinexr.errors import (
    DestinationDeniedError,
    DestinationUnavailableError,
    InstanceDiffersError,
    NotReadyError,
    ObjectRefusedError,
    SpineXRError,
    WorkerDiedError,
)
from spinexr.faults import describe
from spinexr.logs import AUDIT
from spinexr.node.queue import Delivery, Queue, Received
from spinexr.node.senders import Sender
from spinexr.node.work import Answer, Work

_log = structlog.stdlib.get_logger("spinexr.node")
_audit = structlog.stdlib.get_logger(AUDIT)

_MOST_DEATHS = 3  # of processes, over one object
_MOST_ATTEMPTS = 8  # of an analysis that is refused for want of room or time
_LONGEST_PAUSE_S = 300.0
_LOOK_AGAIN_S = 2.0  # for what another process did to the queue, such as retrying a dead letter

Pause = Callable[[float], None]


def pause_s(failures: int) -> float:
    """How long to wait after so many failures in a row: 1, 2, 4 … 300 seconds."""
    return float(min(2.0 ** min(failures - 1, 30), _LONGEST_PAUSE_S))


class Loop:
    """A thread that calls `step` again and again. `step` says whether there was something to do."""

    def __init__(self, name: str, queue: Queue) -> None:
        self._queue = queue
        self._stop = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._stop.set()
        with self._queue.changed:
            self._queue.changed.notify_all()

    def join(self) -> None:
        """Until what was begun is done."""
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def step(self) -> bool:
        raise NotImplementedError

    def pause(self) -> None:
        """Wait after a failure, longer each time; ends with `stop`."""
        self._failures += 1
        self._stop.wait(pause_s(self._failures))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self.step():
                    self._queue.wait(_LOOK_AGAIN_S)
            # A full disk, or a fault of this program: what is in the queue stays there.
            except Exception as e:
                _log.error("the queue cannot be worked on", why=describe(e))
                self.pause()


class Analysing(Loop):
    """Takes what was received, in order."""

    def __init__(
        self,
        queue: Queue,
        work: Work,
        *,
        dropped: frozenset[str] = frozenset(),
        bundle: str = "",
        count: Callable[[str], None] = lambda _outcome: None,
    ) -> None:
        """
        Args:
            dropped: codes of refusals that are not kept as dead letters.
            bundle: the fingerprint of the weights, for the audit line.
            count: told the outcome of each.
        """
        super().__init__("spinexr-analysing", queue)
        self._work, self._dropped, self._bundle, self._count = work, dropped, bundle, count

    def step(self) -> bool:
        received = self._queue.next_received()
        if received is None:
            self._queue.shrink()
            return False
        start = perf_counter()
        outcome = self._outcome(received)
        _audit.info(
            "analysis",
            request=received.request,
            bundle=self._bundle,
            outcome=outcome,
            ms=round((perf_counter() - start) * 1000.0),
        )
        self._count(outcome)
        return True

    def _outcome(self, received: Received) -> str:
        """Its decision, or the code of what went wrong."""
        if received.deaths >= _MOST_DEATHS:
            return self._refuse(received, WorkerDiedError(
                f"The node ended {received.deaths} times while it analysed this object."
            ))  # fmt: skip
        try:
            answer = self._work(received.data, received.caller)
            self._check_identity(received, answer)
        except NotReadyError as e:
            if received.attempts + 1 >= _MOST_ATTEMPTS:
                return self._refuse(received, e)
            self._queue.put_back(received, failed=True)
            self.pause()
            return e.code
        except SpineXRError as e:
            return self._refuse(received, e)
        # A fault of this program: the object is kept, and the next one has its turn.
        except Exception as e:
            why = describe(e)
            _log.error("an analysis failed", request=received.request, why=why)
            self._queue.failed(received, "internal_error", why)
            return "internal_error"
        self._failures = 0
        self._queue.analysed(received, answer.outputs)
        if not answer.outputs:
            _log.warning("no destination wants an object", request=received.request)
        return answer.decision

    def _check_identity(self, received: Received, answer: Answer) -> None:
        """Answers go by the image's own UID; under another one, two images could get the same."""
        if answer.instance is not None and not self._queue.was_sent_as(received, answer.instance):
            raise InstanceDiffersError(
                "The image's own SOP Instance UID (0008,0018) is another than that which it was "
                "sent under (Affected SOP Instance UID). Mend its sender, and have it sent again."
            )

    def _refuse(self, received: Received, error: SpineXRError) -> str:
        self._failures = 0
        if error.code in self._dropped:
            self._queue.dropped(received)
        else:
            self._queue.failed(received, error.code, error.message)
        return error.code


class Delivering(Loop):
    """Takes what waits for one destination, in order."""

    def __init__(
        self,
        queue: Queue,
        destination: str,
        sender: Sender,
        *,
        attempts: int,
        count: Callable[[str, str, str], None] = lambda _destination, _kind, _outcome: None,
    ) -> None:
        """
        Args:
            attempts: after so many an object is a dead letter.
            count: told destination, object and outcome of each.
        """
        super().__init__(f"spinexr-delivering-{destination}", queue)
        self._destination, self._sender, self._attempts = destination, sender, attempts
        self._count = count
        self._sent: int | None = None  # what the destination has and the queue does not know yet

    def step(self) -> bool:
        delivery = self._queue.next_delivery(self._destination)
        if delivery is None:
            return False
        start = perf_counter()
        outcome, wait = self._outcome(delivery)
        _audit.info(
            "delivery",
            request=delivery.request,
            destination=self._destination,
            object=delivery.kind.value,
            outcome=outcome,
            ms=round((perf_counter() - start) * 1000.0),
        )
        self._count(self._destination, delivery.kind.value, outcome)
        if wait:
            self.pause()
        else:
            self._failures = 0
        return True

    def _outcome(self, delivery: Delivery) -> tuple[str, bool]:
        """“delivered” or the code of what went wrong; whether to wait before going on."""
        try:
            # A full disk may keep the queue from noting it; there is no sending it again then.
            if delivery.number != self._sent:
                self._sender.send(delivery.data)
            self._sent = delivery.number
        except ObjectRefusedError as e:
            self._queue.refused(delivery, e.code, e.message)
            return e.code, False
        except (DestinationDeniedError, DestinationUnavailableError) as e:
            return self._try_later(delivery, e.code, e.message), True
        # A fault of this program or of a library: as if there had been no answer.
        except Exception as e:
            why = describe(e)
            _log.error("a delivery failed", request=delivery.request, why=why)
            return self._try_later(delivery, "internal_error", why), True
        self._queue.delivered(delivery)
        return "delivered", False

    def _try_later(self, delivery: Delivery, code: str, message: str) -> str:
        if delivery.attempts + 1 >= self._attempts:
            self._queue.refused(delivery, code, message)
        else:
            _log.warning("delivered later", destination=self._destination, why=message)
            self._queue.attempted(delivery)
        return code
