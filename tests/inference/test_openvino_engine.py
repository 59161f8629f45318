from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spinexr.datasets.vindr import CLASSES
from spinexr.errors import ConfigurationError, ModelsNotReadyError
from spinexr.imaging import reader
from spinexr.inference import engines, transforms
from spinexr.inference.bundle import Bundle, Intensity, load_bundle
from spinexr.inference.engines import EngineOptions, engine_files, openvino_loading
from spinexr.inference.engines.openvino_engine import OpenVinoEngine
from spinexr.inference.predictor import Predictor
from spinexr.processors import available_threads
from tests import builders
from tests.processes import ROOT, environment, spinexr


@pytest.fixture(scope="module")
def bundle(untrained_root: Path) -> Bundle:
    return load_bundle(untrained_root)


@pytest.fixture(scope="module")
def store(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled networks of the bundle, made by a first start."""
    folder = tmp_path_factory.mktemp("engines")
    openvino_loading.load(bundle, store=folder, threads=2)
    return folder


@pytest.fixture(scope="module")
def engine(bundle: Bundle, store: Path) -> OpenVinoEngine:
    return openvino_loading.load(bundle, store=store, threads=2)


@pytest.fixture
def manifests(untrained_root: Path, tmp_path: Path) -> Path:
    """The bundle's manifests without its checkpoints."""
    for folder in ("ensemble output", "detection output"):
        (tmp_path / folder).mkdir()
        shutil.copy(untrained_root / folder / "manifest.json", tmp_path / folder)
    return tmp_path


def grey(rows: int, columns: int, seed: int = 0) -> np.ndarray:
    data = builders.dicom(builders.pixels(rows, columns, seed=seed))
    radiograph = reader.read(data, max_pixels=10**7)
    return transforms.to_grey(radiograph, Intensity.STORED_MINMAX)


def test_classifiers_answer_as_in_torch(
    engine: OpenVinoEngine, bundle: Bundle, real_predictor: Predictor
) -> None:
    batch = np.concatenate(
        [
            transforms.classifier_input(grey(480, 320, seed), bundle.ensemble.preprocessing)
            for seed in range(3)
        ]
    )
    found, expected = engine.classify(batch), real_predictor.engine.classify(batch)
    for name, answer in expected.items():
        p, q = (1 / (1 + np.exp(-a.logits)) for a in (found[name], answer))
        np.testing.assert_allclose(p, q, atol=1e-4)
        np.testing.assert_allclose(found[name].features, answer.features, atol=1e-3)
        np.testing.assert_allclose(found[name].activations, answer.activations, atol=1e-4)


def test_activation_maps_are_those_of_the_gradients(engine: OpenVinoEngine, bundle: Bundle) -> None:
    """Gradient × feature map summed over channels, as gradient-based maps weight them."""
    import torch

    from spinexr.inference.engines.torch_checkpoints import load_classifier

    batch = transforms.classifier_input(grey(480, 320), bundle.ensemble.preprocessing)
    found = engine.classify(batch)
    for member in bundle.ensemble.members:
        network: Any = load_classifier(member.file, member.architecture)
        last_map = network.forward_features(torch.from_numpy(batch))
        logit = network.forward_head(last_map)[0, 0]
        (gradient,) = torch.autograd.grad(logit, last_map)
        cells = last_map.shape[2] * last_map.shape[3]
        expected = (gradient * last_map).sum(1).detach().numpy() * cells
        np.testing.assert_allclose(found[member.name].activations, expected, atol=1e-4)


@pytest.mark.parametrize("shape", [(640, 416), (300, 500), (512, 512), (900, 300), (700, 640)])
def test_boxes_are_those_of_torch_in_any_shape(
    engine: OpenVinoEngine, real_predictor: Predictor, shape: tuple[int, int]
) -> None:
    image = grey(*shape)
    found, expected = (e.detect(image, confidence=0.15) for e in (engine, real_predictor.engine))
    assert len(expected.boxes) >= 10
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_allclose(found.confidences, expected.confidences, atol=1e-3)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.5)


@pytest.mark.skipif(
    not Path("/proc/self/task").is_dir() or available_threads() < 2,
    reason="one processor, or a system that does not say where threads run",
)
def test_two_that_share_the_processors_are_not_bound_to_the_same(
    bundle: Bundle, store: Path
) -> None:
    code = """
import os, sys, threading
from pathlib import Path
import numpy as np
from spinexr.inference.bundle import load_bundle
from spinexr.inference.engines import openvino_loading

engine = openvino_loading.load(load_bundle(Path(sys.argv[1])), store=Path(sys.argv[2]), threads=1)

def look():
    for _ in range(20):
        engine.classify(np.zeros((1, 3, 224, 224), np.float32))

looking = threading.Thread(target=look)
looking.start()
seen = set()
while looking.is_alive():
    for thread in os.listdir("/proc/self/task"):
        try:
            seen.add(len(os.sched_getaffinity(int(thread))))
        except ProcessLookupError:
            pass
print(seen)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, bundle.root, store],
        cwd=ROOT, env=environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.stdout.strip() == f"{{{available_threads()}}}", done.stderr


def test_a_second_start_compiles_nothing(
    bundle: Bundle, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_files.EngineStore, "add", None)
    again = openvino_loading.load(bundle, store=store, threads=2)
    assert [m.name for m in again.models] == [m.name for m in bundle.ensemble.members] + [
        "detector"
    ]
    assert again.class_names == CLASSES


def test_compiled_networks_serve_without_checkpoints_and_without_torch(
    manifests: Path, store: Path, tmp_path: Path
) -> None:
    file = tmp_path / "image.dcm"
    file.write_bytes(builders.dicom(builders.pixels(480, 320)))
    script = tmp_path / "serve.py"
    script.write_text(f"""
