"""Workers of a Dask cluster on loopback: in this process where nothing has to die."""

from __future__ import annotations

import hashlib
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from spinexr.batch import results
from spinexr.batch.address import Address
from spinexr.batch.cargo import Cargo, Item, Kind
from spinexr.batch.driver import Driver, Places
from spinexr.batch.executor import About, Answer, Done, Event, Failure, Task
from spinexr.batch.ledger import Ledger, State
from spinexr.errors import BatchError
from spinexr.inference.engines import EngineOptions
from tests import builders
from tests.batch.workers import (
    MAX_BYTES,
    Null,
    OpenFake,
    OpenNone,
    batch_with_a_deadly_file,
    events,
)

dask = pytest.importorskip("dask", reason="requirements-dask.txt")
pytest.importorskip("distributed", reason="requirements-dask.txt")

from spinexr.batch import cargo, dask_executor  # noqa: E402
from spinexr.batch.dask_executor import DaskExecutor, Freight, Patience  # noqa: E402

QUICK = Patience(connect=15.0, workers=60.0, answer=10.0, look=0.05)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Executors silence the cluster's library; its level is as before afterwards."""
    logger = logging.getLogger("distributed")
    level = logger.level
    yield
    logger.setLevel(level)


def cluster(folder: Path, *, workers: int = 1, processes: bool = False) -> Any:
    """A scheduler and workers, whose files lie below a folder."""
    from distributed import LocalCluster

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=processes, protocol="tcp",
            dashboard_address=None, host="127.0.0.1", local_directory=str(folder), silence_logs=50,
        )  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One worker, in this process."""
    with cluster(tmp_path_factory.mktemp("here")) as made:
        yield made


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two workers in processes of their own, each with a nanny that begins a new one."""
    with cluster(tmp_path_factory.mktemp("mortal"), workers=2, processes=True) as made:
        yield made


@pytest.fixture
def begin() -> Iterator[Callable[..., DaskExecutor]]:
    """Makes executors, and closes them."""
    made: list[DaskExecutor] = []

    def begin(cluster: Any, opened: Any = None, **options: Any) -> DaskExecutor:
        options.setdefault("patience", QUICK)
        made.append(DaskExecutor(cluster.scheduler_address, opened or OpenFake(), **options))
        return made[-1]

    yield begin
    for each in made:
        each.close()


def outcomes(found: list[Event]) -> dict[int, Answer | Failure]:
    return {e.number: e.outcome for e in found if isinstance(e, Done)}


def test_workers_of_a_cluster_answer_refuse_and_name_faults(
    here: Any, begin: Callable[..., DaskExecutor], tmp_path: Path
) -> None:
    executor = begin(here)
    assert executor.start().identity == {"bundle": "fake"}
    assert executor.capacity == 2
    (tmp_path / "good").write_bytes(builders.dicom())
    (tmp_path / "bad").write_bytes(b"x" * 200)
    for number, name in enumerate(("good", "bad", "gone")):
        executor.submit(Task(number, Address(str(tmp_path / name))))
    good, bad, gone = (o for _, o in sorted(outcomes(events(executor, 3)).items()))
    assert isinstance(good, Answer)
    assert good.row["decision"] == "abnormal"
    assert isinstance(bad, Failure)
    assert bad.code == "not_dicom"
    assert isinstance(gone, Failure)
    assert gone.code == "internal_error"
    assert executor.wait(0.0) == []


def test_a_file_that_kills_its_workers_is_named_and_costs_no_other_its_answer(
    mortal: Any, begin: Callable[..., DaskExecutor], tmp_path: Path
) -> None:
    executor = begin(mortal)
    executor.start()
    batch_with_a_deadly_file(executor, tmp_path)


