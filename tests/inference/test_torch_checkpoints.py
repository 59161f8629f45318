from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spinexr.inference.engines.torch_checkpoints import (
    CheckpointError,
    load_classifier,
    load_detector,
)

import timm  # isort: skip  (after torch_checkpoints, which prepares the runtime)
from ultralytics.nn.tasks import DetectionModel  # isort: skip

ARCHITECTURE = "resnet10t"  # the smallest of the kind, the loading is the same


class Payload:
    """Writes a file when unpickled the unsafe way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.target, "payload ran"))


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(ARCHITECTURE, pretrained=False, num_classes=1)
    return dict(model.state_dict())


def save(content: object, file: Path) -> Path:
    torch.save(content, file)
    return file


def weights_of(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_a_raw_state_dict_is_loaded(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    model = load_classifier(save(state, tmp_path / "a.pth"), ARCHITECTURE)
    assert not model.training
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


def test_a_training_checkpoint_with_numpy_metrics_is_loaded(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    checkpoint = {
        "model_state_dict": state,
        "optimizer_state_dict": {"param_groups": [{"lr": np.float64(1e-4)}]},
        "epoch": np.int64(7),
        "metrics": {"auroc": np.float64(0.9), "f1": np.float32(0.8), "ok": np.bool_(True)},
    }
    model = load_classifier(save(checkpoint, tmp_path / "a.pth"), ARCHITECTURE)
    assert torch.isfinite(weights_of(model)).all()


def test_scalars_pickled_by_numpy_1_are_loaded(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    file = save({"model_state_dict": state, "auroc": np.float64(0.9)}, tmp_path / "a.pth")
    old = tmp_path / "old.pth"
    # numpy 1 called the module numpy.core; the pickle names it in a line of its own.
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(old, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in data
                data = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(info, data)
    load_classifier(old, ARCHITECTURE)


def test_half_precision_weights_are_loaded_as_float32(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    model = load_classifier(save(half, tmp_path / "a.pth"), ARCHITECTURE)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


LOADERS: dict[str, Callable[[Path], object]] = {
    "a.pth": lambda file: load_classifier(file, ARCHITECTURE),
    "a.pt": load_detector,
}


@pytest.mark.parametrize("name", LOADERS)
def test_a_payload_never_runs(state: dict[str, torch.Tensor], tmp_path: Path, name: str) -> None:
    target = tmp_path / "written"
    for content in (Payload(target), {"model_state_dict": state, "extra": Payload(target)}):
        file = save(content, tmp_path / name)
        with pytest.raises(CheckpointError, match="safely"):
            LOADERS[name](file)
        assert not target.exists()


@pytest.mark.parametrize("name", LOADERS)
def test_a_bare_pickle_never_runs(tmp_path: Path, name: str) -> None:
    target = tmp_path / "written"
    (tmp_path / name).write_bytes(pickle.dumps(Payload(target)))
    with pytest.raises(CheckpointError):
        LOADERS[name](tmp_path / name)
    assert not target.exists()


def test_the_payload_of_these_tests_would_run_the_unsafe_way(tmp_path: Path) -> None:
    target = tmp_path / "written"
    torch.load(save(Payload(target), tmp_path / "a.pth"), weights_only=False)
    assert target.exists()


def test_weights_of_another_architecture_are_refused_by_parameter(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="does not hold a resnet18 with one output"):
        load_classifier(save(state, tmp_path / "a.pth"), "resnet18")


def test_a_head_for_more_classes_is_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    other = dict(state) | {"fc.bias": torch.zeros(2), "fc.weight": torch.zeros(2, 512)}
    with pytest.raises(CheckpointError, match=r"fc\.\w+ has shape \[2"):
        load_classifier(save(other, tmp_path / "a.pth"), ARCHITECTURE)


def test_missing_and_surplus_parameters_are_refused(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    fewer = {k: v for k, v in state.items() if k != "fc.bias"}
    with pytest.raises(CheckpointError, match=r"fc\.bias is missing"):
        load_classifier(save(fewer, tmp_path / "a.pth"), ARCHITECTURE)
    more = dict(state) | {"backdoor": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="backdoor is not part of it"):
        load_classifier(save(more, tmp_path / "b.pth"), ARCHITECTURE)


def test_weights_that_are_not_numbers_are_refused(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    broken = dict(state) | {"fc.bias": torch.tensor([float("nan")])}
    with pytest.raises(CheckpointError, match=r"fc\.bias that are not numbers"):
        load_classifier(save(broken, tmp_path / "a.pth"), ARCHITECTURE)


@pytest.mark.parametrize("content", [[1, 2], {"model_state_dict": [1]}, {"a": "text"}, None])
def test_files_without_a_state_dict_are_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="state dict"):
        load_classifier(save(content, tmp_path / "a.pth"), ARCHITECTURE)


@pytest.mark.parametrize("name", LOADERS)
def test_truncated_and_empty_files_are_refused(
    state: dict[str, torch.Tensor], tmp_path: Path, name: str
) -> None:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    for content in (buffer.getvalue()[:5000], b""):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError):
            LOADERS[name](tmp_path / name)


def test_an_architecture_that_timm_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="timm does not have"):
        load_classifier(tmp_path / "a.pth", "no_such_net")


def test_a_classifier_in_the_detectors_place_is_refused(
    state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match="no YOLO detection network"):
        load_detector(save({"model": state}, tmp_path / "a.pt"))


def detector(file: Path, yaml: str = "yolo11n.yaml", names: object = None) -> Path:
    model = DetectionModel(yaml, nc=3, verbose=False)
    model.names = {0: "a", 1: "b", 2: "c"} if names is None else names
    return save({"model": model}, file)


def test_a_detector_is_recognised_by_its_parameters(tmp_path: Path) -> None:
    model, architecture, classes = load_detector(detector(tmp_path / "a.pt", "yolo11s.yaml"))
    assert (architecture, classes) == ("yolo11s", ("a", "b", "c"))
    assert not model.training


def test_a_detector_of_another_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="YOLO11"):
        load_detector(detector(tmp_path / "a.pt", "yolov8n.yaml"))


@pytest.mark.parametrize("names", [{0: "a", 1: "b"}, {1: "a", 2: "b", 3: "c"}, ["a", "b", "c"], {}])
def test_class_names_that_do_not_fit_the_outputs_are_refused(tmp_path: Path, names: object) -> None:
    with pytest.raises(CheckpointError, match="classes"):
        load_detector(detector(tmp_path / "a.pt", names=names))
