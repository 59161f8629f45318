from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from spinexr.inference.engines.engine_files import (
    EngineFileError,
    EngineKey,
    EngineStore,
)

KEY = EngineKey("resnet50", "a" * 64, 224, "f32", "2026.4.1")


def write(file: Path) -> dict[str, int]:
    file.write_text("<net/>")
    file.with_suffix(".bin").write_bytes(b"weights")
    return {"seconds": 3}


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    return EngineStore(tmp_path / "engines")


def test_what_was_added_is_found_by_its_key_and_by_no_other(store: EngineStore) -> None:
    assert store.find(KEY) is None
    store.add(KEY, write)
    found = store.find(KEY)
    assert found is not None
    assert found.network.read_text() == "<net/>"
    assert found.about["seconds"] == 3
    for change in (
        {"checkpoint_sha256": "b" * 64}, {"input_size": 384}, {"precision": "int8"},
        {"engine_version": "2027.0"}, {"architecture": "densenet121"},
    ):  # fmt: skip
        assert store.find(replace(KEY, **change)) is None


@pytest.mark.parametrize("name", ["network.xml", "network.bin", "about.json"])
@pytest.mark.parametrize("damage", [b"", b"{}", b"something else"])
def test_a_changed_file_is_noticed(store: EngineStore, name: str, damage: bytes) -> None:
    found = store.add(KEY, write)
    (found.network.parent / name).write_bytes(damage)
    with pytest.raises(EngineFileError):
        store.find(KEY)
    store.remove(KEY)
    assert store.find(KEY) is None


def test_a_changed_word_about_a_network_is_noticed(store: EngineStore) -> None:
    """Names of findings stand there."""
    about = store.add(KEY, write).network.parent / "about.json"
    about.write_text(about.read_text().replace('"seconds": 3', '"seconds": 4'))
    with pytest.raises(EngineFileError, match=r"about\.json was changed"):
        store.find(KEY)


def test_a_missing_file_is_noticed(store: EngineStore) -> None:
    found = store.add(KEY, write)
    found.network.with_suffix(".bin").unlink()
    with pytest.raises(EngineFileError):
        store.find(KEY)


def test_a_failed_conversion_leaves_nothing_behind(store: EngineStore) -> None:
    def fail(file: Path) -> dict[str, int]:
        file.write_text("half")
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError):
        store.add(KEY, fail)
    assert store.find(KEY) is None
    assert list(store.root.iterdir()) == []


def test_two_at_once_give_one_result_and_no_half_one(store: EngineStore) -> None:
    together = threading.Barrier(2)

    def slow(file: Path) -> dict[str, int]:
        about = write(file)
        together.wait(30)
        return about

    found = []

    def add() -> None:
        found.append(store.add(KEY, slow))

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [f.network for f in found] == [found[0].network] * 2
    assert [f.name for f in store.root.iterdir()] == [KEY.folder_name]


def test_a_store_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        EngineStore(tmp_path / "file" / "engines").add(KEY, write)
