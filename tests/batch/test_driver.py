"""The driver over a ledger, with workers in this process."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pydicom
import pytest

from spinexr.batch import listing, results
from spinexr.batch.address import Address
from spinexr.batch.driver import Driver, Places, Progress
from spinexr.batch.executor import Event, Lost, Task
from spinexr.batch.ledger import Ledger, State
from spinexr.errors import BatchError
from spinexr.reporting import codes
from tests import builders
from tests.batch.workers import MAX_BYTES, SALT, Here, Null, worker

_DEADLY = "deadly.dcm"


class Batch:
    """One output folder that runs may follow each other on."""

    def __init__(self, root: Path) -> None:
        self.results, self.overlays = root / "results", root / "overlay"
        self.objects = root / "dicom"
        self.results.mkdir(parents=True)
        self.file = root / "ledger.sqlite"
        self.ledger = Ledger(self.file)
        self.said: list[Progress] = []
        self.executor = Here(worker())

    def run(self, *names: str | Path, executor: Here | None = None, **options: Any) -> bool:
        """A run to its end, or to an error."""
        self.executor = executor or Here(worker())
        driver = Driver(
            ledger=self.ledger,
            executor=self.executor,
            places=Places(self.results, self.overlays, self.objects),
            schema=results.schema(()),
            max_bytes=MAX_BYTES,
            report=self.said.append,
            **options,
        )
        try:
            return driver.run(listing.inputs(map(str, names)))
        finally:
            self.executor.close()

    def reopen(self) -> None:
        """As the next run does."""
        self.ledger.close()
        self.ledger = Ledger(self.file)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, by input."""
        found = [
            row
            for file in sorted(self.results.glob("*.parquet"))
            for row in pq.read_table(file).to_pylist()
        ]
        return sorted(found, key=lambda row: row["input"])

    @property
    def failures(self) -> dict[str, str]:
        """File name → code."""
        return {
            Path(str(f["address"])).name: str(f["code"])
            for batch in self.ledger.failures()
            for f in batch
        }


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Batch]:
    made = Batch(tmp_path / "out")
    yield made
    made.ledger.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Five radiographs, and one file that is none."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(5):
        (folder / f"{n}.dcm").write_bytes(radiograph(n))
    (folder / "none.dcm").write_bytes(b"nothing of the kind")
    return folder


def radiograph(seed: int) -> bytes:
    """A radiograph with an instance of its own."""
    pixels = builders.pixels(seed=seed)
    return builders.dicom(pixels, attributes={"SOPInstanceUID": f"1.2.3.{seed}"})


def stop_after(rounds: int) -> Callable[[], bool]:
    """Asks to stop when it has been asked that often."""
    left = [rounds]

    def stop() -> bool:
        left[0] -= 1
        return left[0] < 0

    return stop


def test_every_input_has_one_row_or_one_named_failure(batch: Batch, files: Path) -> None:
    assert batch.run(files)
    assert len(batch.rows) == 5
    assert batch.failures == {"none.dcm": "not_dicom"}
    assert {row["decision"] for row in batch.rows} == {"abnormal"}
    assert batch.rows[0]["findings"][0]["label"] == "Osteophytes"
    assert len(list(batch.overlays.iterdir())) == 0  # not asked for


def test_overlays_are_named_by_their_input_and_nothing_else(batch: Batch, files: Path) -> None:
    batch.run(files, executor=Here(worker(overlay=True)))
    written = sorted(f.name for f in batch.overlays.iterdir())
    assert written == [f"{row['input']:09d}.jpg" for row in batch.rows]
    assert (batch.overlays / written[0]).read_bytes().startswith(b"\xff\xd8")


def test_a_second_run_asks_for_nothing_that_is_known(batch: Batch, files: Path) -> None:
    batch.run(files)
    rows = batch.rows
    batch.reopen()
    (files / "new.dcm").write_bytes(radiograph(9))
    assert batch.run(files, files / "0.dcm")
    assert [t.address.file for t in batch.executor.handed_over] == [str(files / "new.dcm")]
    assert batch.rows[:-1] == rows
    assert len(batch.rows) == 6


