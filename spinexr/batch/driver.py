"""The driver: inputs from the list to the ledger, to the workers, to the parts.

It holds a bounded number of inputs and rows, whatever the archive's size. What happens at which
moment is kept so that a kill loses work and nothing else: rows reach the disk, then the ledger.
"""

from __future__ import annotations

import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from spinexr.batch import results
from spinexr.batch.address import Address
from spinexr.batch.executor import Answer, Done, Event, Executor, Failure, Lost, Task
from spinexr.batch.ledger import Entry, Ledger, State
from spinexr.batch.listing import Listed, Unlisted
from spinexr.batch.sources import Sources
from spinexr.errors import BatchError, SpineXRError, WorkerDiedError

ROWS_A_PART: Final = 2000
SECONDS_A_PART: Final = 60.0
# Listed at once, ahead of the workers, so that the time left is known soon; but not for so long
# that they wait.
_LISTED_AT_ONCE: Final = 512
_LISTING_S: Final = 0.1
_WAIT_S: Final = 0.5  # how soon a wish to stop is noticed
_MOST_DEATHS: Final = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a batch is.

    known: inputs so far; all of them once `listed`.
    per_s: inputs a second since this run began.
    """

    answered: int
    failed: int
    known: int
    listed: bool
    per_s: float

    @property
    def left_s(self) -> float | None:
        """Seconds left at this rate; None while nobody can know."""
        if not self.listed or self.per_s <= 0:
            return None
        return (self.known - self.answered - self.failed) / self.per_s


@dataclass(frozen=True, slots=True)
class Places:
    """Where a batch writes: parts; annotated images and DICOM objects where they are wanted."""

    results: Path
    overlays: Path | None = None
    objects: Path | None = None


@dataclass(slots=True, kw_only=True)
class Driver:
    """One run over a ledger.

    max_bytes: of an input that only the driver can read.
    stop: asked often; once true, what is answered is kept and the run ends.
    clock: seconds.
    """

    ledger: Ledger
    executor: Executor
    places: Places
    schema: pa.Schema
    max_bytes: int
    report: Callable[[Progress], None] = lambda _: None
    stop: Callable[[], bool] = lambda: False
    clock: Callable[[], float] = time.monotonic
    rows_a_part: int = ROWS_A_PART

    def run(self, listed: Iterator[Listed]) -> bool:
        """Analyse until nothing waits; False when it was stopped before.

        Raises:
            BatchError: nothing can be written any more, as on a full disk. What was answered is
                kept.
            SpineXRError: no worker can be had any more.
        """
        try:
            return _Run(self, listed).go_or_keep()
        except sqlite3.Error as e:
            raise BatchError(_cannot_write(str(e))) from e
        except OSError as e:
            raise BatchError(_cannot_write(e.strerror or str(e))) from e


class _Run:
    def __init__(self, driver: Driver, listed: Iterator[Listed]) -> None:
        self._it, self._listing = driver, listed
        self._listed = False
        self._next: deque[Entry] = deque()
        self._suspects: deque[Entry] = deque()
        self._under_way: dict[int, Entry] = {}
        self._alone = False
        self._rows: list[dict[str, Any]] = []
        self._failures: list[tuple[int, Failure]] = []
        self._sources = Sources(max_bytes=driver.max_bytes)
        self._began = self._last_part = driver.clock()
        self._active_before = driver.ledger.active_s
        self._done = 0

    def go_or_keep(self) -> bool:
        """Go; without workers, too, what they have answered is kept."""
        try:
            return self._go()
        except SpineXRError:
            self._note_failures()
            self._write_part()
            raise
        finally:
            self._sources.close()

    def _go(self) -> bool:
        results.remove_uncommitted(self._it.places.results, self._it.ledger.parts)
        if self._it.places.overlays is not None:
            self._it.places.overlays.mkdir(exist_ok=True)
        if self._it.places.objects is not None:
            self._it.places.objects.mkdir(mode=0o700, exist_ok=True)  # they name patients
        while not self._it.stop():
            self._list_some()
            self._submit()
            if not self._under_way and self._listed and not self._failures:
                break
            if self._under_way:
                wait = self._full or self._listed
                for event in self._it.executor.wait(_WAIT_S if wait else 0.0):
                    self._happened(event)
            self._note_failures()
            if len(self._rows) >= self._it.rows_a_part or (
                self._rows and self._it.clock() - self._last_part >= SECONDS_A_PART
            ):
                self._write_part()
            self._say()
        else:
            self._note_failures()
            self._write_part()
            return False
        self._write_part()
        self._say()
        return True

    @property
    def _full(self) -> bool:
        return self._alone or len(self._under_way) >= self._it.executor.capacity

    def _list_some(self) -> None:
        if self._listed:
            return
        found: list[Address] = []
        began = self._it.clock()
        for _ in range(_LISTED_AT_ONCE):
            entry = next(self._listing, None)
            if entry is None:
                self._listed = True
                break
            if isinstance(entry, Unlisted):
                failure = Failure(entry.error.code, entry.error.message)
                self._it.ledger.add_failed(entry.address, failure)
            else:
                found.append(entry)
            if self._it.clock() - began > _LISTING_S:
                break
        self._it.ledger.add(found)

    def _submit(self) -> None:
        """Inputs that were on a worker as it died go alone: so the next death names its cause."""
        while not self._full:
            if self._suspects:
                if not self._under_way:
                    self._alone = True
                    self._hand_over(self._suspects.popleft())
                return
            if not self._next:
                self._next.extend(self._it.ledger.take(_LISTED_AT_ONCE))
            if not self._next:
                return
            entry = self._next.popleft()
            if entry.deaths:
                self._suspects.append(entry)
            else:
                self._hand_over(entry)

    def _hand_over(self, entry: Entry) -> None:
        self._under_way[entry.number] = entry
        data = None
        if entry.address.file.startswith("memory://"):  # of this process and no other
            try:
                data = self._sources.read(entry.address)
            except SpineXRError as e:
                self._happened(Done(entry.number, Failure(e.code, e.message)))
                return
        self._it.executor.submit(Task(entry.number, entry.address, data))

    def _happened(self, event: Event) -> None:
        if isinstance(event, Lost):
            self._lost(event)
            return
        if self._under_way.pop(event.number, None) is None:
            return  # answered twice, as a cluster may: the first one counts
        self._alone = False
        self._done += 1
        if isinstance(event.outcome, Answer):
            self._answered(event.number, event.outcome)
        else:
            self._failures.append((event.number, event.outcome))

    def _answered(self, number: int, answer: Answer) -> None:
        if answer.overlay is not None and self._it.places.overlays is not None:
            file = self._it.places.overlays / f"{number:09d}.jpg"
            results.write_bytes(file, answer.overlay)
        if self._it.places.objects is not None:
            for kind, data in answer.objects.items():
                results.write_bytes(self._it.places.objects / f"{number:09d}-{kind}.dcm", data)
        self._rows.append({**answer.row, "input": number})

    def _lost(self, event: Lost) -> None:
        if not event.numbers:
            return  # of an idle worker; what is alone stays alone
        self._alone = False
        lost = [self._under_way.pop(n) for n in event.numbers if n in self._under_way]
        deaths = self._it.ledger.died(e.number for e in lost)
        for entry in lost:
            if deaths[entry.number] >= _MOST_DEATHS:
                error = WorkerDiedError(
                    "The process that analysed this file ended twice. The file may need more "
                    "memory than there is; it was left out."
                )
                self._done += 1
                self._failures.append((entry.number, Failure(error.code, error.message)))
            else:
                self._suspects.append(Entry(entry.number, entry.address, deaths[entry.number]))

    def _note_failures(self) -> None:
        if self._failures:
            self._it.ledger.fail(self._failures)
            self._failures = []

    def _write_part(self) -> None:
        self._last_part = self._it.clock()
        if not self._rows:
            return
        ledger, part = self._it.ledger, self._it.ledger.parts
        firsts: dict[str, int] = {}
        for row in self._rows:
            instance = row["instance"]
            if instance is not None:
                known = ledger.first_with(instance)
                row["duplicate_of"] = firsts.get(instance) if known is None else known
                firsts.setdefault(instance, row["input"])
        results.write_part(self._it.places.results, part, self._rows, self._it.schema)
        ledger.answer(
            [(row["input"], row["instance"]) for row in self._rows],
            parts=part + 1,
            active_s=self._active_before + self._it.clock() - self._began,
        )
        self._rows = []

    def _say(self) -> None:
        ledger = self._it.ledger
        passed = self._it.clock() - self._began
        self._it.report(
            Progress(
                answered=ledger.count(State.ANSWERED) + len(self._rows),
                failed=ledger.count(State.FAILED),
                known=sum(ledger.count(s) for s in State),
                listed=self._listed,
                per_s=self._done / passed if passed > 0 else 0.0,
            )
        )


def _cannot_write(reason: str) -> str:
    hint = "Make room" if "space" in reason or "full" in reason else "See to that"
    return (
        f"The results cannot be written: {reason}. {hint}; --resume then goes on where it stopped."
    )
