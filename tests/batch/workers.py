"""Workers whose answers a test sets, in this process and in others."""

from __future__ import annotations

import os
import signal
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spinexr.batch import listing, results
from spinexr.batch.driver import Driver, Places
from spinexr.batch.executor import About, Analyser, Answer, Event, Executor, Failure, Open, Task
from spinexr.batch.executor import Done as _Done
from spinexr.batch.executor import Lost as _Lost
from spinexr.batch.ledger import Ledger, State
from spinexr.batch.work import Options, Worker
from spinexr.domain import Radiograph
from spinexr.errors import ModelsNotReadyError
from spinexr.imaging import reader
from spinexr.inference.predictor import Predictor
from tests import builders
from tests.fakes import FakeEngine, fake_bundle

MAX_BYTES = 1_000_000
SALT = b"salt"
LONGEST_S = 60.0
KILL = b"kill"  # what a file holds that ends its worker


def worker(engine: FakeEngine | None = None, **options: object) -> Worker:
    """The real worker over a fake engine; options as in `work.Options`."""
    chosen = Options(**{"max_bytes": MAX_BYTES, "max_pixels": 10**7, "salt": SALT, **options})  # type: ignore[arg-type]

    def read(data: bytes, *, max_pixels: int, allow_other_body_part: bool = False) -> Radiograph:
        return reader.read(
            data,
            max_pixels=max_pixels,
            allow_other_body_part=allow_other_body_part,
            keep=chosen.read_keywords,
        )

    return Worker(Predictor(fake_bundle(), engine or FakeEngine(), 4), read, chosen, slots=2)


@dataclass(frozen=True)
class OpenFake:
    """A worker over a fake engine that a file may kill."""

    name: str = "fake"

    def __call__(self) -> Analyser:
        return Deadly(self.name)


@dataclass(frozen=True)
class OpenNamedByGpu:
    """A worker that calls its bundle by the GPU that CUDA would show it."""

    def __call__(self) -> Analyser:
        return Deadly(os.environ["CUDA_VISIBLE_DEVICES"])


class Deadly:
    """Answers by the name of the bundle; a file of the word KILL ends the process."""

    def __init__(self, name: str) -> None:
        self.about = About({"bundle": name}, None, slots=2)
        self._worker = worker()

    def __call__(self, task: Task) -> Answer | Failure:
        if Path(task.address.file).read_bytes() == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._worker(task)

    def close(self) -> None:
        self._worker.close()


@dataclass(frozen=True)
class OpenNone:
    """A worker that there can never be."""

    dies: bool = False

    def __call__(self) -> Analyser:
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        raise ModelsNotReadyError("best.pt is missing.")


def events(executor: Executor, number: int) -> list[Event]:
    """The next so many tasks' ends."""
    found: list[Event] = []
    while sum(len(e.numbers) if isinstance(e, _Lost) else 1 for e in found) < number:
        new = executor.wait(LONGEST_S)
        assert new
        found.extend(new)
    return found


def batch_with_a_deadly_file(executor: Executor, folder: Path) -> None:
    """A batch of six good files and one that kills its workers: it alone fails, by name."""
    files, out = folder / "in", folder / "results"
    files.mkdir()
    out.mkdir()
    for n in range(6):
        (files / f"{n}.dcm").write_bytes(builders.dicom(builders.pixels(seed=n)))
    deadly = files / "deadly.dcm"
    deadly.write_bytes(KILL)
    ledger = Ledger(folder / "ledger.sqlite")
    driver = Driver(
        ledger=ledger, executor=executor, places=Places(out), schema=results.schema(()),
        max_bytes=MAX_BYTES,
    )  # fmt: skip
    assert driver.run(listing.inputs([str(files)]))
    assert ledger.count(State.ANSWERED) == 6
    ((failure,),) = ledger.failures()
    assert (failure["code"], failure["address"]) == ("worker_died", str(deadly))
    ledger.close()


class Here(Executor):
    """Analyses in this process, one input after the other; `deadly` inputs lose all under way."""

    def __init__(
        self, analyser: Analyser, *, capacity: int = 4, deadly: Sequence[str] = ()
    ) -> None:
        self.analyser, self._capacity, self.deadly = analyser, capacity, set(deadly)
        self.handed_over: list[Task] = []
        self.most_under_way = 0
        self._waiting: deque[Task] = deque()

    def start(self) -> About:
        return self.analyser.about

    @property
    def capacity(self) -> int:
        return self._capacity

    def submit(self, task: Task) -> None:
        self.handed_over.append(task)
        self._waiting.append(task)
        self.most_under_way = max(self.most_under_way, len(self._waiting))

    def wait(self, timeout_s: float) -> Sequence[Event]:
        if any(Path(t.address.file).name in self.deadly for t in self._waiting):
            lost = tuple(t.number for t in self._waiting)
            self._waiting.clear()
            return [_Lost(lost)]
        task = self._waiting.popleft()
        return [_Done(task.number, self.analyser(task))]

    def close(self) -> None:
        self.analyser.close()


class Null:
    """Answers nothing but a row, at once."""

    about = About({"bundle": "null"}, None, slots=2)

    def __call__(self, task: Task) -> Answer | Failure:
        names = [n for n in results.schema(()).names if n not in ("input", "duplicate_of")]
        return Answer(dict.fromkeys(names) | {"probability": 0.5})

    def close(self) -> None:
        """There is nothing to end."""


OPEN: Open = OpenFake()
