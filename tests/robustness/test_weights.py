"""Weights from strangers, and broken ones: the start says which file and why; never a result."""

from __future__ import annotations

import contextlib
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spinexr.inference.bundle import DETECTION_FOLDER, ENSEMBLE_FOLDER, MANIFEST
from tests import builders, scale
from tests.conftest import SMALLEST
from tests.robustness.service import Client, Service

FIRST, SECOND, THIRD = (f"{ENSEMBLE_FOLDER}/{name}/model_best.pth" for name in SMALLEST)
DETECTOR = f"{DETECTION_FOLDER}/yolo11/weights/best.pt"


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (_write, (str(self.file), "ran"))


def _write(file: str, text: str) -> None:
    Path(file).write_text(text, encoding="utf-8")


def missing(root: Path) -> None:
    (root / FIRST).unlink()


def truncated(root: Path) -> None:
    data = (root / FIRST).read_bytes()
    (root / FIRST).write_bytes(data[: len(data) // 2])


def empty(root: Path) -> None:
    (root / FIRST).write_bytes(b"")


def other_shapes(root: Path) -> None:
    state = torch.load(root / FIRST, weights_only=True)
    state["fc.weight"] = torch.zeros(2, 96)
    torch.save(state, root / FIRST)


def other_numbers(root: Path) -> None:
    """Only its hash tells."""
    state = torch.load(root / FIRST, weights_only=True)
    state["fc.bias"] = -state["fc.bias"]
    torch.save(state, root / FIRST)


def not_numbers(root: Path) -> None:
    state = torch.load(root / FIRST, weights_only=True)
    state["fc.bias"] = torch.full((1,), float("nan"))
    torch.save(state, root / FIRST)


def payload(root: Path) -> None:
    torch.save({"model_state_dict": Payload(root / "ran")}, root / FIRST)


def bare_payload(root: Path) -> None:
    (root / FIRST).write_bytes(pickle.dumps(Payload(root / "ran")))


def payload_in_the_detector(root: Path) -> None:
    torch.save({"model": Payload(root / "ran")}, root / DETECTOR)


def swapped(root: Path) -> None:
    other = (root / FIRST).read_bytes()
    shutil.copyfile(root / SECOND, root / FIRST)
    (root / SECOND).write_bytes(other)


def everything(root: Path) -> None:
    """Each file has something that can only be seen by reading it."""
    not_numbers(root)
    shutil.copyfile(root / THIRD, root / SECOND)
    torch.save({"model_state_dict": Payload(root / "ran")}, root / THIRD)
    payload_in_the_detector(root)


ALONE: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (missing, FIRST),
    "truncated": (truncated, FIRST),
    "empty": (empty, FIRST),
    "other shapes": (other_shapes, FIRST),
    "other_numbers": (other_numbers, FIRST),
    "not_numbers": (not_numbers, FIRST),
    "payload": (payload, FIRST),
    "bare payload": (bare_payload, FIRST),
    "payload in the detector": (payload_in_the_detector, DETECTOR),
    "swapped members": (swapped, FIRST),
}
CASES = {
    "everything": (everything, {FIRST, SECOND, THIRD, DETECTOR}),
    **{case: (damage, {file}) for case, (damage, file) in ALONE.items()},
}


# What a hash gives away is not looked into; without one the files are read.
_READ = ["everything", *scale.pick([], [case for case in ALONE if case != "other_numbers"])]


@pytest.mark.parametrize(
    ("case", "hashes"),
    [(c, True) for c in ALONE] + [(c, False) for c in _READ],
    ids=lambda v: v if isinstance(v, str) else "with_hashes" if v else "without_hashes",
)
def test_a_broken_bundle_is_named_and_never_answers(
    small_weights: Path, tmp_path: Path, case: str, hashes: bool
) -> None:
    """Seen failing where detectors or classifiers are unpickled as they come, where checkpoints are
    not compared with their hashes, and where weights may be anything (tools/weaken.py)."""
    damage, files = CASES[case]
    root = tmp_path / "weights"
    shutil.copytree(small_weights, root)
    damage(root)
    if not hashes:  # what a stranger's manifest would say: nothing, or what fits
        forget_hashes(root)
    with (
        contextlib.closing(Unready(root, tmp_path, "auto" if hashes else "torch")) as service,
        contextlib.closing(Client(service.port)) as client,
    ):
        health = client.get("/health")
        assert health.status == 503
        problems = health.document["problems"]
        assert files <= {p["file"] for p in problems}, problems
        assert all(p["message"] for p in problems)
        for path in ("/upload", "/samples/lumbar-normal"):
            answer = client.post(builders.dicom(), path=path)
            assert (answer.status, answer.code) == (503, "models_not_ready")
        assert client.get("/readyz").status == 503
        assert client.get("/livez").status == 200
    assert not (root / "ran").exists()


def test_the_payload_of_this_test_would_run_the_unsafe_way(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))  # noqa: S301
    assert (tmp_path / "ran").exists()


def forget_hashes(root: Path) -> None:
    for folder in (ENSEMBLE_FOLDER, DETECTION_FOLDER):
        manifest = root / folder / MANIFEST
        about = json.loads(manifest.read_text(encoding="utf-8"))
        for part in (about, *about.get("members", ())):
            part.pop("sha256", None)
        manifest.write_text(json.dumps(about), encoding="utf-8")


class Unready(Service):
    """A server that says that its models are not ready."""

    ready_line = "models not ready"

    def __init__(self, weights: Path, folder: Path, engine: str) -> None:
        # Checkpoints are read in the same way for both engines; torch compiles nothing.
        # Compiled networks of its own: with those of other tests no checkpoint would be missed.
        engines = str(folder / "engines")
        super().__init__(weights, folder, SPINEXR_ENGINE=engine, SPINEXR_ENGINES=engines)

    def close(self) -> None:
        self.kill()