def test_workers_of_another_version_are_refused_by_name(
    here: Any, begin: Callable[..., DaskExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    (address,) = here.scheduler_info["workers"]
    from spinexr import __version__

    monkeypatch.setattr(dask_executor, "__version__", "9.8.7")
    with pytest.raises(BatchError) as caught:
        begin(here).start()
    assert f"{address} has SpineXR {__version__}, and 9.8.7 is wanted" in caught.value.message


def test_workers_that_cannot_begin_say_why(here: Any, begin: Callable[..., DaskExecutor]) -> None:
    with pytest.raises(BatchError, match=r"tcp://.*best\.pt is missing"):
        begin(here, OpenNone()).start()


@pytest.mark.parametrize("file", [True, False])
def test_a_scheduler_that_does_not_answer_is_named(tmp_path: Path, file: bool) -> None:
    address = "tcp://127.0.0.1:9"
    if file:
        (tmp_path / "scheduler.json").write_text(f'{{"address": "{address}"}}', encoding="utf-8")
        address = str(tmp_path / "scheduler.json")
    executor = DaskExecutor(address, OpenFake(), patience=Patience(connect=0.2))
    with pytest.raises(BatchError, match=r"No scheduler of Dask answers at .*--dask"):
        executor.start()
    executor.close()


def test_a_scheduler_without_workers_is_named(tmp_path: Path) -> None:
    with cluster(tmp_path, workers=0) as empty:
        executor = DaskExecutor(empty.scheduler_address, OpenFake(), patience=Patience(workers=0.2))
        with pytest.raises(BatchError, match="has no workers"):
            executor.start()
        executor.close()


@dataclass(frozen=True)
class OpenSlow:
    """A worker whose tasks end when a file is there."""

    gate: Path
    begun: Path

    def __call__(self) -> Slow:
        return Slow(self.gate, self.begun)


class Slow(Null):
    def __init__(self, gate: Path, begun: Path) -> None:
        self._gate, self._begun = gate, begun

    def __call__(self, task: Task) -> Answer | Failure:
        if task.number > 2:
            (self._begun / str(task.number)).touch()
            while not self._gate.exists():
                time.sleep(0.01)  # in a thread of a worker: it stands for work
        return super().__call__(task)


def test_a_scheduler_that_goes_away_ends_the_batch_and_what_was_answered_is_kept(
    tmp_path: Path, begin: Callable[..., DaskExecutor]
) -> None:
    gate, out = tmp_path / "gate", tmp_path / "results"
    out.mkdir()
    made = cluster(tmp_path / "cluster")
    executor = begin(made, OpenSlow(gate, tmp_path))
    executor.start()
    ledger = Ledger(tmp_path / "ledger.sqlite")
    begun = (tmp_path / "3", tmp_path / "4")

    def stop() -> bool:
        """Not to stop, but to know when both slots are held."""
        if all(f.exists() for f in begun) and not gate.exists():
            made.scheduler.loop.add_callback(made.scheduler.close)
            # The tasks end when the driver has noticed, so that none is answered by chance.
            while executor._client.status == "running":
                time.sleep(0.01)
            gate.touch()
        return False

    driver = Driver(
        ledger=ledger, executor=executor, places=Places(out), schema=results.schema(()),
        max_bytes=MAX_BYTES, stop=stop,
    )  # fmt: skip
    with pytest.raises(BatchError, match=r"The scheduler at tcp://.* is gone.*--resume"):
        driver.run(Address(f"/{n}") for n in range(8))
    assert ledger.count(State.ANSWERED) == 2
    assert len(list(out.iterdir())) == 1
    ledger.close()
    executor.close()
    with dask.config.set({"distributed.comm.timeouts.connect": "100ms"}):  # nobody is there
        made.close()


@dataclass(frozen=True)
class OpenMoved:
    """An analyser that answers with the files of its bundle, and may compile one."""

    root: Path | None = None
    compiles: bool = False

    def moved(self, root: Path, *, threads: int) -> OpenMoved:
        assert threads == 1
        return OpenMoved(root, self.compiles)

    def __call__(self) -> Null:
        assert self.root is not None
        made = Null()
        network = self.root / "engines/net-1/network.xml"
        if self.compiles and not network.exists():
            network.parent.mkdir(parents=True)
            network.write_bytes(b"compiled here")
        files = sorted(f.relative_to(self.root).as_posix() for f in self.root.rglob("*"))
        made.about = About({"bundle": "moved"}, str(files), slots=2)
        return made


@dataclass
class Sent:
    """What the driver packs, and what left it."""

    root: Path
    files: list[str] = field(default_factory=list)

    def pack(self, weights: Path, options: EngineOptions, kind: Kind) -> Cargo:
        items, found = [], {}
        for file in sorted(f for f in weights.rglob("*") if f.is_file()):
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            name = file.relative_to(weights).as_posix()
            items.append(Item(name, digest, file.stat().st_size))
            found[digest] = file
        return Cargo(tuple(items), (weights / "engines").exists(), found)


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sent:
    """A bundle of two files, packed as it lies there; pieces are small."""
    root = tmp_path / "weights"
    (root / "ensemble output").mkdir(parents=True)
    (root / "ensemble output/manifest.json").write_bytes(b"{}" + str(tmp_path).encode())
    (root / "large").write_bytes(str(tmp_path).encode() * 100)
    made = Sent(root)
    monkeypatch.setattr(cargo, "pack", made.pack)
    monkeypatch.setattr(cargo, "CHUNK_BYTES", 1000)
    real = DaskExecutor._ship_file

    async def ship(self: DaskExecutor, file: Path, *rest: Any) -> dict[str, str]:
        made.files.append(file.name)
        return await real(self, file, *rest)

    monkeypatch.setattr(DaskExecutor, "_ship_file", ship)
    return made


def freight(sent: Sent) -> Freight:
    return Freight(sent.root, EngineOptions(engine="openvino"))


def test_a_bundle_travels_to_a_machine_once(
    here: Any, begin: Callable[..., DaskExecutor], sent: Sent
) -> None:
    (sent.root / "engines").mkdir()
    first = begin(here, OpenMoved(), freight=freight(sent)).start()
    assert first.caveat is not None
    assert "large" in first.caveat
    assert sorted(sent.files) == ["large", "manifest.json"]
    (sent.root / "new").write_bytes(b"new" + str(sent.root).encode())
    begin(here, OpenMoved(compiles=True), freight=freight(sent)).start()
    assert sorted(sent.files) == ["large", "manifest.json", "new"]


def test_what_one_worker_compiled_comes_back_for_all(
    here: Any, begin: Callable[..., DaskExecutor], sent: Sent
) -> None:
    begin(here, OpenMoved(compiles=True), freight=freight(sent)).start()
    assert (sent.root / "engines/net-1/network.xml").read_bytes() == b"compiled here"
    assert [f.name for f in (sent.root / "engines").iterdir()] == ["net-1"]


def test_the_cluster_is_given_no_address_in_a_name_of_a_task(
    here: Any, begin: Callable[..., DaskExecutor], tmp_path: Path
) -> None:
    """Names of tasks are logged by schedulers, and addresses may name patients."""
    gate = tmp_path / "gate"
    executor = begin(here, OpenSlow(gate, tmp_path))
    executor.start()
    executor.submit(Task(3, Address("/Smith")))
    while not (tmp_path / "3").exists():
        assert executor.wait(0.01) == []
    assert not [k for k in here.scheduler.tasks if "Smith" in str(k)]
    assert len(here.scheduler.tasks) == 1
    gate.touch()
    assert list(outcomes(events(executor, 1))) == [3]
