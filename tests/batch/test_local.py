"""Worker processes on this machine."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from spinexr.batch import local
from spinexr.batch.address import Address
from spinexr.batch.executor import Answer, Done, Failure, Lost, Task
from spinexr.batch.local import LocalExecutor, Place, places
from spinexr.errors import BatchError, ModelsNotReadyError
from spinexr.inference.engines import EngineOptions
from tests import builders
from tests.batch.workers import (
    KILL,
    OpenFake,
    OpenNamedByGpu,
    OpenNone,
    batch_with_a_deadly_file,
    events,
)


@pytest.fixture
def executor() -> Iterator[LocalExecutor]:
    made = LocalExecutor(OpenFake())
    made.start()
    yield made
    made.close()


def test_a_worker_answers_refuses_and_outlives_the_one_that_a_file_killed(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    for name, data in (("good", builders.dicom()), ("bad", b"x" * 200), ("deadly", KILL)):
        (tmp_path / name).write_bytes(data)
    assert executor.capacity == 2
    executor.submit(Task(1, Address(str(tmp_path / "good"))))
    executor.submit(Task(2, Address(str(tmp_path / "bad"))))
    outcomes = {e.number: e.outcome for e in events(executor, 2) if isinstance(e, Done)}
    assert isinstance(outcomes[1], Answer)
    assert outcomes[1].row["decision"] == "abnormal"
    assert isinstance(outcomes[2], Failure)
    assert outcomes[2].code == "not_dicom"
    executor.submit(Task(3, Address(str(tmp_path / "deadly"))))
    assert events(executor, 1) == [Lost((3,))]
    executor.submit(Task(4, Address(str(tmp_path / "good"))))
    (done,) = events(executor, 1)
    assert isinstance(done, Done)
    assert isinstance(done.outcome, Answer)


def test_a_fault_of_the_program_costs_one_input_and_is_named(executor: LocalExecutor) -> None:
    executor.submit(Task(1, Address("/there/is/no/such/file")))
    (done,) = events(executor, 1)
    assert isinstance(done, Done)
    assert isinstance(done.outcome, Failure)
    assert done.outcome.code == "internal_error"
    assert "such" not in done.outcome.message


def test_workers_that_cannot_begin_say_why() -> None:
    for opened, error in ((OpenNone(), ModelsNotReadyError), (OpenNone(dies=True), BatchError)):
        executor = LocalExecutor(opened)
        with pytest.raises(error):
            executor.start()
        executor.close()


def test_what_was_answered_or_lost_counts_before_a_worker_that_cannot_begin_again(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    (tmp_path / "deadly").write_bytes(KILL)
    executor._open = OpenNone()
    executor.submit(Task(1, Address(str(tmp_path / "deadly"))))
    assert events(executor, 1) == [Lost((1,))]
    with pytest.raises(ModelsNotReadyError):
        executor.wait(0)


def test_a_worker_that_no_process_can_replace_ends_the_batch_by_name(
    executor: LocalExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_place: Place) -> NoReturn:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    (tmp_path / "deadly").write_bytes(KILL)
    monkeypatch.setattr(executor, "_begin", full)
    executor.submit(Task(1, Address(str(tmp_path / "deadly"))))
    assert events(executor, 1) == [Lost((1,))]
    for go_on in (lambda: executor.wait(0), lambda: executor.submit(Task(2, Address("a")))):
        with pytest.raises(BatchError, match="Cannot allocate memory"):
            go_on()
    executor.close()


def test_a_batch_names_the_file_that_kills_its_workers_and_answers_the_others(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    batch_with_a_deadly_file(executor, tmp_path)


def test_a_signal_to_the_whole_group_costs_no_input_its_answer(
    executor: LocalExecutor, tmp_path: Path
) -> None:
    (tmp_path / "good").write_bytes(builders.dicom())
    for asked in (signal.SIGINT, signal.SIGTERM):
        os.kill(executor.pids[0], asked)
        executor.submit(Task(1, Address(str(tmp_path / "good"))))
        (done,) = events(executor, 1)
        assert isinstance(done, Done)


def test_each_worker_keeps_to_its_place_and_so_does_its_successor(tmp_path: Path) -> None:
    (tmp_path / "deadly").write_bytes(KILL)
    some = frozenset([min(os.sched_getaffinity(0))])
    executor = LocalExecutor(OpenNamedByGpu(), [Place(some, gpu="1")])
    assert executor.start().identity == {"bundle": "1"}
    for _ in range(2):  # a successor with another identity would be refused
        (worker,) = map(psutil.Process, executor.pids)
        assert set(worker.cpu_affinity()) == some
        executor.submit(Task(1, Address(str(tmp_path / "deadly"))))
        assert events(executor, 1) == [Lost((1,))]
    executor.close()


def test_there_is_a_place_for_each_numa_node(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [frozenset([0, 1]), frozenset([2, 3])]
    monkeypatch.setattr(local, "numa_nodes", lambda: nodes)
    options = EngineOptions(engine="openvino")
    assert [p.processors for p in places(options)] == nodes
    monkeypatch.setattr(local, "numa_nodes", lambda: nodes[:1])
    assert places(options) == [Place()]  # the processors are not to be narrowed for nothing


@pytest.mark.parametrize(("visible", "names"), [(None, ["0", "1"]), ("3,5", ["3", "5"])])
def test_there_is_a_place_for_each_gpu_that_pytorch_sees(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [p.gpu for p in places(EngineOptions(engine="torch"))] == names
    assert places(EngineOptions(engine="torch", device="cpu"))[0].gpu is None


def test_workers_end_with_the_executor(executor: LocalExecutor) -> None:
    (pid,) = executor.pids
    worker = psutil.Process(pid)
    executor.close()
    assert not worker.is_running()
