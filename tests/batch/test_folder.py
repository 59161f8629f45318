"""Result sets that come and go in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from spinexr.batch.folder import OutputFolder
from spinexr.errors import BatchError

ONE, TWO = {"bundle": "one"}, {"bundle": "two"}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    made = OutputFolder(tmp_path / "out")
    yield made
    made.close()


def fill(folder: OutputFolder, text: str) -> None:
    """A set's files, so that they can be told from others."""
    (folder.results / "part-000000.parquet").write_text(text)
    folder.ledger.write_text(text)


def test_another_identity_starts_anew_and_the_first_comes_back_whole(folder: OutputFolder) -> None:
    folder.choose(ONE)
    fill(folder, "one")
    folder.choose(TWO)
    assert list(folder.results.iterdir()) == []
    assert not folder.ledger.exists()
    assert folder.holds(ONE)
    fill(folder, "two")
    folder.choose(ONE)
    assert (folder.results / "part-000000.parquet").read_text() == "one"
    assert folder.ledger.read_text() == "one"
    folder.choose(TWO)
    assert folder.ledger.read_text() == "two"


def test_a_move_that_was_killed_anywhere_is_finished_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename
    for moves in range(4):
        root = tmp_path / str(moves)
        folder = OutputFolder(root)
        folder.choose(ONE)
        fill(folder, "one")
        left = [moves]

        def rename(file: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return real(file, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            if moves < 3:
                with pytest.raises(KeyboardInterrupt):
                    folder.choose(TWO)
        folder.close()
        folder = OutputFolder(root)
        folder.choose(TWO)
        folder.choose(ONE)
        assert (folder.results / "part-000000.parquet").read_text() == "one"
        assert folder.ledger.read_text() == "one"
        folder.close()


def test_one_batch_at_a_time(folder: OutputFolder) -> None:
    with pytest.raises(BatchError, match="Another batch is running"):
        OutputFolder(folder.root)
    folder.close()
    OutputFolder(folder.root).close()


def test_the_salt_stays_and_is_the_owner_s_alone(folder: OutputFolder) -> None:
    folder.close()
    again = OutputFolder(folder.root)
    assert again.salt == folder.salt
    assert (folder.root / "salt").stat().st_mode & 0o077 == 0
    again.close()


def test_results_of_somebody_else_are_not_mixed_with_ours(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    with pytest.raises(BatchError, match="no batch made it"):
        OutputFolder(tmp_path)


def test_results_whose_ledger_is_gone_are_left_alone(folder: OutputFolder) -> None:
    folder.choose(ONE)
    fill(folder, "one")
    folder.ledger.unlink()
    with pytest.raises(BatchError, match=r"ledger\.sqlite is gone"):
        folder.choose(ONE)
    assert (folder.results / "part-000000.parquet").read_text() == "one"


@pytest.mark.parametrize(
    ("name", "content"), [("set.json", '{"bundle'), ("salt", ""), ("salt", "no salt")]
)
def test_a_damaged_file_of_the_folder_is_named(tmp_path: Path, name: str, content: str) -> None:
    first = OutputFolder(tmp_path)
    first.choose(ONE)
    first.close()
    (tmp_path / name).write_text(content)
    with pytest.raises(BatchError, match=f"{name} is damaged"):
        OutputFolder(tmp_path)
