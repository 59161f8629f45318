"""Where torch, torchvision, timm and ultralytics enter the process, and what must hold before.

Import this module before any of them; it

- refuses a torch whose `weights_only` loading has known holes,
- makes ultralytics load checkpoints without running the code in them, stay offline and install
  nothing,
- makes torchvision usable beside a torch it was not built for.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

# Below 2.6 CVE-2025-32434, below 2.10 CVE-2026-24747: code execution despite weights_only=True.
_LOWEST_TORCH = (2, 10)

_ULTRALYTICS_ENVIRONMENT = {
    "ULTRALYTICS_SAFE_LOAD": "1",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_OFFLINE": "true",
    "YOLO_VERBOSE": "false",
}


def prepare() -> None:
    """Bring the process into the state that this module promises; a second call does nothing.

    Raises:
        RuntimeError: torch is too old, or ultralytics was imported before in its unsafe mode.
    """
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < _LOWEST_TORCH:
        raise RuntimeError(
            f"torch {torch.__version__} can run code hidden in a checkpoint; "
            f"install {'.'.join(map(str, _LOWEST_TORCH))} or newer."
        )
    os.environ.update(_ULTRALYTICS_ENVIRONMENT)
    repair_torchvision()
    import ultralytics.utils

    if not ultralytics.utils.SAFE_LOAD:
        raise RuntimeError(
            "ultralytics was imported before spinexr and would run code hidden in a checkpoint."
        )


def repair_torchvision() -> bool:
    """Make torchvision importable where its compiled library does not fit the installed torch.

    The index's torchvision is built for CUDA. Beside a CPU build of torch its library cannot load,
    so its operators are missing and its import fails. Then the two operators that the import and
    non-maximum suppression need are declared here, `nms` with a kernel of its own. Where the
    library loads, nothing is touched.

    Returns:
        Whether the substitute is in place.
    """
    if _torchvision_library_loads():
        return False
    if not hasattr(torch.ops.torchvision, "nms"):
        library: Any = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.impl("nms", nms, "CPU")
        _kept_alive.append(library)  # a Library takes its operators along when it is collected
    extension: Any = importlib.import_module("torchvision.extension")
    # Otherwise torchvision.ops.nms still refuses as soon as it is given boxes.
    extension._has_ops = lambda: True
    return True


def check_operators() -> bool:
    """Import torchvision as everything here does, and ask it for an answer that is known.

    Returns:
        Whether the substituted operators gave it.

    Raises:
        RuntimeError: the answer is wrong; or whatever a broken installation raises.
    """
    prepare()
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.9], [9.0, 9.0, 12.0, 12.0]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.1]), 0.5).tolist()
    if kept != [1, 2]:
        raise RuntimeError(f"non-maximum suppression kept the boxes {kept}, not [1, 2]")
    return repair_torchvision()


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression, the contract of torchvision.ops.nms.

    Args:
        boxes: float (N, 4) xyxy.
        scores: float (N,).
        iou_threshold: boxes that overlap a better one by more than this are dropped.

    Returns:
        int64 (K,): indices of the boxes kept, by falling score.
    """
    x1, y1, x2, y2 = boxes.unbind(1)
    areas = (x2 - x1) * (y2 - y1)
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while order.numel():
        best, rest = order[0], order[1:]
        kept.append(best)
        width = (torch.minimum(x2[best], x2[rest]) - torch.maximum(x1[best], x1[rest])).clamp(min=0)
        height = (torch.minimum(y2[best], y2[rest]) - torch.maximum(y1[best], y1[rest])).clamp(
            min=0
        )
        overlap = width * height
        iou = overlap / (areas[best] + areas[rest] - overlap)
        order = rest[~(iou > iou_threshold)]
    return torch.stack(kept) if kept else order


def classify(network: Any, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A timm network that ends in global average pooling and one linear layer, in one pass.

    Args:
        images: float (N, 3, H, W).

    Returns:
        Logits (N, 1), pooled features (N, C), class activation maps (N, 1, h, w).
    """
    last_map = network.forward_features(images)
    features = network.forward_head(last_map, pre_logits=True)
    layer = network.get_classifier()
    activations = torch.nn.functional.conv2d(last_map, layer.weight[:, :, None, None])
    return layer(features), features, activations


def pick_device(wanted: str) -> torch.device:
    """`auto` → CUDA, then MPS, then CPU.

    Raises:
        RuntimeError: the wanted device is not there.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        wanted = next(name for name, there in present.items() if there)
    if not present[wanted]:
        raise RuntimeError(f"The device {wanted} was asked for but torch does not see one.")
    return torch.device(wanted)


_kept_alive: list[torch.library.Library] = []


def _torchvision_library_loads() -> bool:
    """Whether torchvision's compiled operators load into this torch, without importing it."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    libraries = sorted(Path(spec.origin).parent.glob("_C*.so")) + sorted(
        Path(spec.origin).parent.glob("_C*.pyd")
    )
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return bool(libraries)
