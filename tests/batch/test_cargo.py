"""What of a bundle travels to other machines, and where it lies there."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from spinexr.batch import cargo
from spinexr.batch.cargo import Depot, Item, Kind
from spinexr.errors import BatchError, ModelsNotReadyError
from spinexr.inference.bundle import (
    DETECTION_FOLDER,
    ENSEMBLE_FOLDER,
    MANIFEST,
    STANDARD_DETECTION,
    STANDARD_ENSEMBLE,
    read_bundle,
    sha256_of,
)
from spinexr.inference.engines import EngineOptions
from spinexr.inference.engines.engine_files import EngineKey, EngineStore
from spinexr.inference.engines.precision import Precision

VERSION = "2030.1"
OPENVINO = Kind("openvino", VERSION, "x86_64")
TORCH = Kind("torch", "", "x86_64")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Checkpoints of a few bytes, and manifests that name their hashes."""
    root = tmp_path / "weights"
    ensemble = json.loads(json.dumps(STANDARD_ENSEMBLE))
    detection = json.loads(json.dumps(STANDARD_DETECTION))
    for folder, manifest, specs in (
        (ENSEMBLE_FOLDER, ensemble, ensemble["members"]),
        (DETECTION_FOLDER, detection, [detection]),
    ):
        for spec in specs:
            file = root / folder / spec["file"]
            file.parent.mkdir(parents=True)
            file.write_bytes(spec["architecture"].encode())
            spec["sha256"] = sha256_of(file)
        (root / folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return root


def compile_all(weights: Path, *, version: str = VERSION) -> None:
    """Engine files of a few bytes for each network."""
    bundle = read_bundle(weights)
    size = bundle.ensemble.preprocessing.size
    networks = [(m.architecture, m.sha256, size) for m in bundle.ensemble.members]
    for architecture, digest, side in [
        *networks, (bundle.detector.architecture, bundle.detector.sha256, 0),
    ]:  # fmt: skip
        key = EngineKey(architecture, str(digest), side, "f32", version)

        def write(file: Path) -> dict[str, str]:
            file.write_bytes(b"<net/>")
            return {}

        assert asdict(EngineStore(weights / "engines").add(key, write).about["key"] and key)


def names(load: cargo.Cargo) -> set[str]:
    """The files by their last names; networks by the kind of folder."""
    return {item.name.split("/")[-1] for item in load.items}


CHECKPOINTS = {"model_best.pth", "best.pt"}


def test_compiled_networks_travel_without_their_checkpoints(weights: Path) -> None:
    compile_all(weights)
    load = cargo.pack(weights, EngineOptions(), OPENVINO)
    assert load.compiled
    assert names(load) == {"manifest.json", "network.xml", "about.json"}
    assert sum(i.name.endswith("network.xml") for i in load.items) == 4
    assert {i.sha256: load.found[i.sha256].read_bytes() for i in load.items}


def test_another_version_of_openvino_and_torch_get_the_checkpoints(weights: Path) -> None:
    compile_all(weights, version="2029.4")
    for kind in (OPENVINO, TORCH):
        load = cargo.pack(weights, EngineOptions(), kind)
        assert not load.compiled
        assert names(load) == {"manifest.json", *CHECKPOINTS}


def test_a_bundle_without_manifests_travels_with_its_checkpoints_too(weights: Path) -> None:
    compile_all(weights)
    for folder in (ENSEMBLE_FOLDER, DETECTION_FOLDER):
        (weights / folder / MANIFEST).unlink()
    load = cargo.pack(weights, EngineOptions(), OPENVINO)
    assert names(load) >= CHECKPOINTS


def test_what_the_gate_said_of_a_precision_travels_with_it(weights: Path) -> None:
    compile_all(weights)
    (weights / "engines/bf16-0123456789abcdef.json").write_text("{}", encoding="utf-8")
    exact = cargo.pack(weights, EngineOptions(), OPENVINO)
    reduced = cargo.pack(weights, EngineOptions(precision=Precision.BF16), OPENVINO)
    assert names(reduced) - names(exact) == {"bf16-0123456789abcdef.json"}


def test_a_bundle_that_is_not_whole_is_refused_before_anything_travels(weights: Path) -> None:
    (weights / DETECTION_FOLDER / STANDARD_DETECTION["file"]).write_bytes(b"another")
    with pytest.raises(ModelsNotReadyError, match=r"best\.pt has the SHA-256"):
        cargo.pack(weights, EngineOptions(), OPENVINO)


def send(depot: Depot, load: cargo.Cargo) -> list[str]:
    """Bring what is lacking; the hashes of that."""
    lacking = depot.lacking(load.items)
    for sha256 in lacking:
        offset, size = 0, load.found[sha256].stat().st_size
        for piece in cargo.chunks(load.found[sha256]):
            depot.put(sha256, piece, offset=offset, last=offset + len(piece) >= size)
            offset += len(piece)
    return lacking


def test_a_depot_lays_the_bundle_out_as_it_was_and_lacks_nothing_twice(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cargo, "CHUNK_BYTES", 5)
    load = cargo.pack(weights, EngineOptions(), TORCH)
    depot = Depot(tmp_path / "depot")
    assert len(send(depot, load)) == 6
    assert send(depot, load) == []
    there = depot.folder(load.items)
    for item in load.items:
        assert (there / item.name).read_bytes() == (weights / item.name).read_bytes()
    (there / "engines").mkdir()
    assert depot.folder(load.items) == there
    assert (there / "engines").is_dir()
    assert sorted(f.name for f in depot.root.iterdir()) == ["bundles", "files"]
    assert [f.name for f in there.parent.iterdir()] == [there.name]


def test_a_file_that_was_damaged_there_travels_again(weights: Path, tmp_path: Path) -> None:
    load = cargo.pack(weights, EngineOptions(), TORCH)
    depot = Depot(tmp_path / "depot")
    send(depot, load)
    damaged = depot.folder(load.items) / load.items[0].name
    damaged.write_bytes(b"cut off")
    assert send(depot, load) == [load.items[0].sha256]
    depot.folder(load.items)
    assert sha256_of(damaged) == load.items[0].sha256


def test_pieces_that_are_lost_or_changed_make_no_file(tmp_path: Path) -> None:
    depot, sha256 = Depot(tmp_path), "0" * 64
    item = Item("a", sha256, 4)
    depot.lacking([item])
    depot.put(sha256, b"ab", offset=0, last=False)
    with pytest.raises(BatchError, match="lost on its way"):
        depot.put(sha256, b"d", offset=3, last=True)
    with pytest.raises(BatchError, match="changed on its way"):
        depot.put(sha256, b"cd", offset=2, last=True)
    with pytest.raises(BatchError, match="missing on a worker"):
        depot.folder([item])
    assert list((tmp_path / "files").iterdir()) == []


def test_two_may_send_the_same_file_at_once(tmp_path: Path) -> None:
    data = b"abcd"
    depot, sha256 = Depot(tmp_path), hashlib.sha256(data).hexdigest()
    depot.lacking([Item("a", sha256, 4)])
    for shipment in ("one", "two"):
        depot.put(sha256, data[:2], offset=0, last=False, shipment=shipment)
    for shipment in ("one", "two"):
        depot.put(sha256, data[2:], offset=2, last=True, shipment=shipment)
    assert [f.name for f in (tmp_path / "files").iterdir()] == [sha256]


@pytest.mark.parametrize("name", ["../a", "/a", "a/../../b", ""])
def test_a_name_that_leads_out_of_the_depot_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BatchError, match="leads out"):
        Depot(tmp_path).folder([Item(name, "0" * 64, 1)])
    with pytest.raises(BatchError, match="hash"):
        Depot(tmp_path).lacking([Item("a", "../a", 1)])
