from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from spinexr.errors import TrainingError
from spinexr.training.runs import BEST, LAST, RunFolder

CONFIG: dict[str, Any] = {"architecture": "a", "data": "f00d", "options": {"size": 64, "epochs": 2}}
STATE = {"architecture": "a", "epoch": 1, "weights": {"w": torch.ones(3)}}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.start(CONFIG)
    return folder


def test_a_folder_with_a_run_is_not_taken_for_another(folder: RunFolder) -> None:
    with pytest.raises(TrainingError, match="--resume"):
        folder.start(CONFIG)


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no run to resume"):
        RunFolder(tmp_path).resume(CONFIG)


def test_a_run_killed_in_its_first_epoch_starts_over(folder: RunFolder) -> None:
    assert folder.resume(CONFIG) is None


def test_a_run_goes_on_from_what_was_saved(folder: RunFolder) -> None:
    folder.save(LAST, STATE)
    state = folder.resume(CONFIG)
    assert state is not None
    assert state["epoch"] == 1
    assert torch.equal(state["weights"]["w"], torch.ones(3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "b"}, "is one of a, not of b"),
        ({"data": "beef"}, "data under --data changed"),
        ({"options": {"size": 96, "epochs": 2}}, "size: 64 then, 96 now"),
    ],
)
def test_a_run_of_something_else_is_not_resumed(
    folder: RunFolder, change: dict[str, Any], message: str
) -> None:
    folder.save(LAST, STATE)
    with pytest.raises(TrainingError, match=message):
        folder.resume(CONFIG | change)


def test_a_checkpoint_of_another_architecture_is_refused(folder: RunFolder) -> None:
    folder.save(LAST, STATE | {"architecture": "b"})
    with pytest.raises(TrainingError, match="checkpoint of b, not of a"):
        folder.resume(CONFIG)


def test_a_damaged_checkpoint_is_named(folder: RunFolder) -> None:
    (folder.path / LAST).write_bytes(b"not a checkpoint")
    with pytest.raises(TrainingError, match=r"last\.pt"):
        folder.resume(CONFIG)


def test_a_full_disk_keeps_the_last_good_checkpoint(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.save(BEST, STATE)

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*--resume"):
        folder.save(BEST, STATE | {"epoch": 2})
    assert folder.load(BEST)["epoch"] == 1
    assert not list(folder.path.glob("*.part"))


def test_what_a_run_began_with_is_remembered(folder: RunFolder) -> None:
    assert folder.initial_weights() == "unknown"
    folder.began_with("imagenet")
    assert folder.initial_weights() == "imagenet"
    folder.check(CONFIG)  # it is still the run that it was


def test_no_room_for_the_run_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be made"):
        RunFolder(tmp_path / "file" / "run").start(CONFIG)


def test_curves_are_written_as_csv_and_plot(folder: RunFolder) -> None:
    rows = [{"epoch": n, "train_loss": 1 / n, "val_auroc": 0.5 + n / 10} for n in (1.0, 2.0)]
    folder.record(rows)
    assert folder.curves() == rows
    assert (folder.path / "curves.png").read_bytes().startswith(b"\x89PNG")
