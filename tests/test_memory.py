"""What may be used is the least of what machine, container and process allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from spinexr import memory
from spinexr.errors import ModelsNotReadyError
from spinexr.web.models import Models

GIBIBYTE_KB = 1024 * 1024


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a machine with 4 GB, no container and no limit of the process."""
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(f"MemTotal:  {4 * GIBIBYTE_KB} kB\nMemFree: 1 kB\n")
    (tmp_path / "sys/fs/cgroup/memory").mkdir(parents=True)
    monkeypatch.setattr(memory, "_of_process", list)
    return tmp_path


def test_without_limits_it_is_the_machine_s(root: Path) -> None:
    (root / "sys/fs/cgroup/memory.max").write_text("max\n")
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text(str(2**63 - 4096))
    assert memory.available_mb(root) == 4096


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_s_limit_counts_in_both_versions(root: Path, file: str) -> None:
    (root / "sys/fs/cgroup" / file).write_text(f"{256 * 2**20}\n")
    assert memory.available_mb(root) == 256


def test_where_nothing_can_be_told_nothing_is_said(root: Path, tmp_path: Path) -> None:
    assert memory.available_mb(tmp_path / "elsewhere") is None
    assert memory.shortage(None) is None


def test_512_mb_are_enough_and_less_is_said() -> None:
    assert memory.shortage(512) is None
    assert "may use 511 MB" in (memory.shortage(511) or "")


@pytest.mark.parametrize(
    "error", [MemoryError(), ModelsNotReadyError("A first image failed: MemoryError.")]
)
def test_models_that_do_not_fit_say_how_much_there_was(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def load() -> object:
        raise error

    monkeypatch.setattr(memory, "available_mb", lambda: 256)
    models = Models(load)  # type: ignore[arg-type]
    models.start()
    models.wait()
    with pytest.raises(ModelsNotReadyError, match=r"MemoryError.+may use 256 MB"):
        models.predictor()
