"""A driver in a process of its own that is killed at given points, and its workers with it.

`python -m tests.batch.chaos OUT LIST POINTS [ADDRESS]` runs the inputs of a csv. POINTS are
`driver:N` and `worker:N`, separated by commas: once N inputs are done, that one is killed, a worker
as soon as no input is under suspicion. With an ADDRESS the workers are those of a Dask cluster.
Analyses cost nothing, so that what is between them is what is tried.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from spinexr.batch import listing, results
from spinexr.batch.driver import Driver, Places, Progress
from spinexr.batch.executor import About, Answer, Executor, Failure, Task
from spinexr.batch.ledger import Ledger, State
from spinexr.batch.local import LocalExecutor, Place

POISON, DEADLY = b"poison", b"deadly"
_MAX_BYTES = 1000
_ROWS_A_PART = 7


@dataclass(frozen=True)
class OpenChaos:
    """A worker that files refuse to, or kill."""

    def __call__(self) -> Chaos:
        return Chaos()


class Chaos:
    """A row for every file; but one is refused, and one ends the process."""

    about = About({"bundle": "chaos"}, None, slots=2)
    _names = tuple(n for n in results.schema(()).names if n not in ("input", "duplicate_of"))

    def __call__(self, task: Task) -> Answer | Failure:
        data = Path(task.address.file).read_bytes()
        if data == DEADLY:
            os.kill(os.getpid(), signal.SIGKILL)
        if data == POISON:
            return Failure("not_dicom", "This is not DICOM.")
        return Answer(dict.fromkeys(self._names) | {"instance": data.decode()})

    def close(self) -> None:
        """There is nothing to end."""


@dataclass(frozen=True)
class Point:
    """Who is killed, once so many inputs are done."""

    who: str
    done: int

    @classmethod
    def parse(cls, text: str) -> list[Point]:
        pairs = (part.split(":") for part in text.split(",") if part)
        return [cls(who, int(done)) for who, done in pairs]


def main(out: Path, sheet: str, points: list[Point], address: str | None) -> None:
    """Run, and be killed."""
    executor, pids = _executor(address)
    executor.start()
    (out / "results").mkdir(parents=True, exist_ok=True)
    ledger = Ledger(out / "ledger.sqlite")

    def kill(progress: Progress) -> None:
        while points and progress.answered + progress.failed >= points[0].done:
            if points[0].who == "worker" and suspected(ledger):
                return  # it would die a second time with an input that killed nobody
            victim = os.getpid() if points.pop(0).who == "driver" else pids()[0]
            os.kill(victim, signal.SIGKILL)

    driver = Driver(
        ledger=ledger, executor=executor, places=Places(out / "results"),
        schema=results.schema(()), max_bytes=_MAX_BYTES, report=kill, rows_a_part=_ROWS_A_PART,
    )  # fmt: skip
    driver.run(listing.inputs([sheet]))
    results.write_failures(out / "failures.parquet", ledger.failures())
    ledger.close()
    executor.close()
    if points:
        sys.exit(f"It ended before {points} came.")


def suspected(ledger: Ledger) -> int:
    """How many inputs without a result have been on a worker as it died."""
    found = ledger._connection.execute(
        "SELECT COUNT(*) FROM inputs WHERE deaths > 0 AND state IN (?, ?)",
        (State.WAITING, State.IN_FLIGHT),
    )
    return int(found.fetchone()[0])


def _executor(address: str | None) -> tuple[Executor, Callable[[], tuple[int, ...]]]:
    """Workers, and what tells their process ids."""
    if address is None:
        local = LocalExecutor(OpenChaos(), [Place()] * 2)
        return local, lambda: local.pids
    from spinexr.batch.dask_executor import DaskExecutor, Patience

    cluster = DaskExecutor(address, OpenChaos(), patience=Patience(look=0.05))

    def pids() -> tuple[int, ...]:
        found = cluster._call(cluster._run(os.getpid, list(cluster._workers)))
        return tuple(found[a] for a in sorted(found))

    return cluster, pids


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Point.parse(sys.argv[3]), (*sys.argv[4:], None)[0])
