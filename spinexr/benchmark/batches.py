"""What a batch costs beside its analyses, and how it compares with a plain loop.

The driver: an analysis that takes no time, then a resume over all that is answered. Locally: a
batch on this machine against a loop over the plain server's functions, over phantoms in the
encodings that both read; on request also with the workers of a Dask cluster on this machine.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from spinexr.batch import listing, results
from spinexr.batch.address import Address
from spinexr.batch.driver import Driver, Places, Progress
from spinexr.batch.executor import About, Answer, Done, Event, Executor, Task
from spinexr.batch.ledger import Ledger, State
from spinexr.batch.local import LocalExecutor, Place
from spinexr.batch.work import OpenWorker, Options
from spinexr.benchmark import radiographs
from spinexr.errors import ConfigurationError
from spinexr.imaging.sandbox import SandboxOptions
from spinexr.inference.engines import EngineOptions
from spinexr.inference.engines.precision import Precision
from spinexr.processors import available_threads

_CAPACITY = 16
_SETTLED_AFTER = 50_000  # inputs, after which memory should no longer grow
_MAX_BYTES = 64 * 1024 * 1024
_MAX_PIXELS = 100_000_000
_SIDES = ((1228, 803), (1024, 700), (900, 620), (1400, 900))  # about half of VinDr-SpineXR's


@dataclass(frozen=True)
class OpenNull:
    """A worker whose analyses take no time."""

    def __call__(self) -> NullAnalyser:
        return NullAnalyser()


class NullAnalyser:
    """Answers at once, with a row as full as any."""

    about = About({}, None, slots=_CAPACITY)

    def __init__(self) -> None:
        members = [{"name": n, "architecture": n, "probability": 0.5, "weight": 0.3} for n in "abc"]
        names = (n for n in results.schema(()).names if n not in ("input", "duplicate_of"))
        self._row = dict.fromkeys(names) | {
            "decision": "normal", "probability": 0.5, "members": members, "bundle": "none",
        }  # fmt: skip

    def __call__(self, task: Task) -> Answer:
        instance = hashlib.sha256(str(task.number).encode()).hexdigest()[:32]
        return Answer({**self._row, "instance": instance})

    def close(self) -> None:
        """There is nothing to end."""


class _Nothing(Executor):
    """A null analyser without any worker."""

    def __init__(self) -> None:
        self._waiting: deque[Task] = deque()
        self._analyser = NullAnalyser()

    def start(self) -> About:
        return self._analyser.about

    @property
    def capacity(self) -> int:
        return _CAPACITY

    def submit(self, task: Task) -> None:
        self._waiting.append(task)

    def wait(self, timeout_s: float) -> Sequence[Event]:
        task = self._waiting.popleft()
        return [Done(task.number, self._analyser(task))]

    def close(self) -> None:
        """There is nothing to end."""


def of_driver(root: Path, inputs: int) -> dict[str, float]:
    """Milliseconds an input, growth of memory after the first inputs, seconds of a resume.

    Times of the processor are given too: on a busy machine they say more.
    """
    (root / "results").mkdir()
    settled = 0

    def watch(progress: Progress) -> None:
        nonlocal settled
        if not settled and progress.answered >= min(_SETTLED_AFTER, inputs // 2):
            settled = _resident_bytes()

    def run() -> tuple[float, float, Ledger]:
        start, start_processor = perf_counter(), process_time()
        ledger = Ledger(root / "ledger.sqlite")
        driver = _driver(ledger, _Nothing(), root / "results", report=watch)
        driver.run(Address(f"/archive/{n // 1000:06d}/{n:09d}.dcm") for n in range(inputs))
        return perf_counter() - start, process_time() - start_processor, ledger

    first_s, first_processor_s, ledger = run()
    grown = _resident_bytes() / settled - 1
    answered = ledger.count(State.ANSWERED)
    ledger.close()
    resume_s, resume_processor_s, ledger = run()
    ledger.close()
    return {
        "inputs": inputs,
        "answered": answered,
        "ms_an_input": 1000 * first_s / inputs,
        "processor_ms_an_input": 1000 * first_processor_s / inputs,
        "memory_grown": grown,
        "resume_s": resume_s,
        "resume_processor_s": resume_processor_s,
    }


def of_cluster(root: Path, inputs: int) -> dict[str, float]:
    """What a Dask cluster costs beside its analyses, milliseconds an input.

    Driver and scheduler are one process, the worker is another one, on this machine.
    """
    import psutil
    from distributed import LocalCluster

    from spinexr.batch.dask_executor import DaskExecutor

    (root / "results").mkdir()
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None,
        host="127.0.0.1", local_directory=str(root / "cluster"),
    ) as cluster:  # fmt: skip
        executor = DaskExecutor(cluster.scheduler_address, OpenNull())
        executor.start()
        ledger = Ledger(root / "ledger.sqlite")
        driver = _driver(ledger, executor, root / "results")

        def of_workers() -> float:
            children = psutil.Process().children(recursive=True)
            return float(sum(t.user + t.system for t in (c.cpu_times() for c in children)))

        start, start_here, start_there = perf_counter(), process_time(), of_workers()
        driver.run(Address(f"/archive/{n:09d}.dcm") for n in range(inputs))
        seconds, here = perf_counter() - start, process_time() - start_here
        there = of_workers() - start_there
        answered = ledger.count(State.ANSWERED)
        ledger.close()
        executor.close()
    return {
        "inputs": inputs,
        "answered": answered,
        "ms_an_input": 1000 * seconds / inputs,
        "driver_and_scheduler_processor_ms_an_input": 1000 * here / inputs,
        "worker_processor_ms_an_input": 1000 * there / inputs,
    }


def of_local(
    root: Path,
    images: int,
    precisions: Sequence[Precision],
    *,
    detector: str = "yolo11l",
    dask: bool = False,
) -> dict[str, Any]:
    """Images a second of the plain loop and of batches, over the same files.

    Args:
        dask: also with the workers of a Dask cluster on this machine.
    """
    from spinexr.training.untrained import write_untrained_bundle

    weights, files = root / "weights", root / "files"
    write_untrained_bundle(weights, detector=detector)
    files.mkdir()
    stored = radiographs.phantom()
    for n, (name, data) in enumerate(_files(stored, images)):
        (files / f"{n:06d}-{name}.dcm").write_bytes(data)
    found: dict[str, Any] = {"images": images, "plain": _plain_rate(weights, files)}
    for precision in precisions:
        for workers in (1, 2):
            opened = _opened(root, weights, precision, max(1, available_threads() // workers))
            rate = _rate(root, files, LocalExecutor(opened, [Place()] * workers))
            found[f"{precision}, {workers} workers"] = rate
            found[f"{precision}, {workers} workers against the plain loop"] = rate / found["plain"]
        found[f"{precision}, efficiency of 2 workers"] = (
            found[f"{precision}, 2 workers"] / found[f"{precision}, 1 workers"]
        )
        if dask:
            found |= _of_dask(root, weights, files, precision)
            for workers in (1, 2):
                found[f"{precision}, Dask against local, {workers} workers"] = (
                    found[f"{precision}, Dask, {workers} workers"]
                    / found[f"{precision}, {workers} workers"]
                )
    return found


def _of_dask(root: Path, weights: Path, files: Path, precision: Precision) -> dict[str, float]:
    """The same with workers of a cluster; the processors are shared out among them."""
    from distributed import LocalCluster

    from spinexr.batch.dask_executor import DaskExecutor, Freight

    found = {}
    for workers in (1, 2):
        opened = _opened(root, weights, precision, 0)
        with LocalCluster(
            n_workers=workers, threads_per_worker=max(1, available_threads() // workers),
            processes=True, dashboard_address=None, host="127.0.0.1",
            local_directory=str(root / "cluster"),
        ) as cluster:  # fmt: skip
            executor = DaskExecutor(
                cluster.scheduler_address, opened, freight=Freight(weights, opened.engine)
            )
            found[f"{precision}, Dask, {workers} workers"] = _rate(root, files, executor)
    found[f"{precision}, Dask, efficiency of 2 workers"] = (
        found[f"{precision}, Dask, 2 workers"] / found[f"{precision}, Dask, 1 workers"]
    )
    return found


def _files(stored: radiographs.Stored, images: int) -> Iterator[tuple[str, bytes]]:
    """Few radiographs in each encoding, over and over: files differ by name alone."""
    made = []
    for syntax in radiographs.ALL_SYNTAXES:
        if syntax == "JPEG-LS" and importlib.util.find_spec("gdcm") is None:
            continue  # the plain server's decoder (requirements-benchmark.txt)
        for rows, columns in _SIDES:
            sized = radiographs.resized(stored, rows * columns / 1e6)
            made.append((syntax.replace(" ", "-"), radiographs.encoded(sized, syntax)))
    for n in range(images):
        yield made[n % len(made)]


def _plain_rate(weights: Path, files: Path) -> float:
    """Images a second of the plain server's functions in a loop."""
    from spinexr.benchmark import reference  # torch and ultralytics: seconds to import

    plain = reference.plain(weights, available_threads())
    listed = sorted(files.iterdir())
    plain(listed[0].read_bytes())
    start = perf_counter()
    for file in listed:
        plain(file.read_bytes())
    return len(listed) / (perf_counter() - start)