import sys
from pathlib import Path
from spinexr.settings import Settings
from spinexr.web import create_app

if __name__ == "__main__":  # the processes that read files begin with this file
    app = create_app(
        Settings(
            weights=Path({str(manifests)!r}), engines=Path({str(store)!r}),
            uploads=Path({str(tmp_path / "uploads")!r}),
        )
    )
    app.extensions["spinexr"].models.wait()
    client = app.test_client()
    answers = [client.get("/health")]
    for accepted in ("application/json", "text/html"):
        with open({str(file)!r}, "rb") as stream:
            answers.append(
                client.post("/upload", data={{"file": stream}}, headers={{"Accept": accepted}})
            )
    heavy = [m for m in ("torch", "torchvision", "timm", "ultralytics") if m in sys.modules]
    print([a.status_code for a in answers], answers[0].get_json()["engine"]["name"], heavy)
""")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT,
        env={**environment(), "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[200, 200, 200] openvino []"


def test_openvino_tells_nobody_that_it_was_imported(tmp_path: Path) -> None:
    """Its telemetry keeps an identity and counts in the home folder."""
    script = (
        "import spinexr, openvino; from openvino.tools.ovc import convert_impl; "
        "print(convert_impl.tm.__name__)"
    )
    kept = {k: v for k, v in environment().items() if k != "CI"}  # it keeps quiet there
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**kept, "HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"
    assert list(tmp_path.iterdir()) == []


def test_packed_networks_serve_where_they_are_unpacked(bundle: Bundle, tmp_path: Path) -> None:
    packed, elsewhere = tmp_path / "packed.tar", tmp_path / "elsewhere"
    done = spinexr("compile", "--weights", bundle.root, "--pack", packed)
    assert done.returncode == 0, done.stderr
    with tarfile.open(packed) as tar:
        assert not [n for n in tar.getnames() if n.endswith((".pth", ".pt"))]
        tar.extractall(elsewhere, filter="data")
    engine = openvino_loading.load(load_bundle(elsewhere), store=elsewhere / "engines", threads=2)
    assert len(engine.models) == 4
    assert list(tmp_path.glob("*.part")) == []


def test_what_no_manifest_vouches_for_is_not_packed(bundle: Bundle, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(bundle.root, bare, copy_function=os.link)
    for manifest in bare.rglob("manifest.json"):
        manifest.unlink()
    with pytest.raises(ConfigurationError, match="weights adopt"):
        load_bundle(bare).files_to_serve_compiled()


def test_without_checkpoints_a_damaged_network_is_named(
    manifests: Path, store: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy, copy_function=os.link)
    (damaged,) = copy.glob("yolo11n-*/network.xml")
    damaged.unlink()
    damaged.write_text("<net")
    with pytest.raises(ModelsNotReadyError) as e:
        openvino_loading.load(load_bundle(manifests), store=copy, threads=2)
    assert [p.file for p in e.value.problems] == ["detection output/yolo11/weights/best.pt"]
    assert "damaged" in e.value.problems[0].message


def test_a_damaged_network_is_made_again(bundle: Bundle, store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy, copy_function=os.link)
    (damaged,) = copy.glob("yolo11n-*/network.bin")
    damaged.unlink()
    damaged.write_bytes(b"half")
    again = openvino_loading.load(bundle, store=copy, threads=2)
    assert len(again.models) == 4
    (mended,) = copy.glob("yolo11n-*/network.bin")
    assert mended.stat().st_size > 1_000_000


def test_without_anything_every_missing_file_is_named(manifests: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelsNotReadyError) as e:
        openvino_loading.load(load_bundle(manifests), store=tmp_path / "none", threads=2)
    assert {p.code for p in e.value.problems} == {"file_missing"}
    assert len(e.value.problems) == 4


def test_a_changed_checkpoint_is_refused(
    untrained_root: Path, store: Path, manifests: Path
) -> None:
    wrong = manifests / "ensemble output/resnet50_optimized/model_best.pth"
    wrong.parent.mkdir()
    wrong.write_bytes(b"other weights")
    with pytest.raises(ModelsNotReadyError, match="SHA-256"):
        openvino_loading.load(load_bundle(manifests), store=store, threads=2)


def test_a_store_that_cannot_be_written_costs_a_warning_not_the_answer(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    # Whatever other tests of this process did to the log.
    for name in ("spinexr", "spinexr.engines"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
    caplog.set_level(logging.WARNING, "spinexr.engines")
    (tmp_path / "file").touch()
    found = openvino_loading.load(bundle, store=tmp_path / "file/engines", threads=2)
    assert len(found.models) == 4
    assert "cannot be kept" in caplog.text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, "openvino"), ({"device": "cpu"}, "openvino"), ({"device": "cuda"}, "torch"),
        ({"engine": "torch"}, "torch"), ({"engine": "openvino"}, "openvino"),
    ],
)  # fmt: skip
def test_the_engine_fits_the_machine(
    options: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_NVIDIA_DRIVER", Path("/nowhere"))
    assert engines.picked(EngineOptions(**options)) == expected  # type: ignore[arg-type]