@pytest.mark.parametrize("rounds", range(1, 7))
def test_a_stop_keeps_what_is_answered_and_the_next_run_does_the_rest(
    batch: Batch, files: Path, rounds: int
) -> None:
    assert not batch.run(files, stop=stop_after(rounds))
    assert len(batch.rows) + len(batch.failures) == rounds
    batch.reopen()
    assert batch.run(files)
    assert len({row["instance"] for row in batch.rows}) == len(batch.rows) == 5
    assert len(batch.executor.handed_over) == 6 - rounds


class _Killed(BaseException):
    """The process would end here."""


def test_a_kill_between_any_two_steps_of_a_part_gives_every_input_one_row(
    tmp_path: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the part is written, after it and before the ledger knows, and after that."""
    real_write, real_answer = results.write_part, Ledger.answer

    def killed(*_: object, **__: object) -> None:
        raise _Killed

    def write_then_die(*arguments: Any, **options: Any) -> None:
        real_write(*arguments, **options)
        raise _Killed

    def answer_then_die(*arguments: Any, **options: Any) -> None:
        real_answer(*arguments, **options)
        raise _Killed

    for number, (owner, name, act) in enumerate(
        [
            (results, "write_part", killed),
            (results, "write_part", write_then_die),
            (Ledger, "answer", killed),
            (Ledger, "answer", answer_then_die),
        ]
    ):
        batch = Batch(tmp_path / str(number))
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, act)
            with pytest.raises(_Killed):
                batch.run(files, rows_a_part=2)
        batch.reopen()
        assert batch.run(files)
        assert len({row["instance"] for row in batch.rows}) == len(batch.rows) == 5
        assert batch.failures == {"none.dcm": "not_dicom"}
        batch.ledger.close()


def test_an_input_that_ends_its_worker_twice_is_a_failure_and_costs_no_other_its_answer(
    batch: Batch, files: Path
) -> None:
    (files / _DEADLY).write_bytes(radiograph(7))
    assert batch.run(files, executor=Here(worker(), deadly=[_DEADLY]))
    assert batch.failures == {"none.dcm": "not_dicom", _DEADLY: "worker_died"}
    assert len(batch.rows) == 5
    deaths = [t for t in batch.executor.handed_over if t.address.file.endswith(_DEADLY)]
    assert len(deaths) == 2


def test_deaths_are_remembered_from_one_run_to_the_next(batch: Batch, files: Path) -> None:
    (files / _DEADLY).write_bytes(radiograph(7))
    batch.ledger.add([Address(str(files / _DEADLY))])
    (entry,) = batch.ledger.take(1)
    batch.ledger.died([entry.number])
    batch.reopen()
    batch.run(files, executor=Here(worker(), deadly=[_DEADLY]))
    deaths = [t for t in batch.executor.handed_over if t.address.file.endswith(_DEADLY)]
    assert len(deaths) == 1
    assert batch.failures[_DEADLY] == "worker_died"


def test_two_files_of_one_instance_have_a_row_each_and_the_later_names_the_first(
    batch: Batch, files: Path
) -> None:
    batch.run(files / "0.dcm")
    (files / "copy.dcm").write_bytes(radiograph(0))
    (files / "other copy.dcm").write_bytes(radiograph(0))
    batch.reopen()
    batch.run(files / "copy.dcm", files / "other copy.dcm", files / "1.dcm")
    first, copy, other, different = batch.rows
    assert (first["duplicate_of"], different["duplicate_of"]) == (None, None)
    assert (copy["duplicate_of"], other["duplicate_of"]) == (first["input"], first["input"])
    assert first["instance"] == copy["instance"] != different["instance"]


def test_results_hold_a_salted_hash_and_neither_uid_nor_path(batch: Batch, files: Path) -> None:
    batch.run(files / "3.dcm")
    (row,) = batch.rows
    assert row["instance"] == results.hashed("1.2.3.3", SALT)
    assert row["instance"] != results.hashed("1.2.3.3", b"other")
    assert "1.2.3.3" not in str(row)
    assert str(files) not in str(row)


@pytest.mark.parametrize("where", ["part", "ledger"])
def test_a_full_disk_stops_the_batch_cleanly_and_it_resumes(
    batch: Batch, files: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    with monkeypatch.context() as patch:
        if where == "part":

            def full(_: int) -> None:
                raise OSError(errno.ENOSPC, "No space left on device")

            patch.setattr("spinexr.batch.results.os.fsync", full)
        else:
            batch.ledger._connection.execute("PRAGMA max_page_count = 1")
        with pytest.raises(BatchError, match=r"(No space left|full).*Make room; --resume"):
            batch.run(files, *(f"{files}/{n}.dcm" for n in range(5)), *_many(files))
    assert list(batch.results.iterdir()) == []
    batch.reopen()
    assert batch.run(files)
    assert len(batch.rows) == 5


def _many(files: Path) -> list[str]:
    """So many names of nothing that a ledger has to grow."""
    sheet = files.parent / "many.csv"
    sheet.write_text("".join(f"{'x' * 200}{n}.dcm\n" for n in range(400)), encoding="utf-8")
    return [str(sheet)]


def test_what_is_answered_is_kept_when_no_worker_can_be_had_any_more(
    batch: Batch, files: Path
) -> None:
    class Failing(Here):
        def wait(self, timeout_s: float) -> Sequence[Event]:
            if len(self.handed_over) > 6 - 1 and len(self._waiting) < 3:
                raise BatchError("there is no worker")
            return super().wait(timeout_s)

    with pytest.raises(BatchError, match="no worker"):
        batch.run(files, executor=Failing(worker()))
    kept = len(batch.rows) + len(batch.failures)
    assert 0 < kept < 6
    batch.reopen()
    assert batch.run(files)
    assert len(batch.executor.handed_over) == 6 - kept


def test_what_failed_is_tried_once_more_when_asked_and_keeps_its_number(
    batch: Batch, files: Path
) -> None:
    (files / _DEADLY).write_bytes(radiograph(7))
    (files / "loop").symlink_to(files)
    batch.run(files, executor=Here(worker(), deadly=[_DEADLY]))
    assert batch.failures.keys() == {"none.dcm", _DEADLY, "loop"}
    (number,) = {t.number for t in batch.executor.handed_over if "none" in t.address.file}
    (files / "none.dcm").write_bytes(radiograph(8))
    (files / "loop").unlink()
    batch.reopen()
    batch.ledger.reopen_failed()
    assert batch.run(files)
    assert batch.failures == {}
    assert len(batch.rows) == 7
    assert number in [row["input"] for row in batch.rows]
    counts = {s: batch.ledger.count(s) for s in State}
    batch.reopen()
    assert {s: batch.ledger.count(s) for s in State} == counts


def test_dicom_objects_are_named_by_their_input_in_a_folder_for_the_owner_alone(
    batch: Batch, files: Path
) -> None:
    uids = {"SOPInstanceUID": "1.2.9", "StudyInstanceUID": "1.3", "SeriesInstanceUID": "1.4"}
    data = builders.dicom(builders.pixels(320, 208), attributes=uids)
    (files / "0.dcm").write_bytes(data)
    nameless = builders.dicom(builders.pixels(320, 208), attributes=uids | {"StudyInstanceUID": ""})
    (files / "1.dcm").write_bytes(nameless)
    executor = Here(worker(codes=codes.read()))
    batch.run(files / "0.dcm", files / "1.dcm", executor=executor)
    (row,) = batch.rows
    written = sorted(f.name for f in batch.objects.iterdir())
    kinds = ("picture", "presentation", "report")
    assert written == [f"{row['input']:09d}-{kind}.dcm" for kind in kinds]
    assert batch.objects.stat().st_mode & 0o777 == 0o700
    report = pydicom.dcmread(batch.objects / written[2])
    assert report.StudyInstanceUID == "1.3"
    assert batch.failures == {"1.dcm": "not_referable"}  # it names no study to be part of


def test_no_more_is_under_way_than_the_workers_take(batch: Batch, files: Path) -> None:
    batch.run(files, executor=Here(worker(), capacity=3))
    assert batch.executor.most_under_way == 3


def test_progress_ends_with_everything_known_and_nothing_left(batch: Batch, files: Path) -> None:
    ticks = iter(range(1_000_000))
    batch.run(files, clock=lambda: float(next(ticks)))
    last = batch.said[-1]
    assert (last.answered, last.failed, last.known, last.listed) == (5, 1, 6, True)
    assert last.left_s == 0
    assert Progress(1, 1, 10, True, 0.5).left_s == 16
    assert Progress(1, 1, 10, False, 0.5).left_s is None


def test_a_part_is_written_when_it_is_full_or_late(batch: Batch, files: Path) -> None:
    batch.run(files, rows_a_part=2)
    assert len(list(batch.results.iterdir())) == 3
    seconds = iter(range(0, 10**9, 61))
    late = Batch(batch.file.parent / "late")
    late.run(files, clock=lambda: float(next(seconds)))
    assert len(list(late.results.iterdir())) == 5
    late.ledger.close()


def test_what_only_the_driver_can_read_is_handed_over_as_bytes(batch: Batch) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/batch/a.dcm", radiograph(1))
    system.pipe("/batch/large.dcm", bytes(MAX_BYTES + 1))
    try:
        batch.run("memory://batch")
    finally:
        system.rm("/batch", recursive=True)
    assert len(batch.rows) == 1
    assert batch.executor.handed_over[0].data == radiograph(1)
    assert batch.failures == {"large.dcm": "too_large"}


def test_what_cannot_be_listed_is_a_failure_of_its_own(batch: Batch, files: Path) -> None:
    (files / "loop").symlink_to(files)
    batch.run(files)
    assert batch.failures == {"none.dcm": "not_dicom", "loop": "link_loop"}


def test_a_worker_that_dies_idle_sets_nobody_beside_a_suspect(batch: Batch, files: Path) -> None:
    class Dying(Here):
        beside = 0
        alone = False

        def submit(self, task: Task) -> None:
            super().submit(task)
            self.beside = max(self.beside, len(self._waiting) if self.alone else 0)

        def wait(self, timeout_s: float) -> Sequence[Event]:
            found = list(super().wait(timeout_s))
            if isinstance(found[0], Lost):
                self.alone = True
            return [Lost(()), *found]

    (files / _DEADLY).write_bytes(radiograph(7))
    executor = Dying(worker(), capacity=9, deadly=[_DEADLY])
    batch.run(files, executor=executor)
    assert executor.beside == 1
    assert len(batch.rows) == 5


def test_a_list_that_is_slow_keeps_nobody_waiting(batch: Batch) -> None:
    now = 0.0
    listed = 0

    def addresses() -> Iterator[Address]:
        nonlocal listed, now
        for n in range(20):
            listed, now = n + 1, now + 1.0
            yield Address(f"/{n}")

    begun: list[int] = []

    class Watched(Here):
        def submit(self, task: Task) -> None:
            super().submit(task)
            begun.append(listed)

    driver = Driver(
        ledger=batch.ledger, executor=Watched(Null()), places=Places(batch.results),
        schema=results.schema(()), max_bytes=MAX_BYTES, clock=lambda: now,
    )  # fmt: skip
    assert driver.run(addresses())
    assert begun[0] == 1


def test_a_longer_list_is_not_held_by_the_driver(batch: Batch) -> None:
    listed = 0
    listed_first = 0

    def addresses() -> Iterator[Address]:
        nonlocal listed
        for n in range(5000):
            listed += 1
            yield Address(f"/{n}")

    class Watched(Here):
        def submit(self, task: Task) -> None:
            nonlocal listed_first
            super().submit(task)
            listed_first = listed_first or listed

    executor = Watched(Null(), capacity=50)
    driver = Driver(
        ledger=batch.ledger, executor=executor, places=Places(batch.results),
        schema=results.schema(()), max_bytes=MAX_BYTES, rows_a_part=1000,
    )  # fmt: skip
    assert driver.run(addresses())
    assert batch.ledger.count(State.ANSWERED) == 5000
    assert executor.most_under_way == 50
    assert listed_first <= 512
    assert [len(pq.read_table(f)) for f in sorted(batch.results.iterdir())] == [1000] * 5
