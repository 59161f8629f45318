from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from spinexr.inference.engines import torch_runtime


def run(script: str) -> str:
    """Standard output of a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def reference_nms(boxes: Any, scores: Any, threshold: float) -> list[int]:
    """Greedy suppression, box by box."""
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        a = boxes[i]
        for j in kept:
            b = boxes[j]
            w = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
            h = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
            if w * h / union > threshold:
                break
        else:
            kept.append(int(i))
    return kept


@pytest.mark.parametrize("threshold", [0.1, 0.45, 0.7])
@pytest.mark.parametrize("seed", range(4))
def test_our_suppression_is_the_greedy_one(seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 50, (200, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(1, 40, (200, 2))], axis=1)
    scores = rng.uniform(0, 1, 200)
    kept = torch_runtime.nms(torch.tensor(boxes), torch.tensor(scores), threshold)
    assert kept.dtype == torch.int64
    assert kept.tolist() == reference_nms(boxes, scores, threshold)
    assert 0 < len(kept) < 200


def test_suppression_of_nothing_is_nothing() -> None:
    assert torch_runtime.nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_torchvision_answers_with_overlapping_boxes_in_this_environment() -> None:
    torch_runtime.check_operators()
    import torchvision

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.3]), 0.5).tolist() == [1, 2]


def test_without_torchvisions_library_its_operators_are_substituted() -> None:
    out = run(
        "from spinexr.inference.engines import torch_runtime as r\n"
        "r._torchvision_library_loads = lambda: False\n"
        "print(r.check_operators())"
    )
    assert out == "True"


def test_with_torchvisions_library_nothing_is_touched() -> None:
    # A library that loads has declared its operators; this stands in for it, answering 7 always.
    out = run(
        "import torch\n"
        "lib = torch.library.Library('torchvision', 'DEF')\n"
        "lib.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "lib.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')\n"
        "lib.impl('nms', lambda b, s, t: torch.tensor([7]), 'CPU')\n"
        "torch.ops.load_library = lambda path: None\n"
        "from spinexr.inference.engines import torch_runtime as r\n"
        "import types\n"
        "print(r.repair_torchvision())\n"
        "print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).tolist())\n"
    )
    assert out.split("\n") == ["False", "[7]"]


def test_ultralytics_is_prepared_before_it_is_imported() -> None:
    out = run(
        "from spinexr.inference.engines import torch_engine\n"
        "import os, ultralytics.utils as u\n"
        "print(u.SAFE_LOAD, u.AUTOINSTALL, u.ONLINE)"
    )
    assert out == "True False False"


def test_ultralytics_imported_before_in_its_unsafe_mode_is_refused() -> None:
    out = run(
        "import os; os.environ['YOLO_OFFLINE'] = 'true'\n"
        "os.environ.pop('ULTRALYTICS_SAFE_LOAD', None)\n"
        "from spinexr.inference.engines import torch_runtime as r\n"
        "r.repair_torchvision()\n"
        "import ultralytics.utils\n"
        "try: r.prepare()\n"
        "except RuntimeError as e: print(e)"
    )
    assert "before spinexr" in out


def test_an_old_torch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(RuntimeError, match=r"2\.10"):
        torch_runtime.prepare()


def test_a_device_that_is_not_there_is_named() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("this machine has MPS")
    with pytest.raises(RuntimeError, match="mps"):
        torch_runtime.pick_device("mps")