def _opened(root: Path, weights: Path, precision: Precision, threads: int) -> OpenWorker:
    return OpenWorker(
        weights=weights,
        engine=EngineOptions(
            engine="openvino",
            store=root / "engines",
            precision=precision,
            threads=threads,
            unjudged=True,
        ),
        sandbox=SandboxOptions(timeout_s=60),
        options=Options(max_bytes=_MAX_BYTES, max_pixels=_MAX_PIXELS),
    )


def _rate(root: Path, files: Path, executor: Executor) -> float:
    """Images a second of a batch once its workers are there."""
    with TemporaryDirectory(dir=root) as folder:
        executor.start()
        ledger = Ledger(Path(folder) / "ledger.sqlite")
        driver = _driver(ledger, executor, Path(folder))
        start = perf_counter()
        driver.run(listing.inputs([str(files)]))
        seconds = perf_counter() - start
        answered = ledger.count(State.ANSWERED)
        ledger.close()
        executor.close()
    if answered != len(list(files.iterdir())):
        raise ConfigurationError("Not every image was answered.")
    return answered / seconds


def _driver(ledger: Ledger, executor: Executor, out: Path, **options: Any) -> Driver:
    return Driver(
        ledger=ledger, executor=executor, places=Places(out), schema=results.schema(()),
        max_bytes=_MAX_BYTES, **options,
    )  # fmt: skip


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
