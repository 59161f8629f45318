"""The executor of one machine: worker processes, each with networks and decoders of its own.

A worker analyses several inputs at a time, so that some are read while the networks look at
another. Workers begin anew: nothing of the driver, its ledger least of all, is open in them, and
they end when the driver does, however it ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from spinexr.batch.executor import (
    About,
    Done,
    Event,
    Executor,
    Lost,
    Open,
    Task,
    outcome,
)
from spinexr.errors import BatchError, SpineXRError
from spinexr.inference import engines
from spinexr.inference.engines import EngineOptions
from spinexr.processors import numa_nodes

_SPAWN = get_context("spawn")
_LONGEST_END_S = 10.0


@dataclass(frozen=True, slots=True)
class Place:
    """What a worker has to itself: processors, and a GPU by the name that CUDA knows it by."""

    processors: frozenset[int] = frozenset()  # none: all
    gpu: str | None = None


def places(engine: EngineOptions) -> list[Place]:
    """One for each GPU where PyTorch computes on GPUs, otherwise one for each NUMA node."""
    if names := engines.gpus(engine):
        return [Place(gpu=name) for name in names]
    nodes = numa_nodes()
    return [Place(node) for node in nodes] if len(nodes) > 1 else [Place()]


@dataclass(slots=True, eq=False)
class _Worker:
    process: SpawnProcess
    pipe: Connection
    place: Place
    under_way: set[int] = field(default_factory=set)


class LocalExecutor(Executor):
    """A process on this machine for each of some places."""

    def __init__(self, open_analyser: Open, places: Sequence[Place] = (Place(),)) -> None:
        """Workers that begin with `start`.

        Args:
            open_analyser: made at the top of a module, so that it can be pickled.
        """
        self._open = open_analyser
        self._places = places
        self._workers: list[_Worker] = []
        self._about: About | None = None
        self._failure: SpineXRError | None = None

    def start(self) -> About:
        self._workers = [self._begin(place) for place in self._places]
        for worker in self._workers:
            self._hear_begin(worker)
        assert self._about is not None  # noqa: S101
        return self._about

    @property
    def capacity(self) -> int:
        return self._slots * len(self._places)

    def submit(self, task: Task) -> None:
        if self._failure is not None:
            raise self._failure
        worker = min(self._workers, key=lambda w: len(w.under_way))
        worker.under_way.add(task.number)
        # One that has just died: `wait` will say that the task is lost.
        with contextlib.suppress(OSError):
            worker.pipe.send(task)

    def wait(self, timeout_s: float) -> Sequence[Event]:
        if self._failure is not None:
            raise self._failure
        events: list[Event] = []
        ready = connection.wait([w.pipe for w in self._workers], timeout_s)
        for worker in [w for w in self._workers if w.pipe in ready]:
            try:
                while worker.pipe.poll():
                    done: Done = worker.pipe.recv()
                    worker.under_way.discard(done.number)
                    events.append(done)
            except (EOFError, OSError):
                events.append(Lost(tuple(sorted(worker.under_way))))
                # What fails is for the next call: what there is counts first.
                try:
                    self._replace(worker)
                except SpineXRError as e:
                    self._failure = e
                except OSError as e:
                    self._failure = BatchError(
                        f"No process can be begun in the place of one that ended: {e.strerror}."
                    )
        return events

    def close(self) -> None:
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(_LONGEST_END_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.process.close()
        self._workers = []

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers."""
        return tuple(w.process.pid for w in self._workers if w.process.pid is not None)

    @property
    def _slots(self) -> int:
        return self._about.slots if self._about else 1

    def _begin(self, place: Place) -> _Worker:
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_work, args=(theirs, self._open, place), daemon=False)
        process.start()
        theirs.close()
        return _Worker(process, ours, place)

    def _hear_begin(self, worker: _Worker) -> None:
        try:
            first: About | SpineXRError = worker.pipe.recv()
        except (EOFError, OSError) as e:
            raise BatchError(
                "The process that analyses ended before it could answer; there may be too little "
                "memory for the networks."
            ) from e
        if isinstance(first, SpineXRError):
            raise first
        if self._about is not None and first.identity != self._about.identity:
            raise BatchError("The weights changed while the batch ran. Run it again.")
        self._about = first

    def _replace(self, dead: _Worker) -> None:
        dead.pipe.close()
        dead.process.join(_LONGEST_END_S)
        dead.process.kill()
        dead.process.join()
        dead.process.close()
        self._workers.remove(dead)
        worker = self._begin(dead.place)
        self._workers.append(worker)
        self._hear_begin(worker)


def _work(pipe: Connection, open_analyser: Open, place: Place) -> None:
    """A worker's life: say what it is, then answer until the driver is gone."""
    if place.processors:
        os.sched_setaffinity(0, place.processors)  # its memory is then of the same node
    if place.gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = place.gpu
    # Ctrl-C in a terminal reaches the whole group; what is under way is the driver's to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # So does SIGTERM of a service; a handler, unlike SIG_IGN, is not passed on to the decoders.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        analyser = open_analyser()
    except SpineXRError as e:
        pipe.send(e.with_traceback(None))
        return
    said = threading.Lock()

    def answer(task: Task) -> None:
        done = Done(task.number, outcome(analyser, task))
        with said, contextlib.suppress(OSError):  # the driver is gone: so is this process, soon
            pipe.send(done)

    pipe.send(analyser.about)
    pool = ThreadPoolExecutor(analyser.about.slots, thread_name_prefix="spinexr-batch")
    with contextlib.suppress(EOFError, OSError):
        while True:
            pool.submit(answer, pipe.recv())
    pool.shutdown(wait=False, cancel_futures=True)
    analyser.close()
