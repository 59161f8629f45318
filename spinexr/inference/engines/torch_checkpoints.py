"""Checkpoint files → torch modules, without ever running code from a file.

A `.pth` of a classifier is a state dict, alone or under "model_state_dict"; a `.pt` of the detector
is an ultralytics checkpoint. Both go through restricted unpicklers, and what comes out is compared
with the architecture before it is used.
"""

from __future__ import annotations

import _codecs
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spinexr.inference.engines import torch_runtime

torch_runtime.prepare()

import timm  # noqa: E402  (the runtime must be prepared first)
from ultralytics.nn.tasks import DetectionModel, torch_safe_load  # noqa: E402

# The largest network that is used here has 283 MB; a file of several GB is something else.
_LARGEST_FILE_BYTES = 2 * 1024**3

_DETECTOR_SCALES = "nsmlx"

# Training scripts leave metrics as numpy scalars beside the weights. These rebuild numbers only.
_SCALAR = np.float64(0).__reduce__()[0]  # numpy's own constructor of scalars
_NUMPY_SCALARS: list[Any] = [
    (_SCALAR, "numpy.core.multiarray.scalar"),  # written by numpy 1
    (_SCALAR, "numpy._core.multiarray.scalar"),
    (_codecs.encode, "_codecs.encode"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "bool")),
]


class CheckpointError(Exception):
    """The file is not what the bundle says; the message may be shown."""


def load_classifier(file: Path, architecture: str) -> torch.nn.Module:
    """A timm network with one output, in eval mode, float32, holding the file's weights.

    Raises:
        CheckpointError: unknown architecture, unreadable file, or weights of another network.
    """
    if not timm.is_model(architecture):
        raise CheckpointError(f"names the architecture {architecture!r}, which timm does not have.")
    model: torch.nn.Module = timm.create_model(architecture, pretrained=False, num_classes=1)
    state = _state_dict(file)
    _compare(state, model.state_dict(), architecture)
    model.load_state_dict(state)
    return model.eval()


def load_detector(file: Path) -> tuple[torch.nn.Module, str, tuple[str, ...]]:
    """A YOLO11 detection network, fused, in eval mode; its architecture; its class names.

    Raises:
        CheckpointError: unreadable file, or not a YOLO11 detection network of scale n to x.
        OSError: the file cannot be opened.
    """
    _check_size(file)
    try:
        checkpoint, _ = torch_safe_load(str(file), safe_only=True)
    # ultralytics raises TypeError, RuntimeError, ModuleNotFoundError, AttributeError, … by damage.
    except Exception as e:
        raise CheckpointError(
            "is not a detector checkpoint that can be loaded safely: it is damaged, or it holds "
            "more than weights of a known network."
        ) from e
    model = None
    if isinstance(checkpoint, dict):
        model = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(model, DetectionModel):
        raise CheckpointError("holds no YOLO detection network.")
    model = model.float()
    state = model.state_dict()
    classes = _class_names(model)
    claimed = str((getattr(model, "yaml", None) or {}).get("scale"))
    architecture = _architecture(state, len(classes), claimed)
    _check_finite(state)
    return model.fuse().eval(), architecture, classes


def _class_names(model: Any) -> tuple[str, ...]:
    names = getattr(model, "names", None)
    head = model.model[-1]
    count = getattr(head, "nc", None)
    if not isinstance(names, dict) or sorted(names) != list(range(count or 0)) or not names:
        raise CheckpointError("names other classes than its network has outputs for.")
    return tuple(str(names[i]) for i in range(len(names)))


def _architecture(state: Mapping[str, torch.Tensor], classes: int, claimed: str) -> str:
    """Which YOLO11 the parameters are those of, by name and shape; the claimed scale first."""
    shapes = {name: tensor.shape for name, tensor in state.items()}
    for scale in sorted(_DETECTOR_SCALES, key=lambda scale: scale != claimed):
        model = DetectionModel(f"yolo11{scale}.yaml", nc=classes, verbose=False)
        if shapes == {name: tensor.shape for name, tensor in model.state_dict().items()}:
            return f"yolo11{scale}"
    raise CheckpointError("does not hold a YOLO11 detection network of scale n, s, m, l or x.")


def _state_dict(file: Path) -> dict[str, torch.Tensor]:
    _check_size(file)
    try:
        with torch.serialization.safe_globals(_NUMPY_SCALARS):
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    # torch raises UnpicklingError, RuntimeError, EOFError, KeyError, … by kind of damage.
    except Exception as e:
        raise CheckpointError(
            "cannot be loaded safely: it is damaged, or it holds more than weights."
        ) from e
    state = loaded.get("model_state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise CheckpointError(
            'holds neither a state dict nor one under "model_state_dict"; save the model with '
            "torch.save(model.state_dict(), …)."
        )
    return dict(state)


def _check_size(file: Path) -> None:
    size = file.stat().st_size
    if not 0 < size <= _LARGEST_FILE_BYTES:
        raise CheckpointError(f"has {size} bytes, which no checkpoint of these networks has.")


def _compare(
    state: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], architecture: str
) -> None:
    wrong = [
        f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    missing = [f"{name} is missing" for name in expected if name not in state]
    surplus = [f"{name} is not part of it" for name in state if name not in expected]
    if problems := [*wrong, *missing, *surplus]:
        more = f" and {len(problems) - 2} more differences" if len(problems) > 2 else ""
        raise CheckpointError(
            f"does not hold a {architecture} with one output: {'; '.join(problems[:2])}{more}."
        )
    _check_finite(state)


def _check_finite(state: Mapping[str, torch.Tensor]) -> None:
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"has values in {name} that are not numbers.")
