"""From a dataset to a served precision: calibrate, judge, file the verdict, serve."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spinexr.datasets import phantoms
from spinexr.inference.engines import openvino_loading
from spinexr.inference.engines.precision import Precision
from tests.processes import spinexr

pytest.importorskip("nncf", reason="requirements-int8.txt is not installed")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "phantoms"
    plan = phantoms.Plan(root, 12, seed=6, rows=240, columns=160, test_share=0.5)
    list(phantoms.generate(plan, workers=2))
    return root


def test_int8_is_calibrated_judged_and_kept_with_what_was_measured(
    untrained_root: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spinexr.evaluation import precision
    from spinexr.inference.bundle import load_bundle
    from spinexr.inference.engines import EngineOptions

    monkeypatch.setattr(openvino_loading, "supported", lambda *_: True)
    options = EngineOptions(engine="openvino", store=tmp_path, precision=Precision.INT8)
    found = precision.judge(
        untrained_root, data, options, max_pixels=10**6, calibration_images=4, least_images=5
    )
    assert found.images >= 5
    assert found.largest_difference > 0  # other numbers did answer
    (verdict,) = tmp_path.glob("int8-*.json")
    assert json.loads(verdict.read_text())["measured"]["images"] == found.images
    served = openvino_loading.load(
        load_bundle(untrained_root), store=tmp_path, threads=2, precision=Precision.INT8
    )
    assert served.precision is Precision.INT8
    sizes = {
        kind: sum(f.stat().st_size for f in tmp_path.glob("*/network.bin") if kind in _key(f))
        for kind in ("f32", "int8")
    }
    assert sizes["int8"] < 0.4 * sizes["f32"]


def test_a_small_test_part_is_refused_before_anything_is_compiled(
    untrained_root: Path, data: Path, tmp_path: Path
) -> None:
    done = spinexr(
        "compile", "--weights", untrained_root, "--engines", tmp_path, "--precision", "bf16",
        "--data", data,
    )  # fmt: skip
    assert done.returncode == 1
    assert "at least 500 images" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_reduced_precision_needs_a_dataset(untrained_root: Path, tmp_path: Path) -> None:
    done = spinexr(
        "compile", "--weights", untrained_root, "--engines", tmp_path, "--precision", "int8"
    )
    assert done.returncode == 1
    assert "--data" in done.stderr


def _key(network: Path) -> str:
    about = json.loads((network.parent / "about.json").read_text())
    return str(about["key"]["precision"])
