"""The whole path on full-size networks, against straight lines of code of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
import torch
from PIL import Image

from spinexr.analysis import analyse
from spinexr.domain import Analysis, TrainingData
from spinexr.errors import ModelsNotReadyError
from spinexr.inference.engines import EngineOptions
from spinexr.inference.loading import load_predictor
from spinexr.inference.predictor import Predictor
from tests import builders

# Each has its own way through the code: polarity, sign, compression, portrait and landscape.
CASES: dict[str, dict[str, Any]] = {
    "uncompressed": {},
    "monochrome1": {"photometric": builders.MONOCHROME1},
    "signed": {"array": builders.pixels(480, 320, dtype="int16")},
    "jpeg 2000": {"transfer_syntax": builders.LOSSLESS["jpeg_2000_lossless"]},
    "landscape": {"array": builders.pixels(300, 500, seed=3)},
}


def make(case: str) -> bytes:
    options = dict(CASES[case])
    array = options.pop("array", builders.pixels(640, 416, seed=1))
    return builders.dicom(array, **options)


def run(data: bytes, predictor: Predictor) -> Analysis:
    return analyse(data, predictor=predictor, max_pixels=40_000_000)


def reference_grey(data: bytes) -> npt.NDArray[np.uint8]:
    """The standard profile, from the file, with pydicom's own decoders."""
    dataset = pydicom.dcmread(BytesIO(data))
    pixels = dataset.pixel_array.astype(np.float64)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        pixels = pixels.max() - pixels
    pixels = np.maximum(pixels, 0)
    pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255.0
    grey: npt.NDArray[np.uint8] = pixels.astype(np.uint8)
    return grey


def reference_probability(root: Path, grey: npt.NDArray[np.uint8]) -> float:
    import timm

    image = Image.fromarray(np.stack([grey] * 3, axis=-1)).resize(
        (224, 224), Image.Resampling.BILINEAR
    )
    tensor = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float().div(255)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    total = 0.0
    for folder, name, weight in (
        ("densenet121_balanced", "densenet121", 0.42),
        ("resnet50_optimized", "resnet50", 0.26),
        ("tf_efficientnetv2_s_optimized", "tf_efficientnetv2_s", 0.32),
    ):
        model = timm.create_model(name, num_classes=1)
        file = root / "ensemble output" / folder / "model_best.pth"
        model.load_state_dict(torch.load(file, weights_only=True))
        model.eval()
        with torch.no_grad():
            total += weight * float(torch.sigmoid(model(((tensor - mean) / std)[None]))[0, 0])
    return total


@pytest.fixture(scope="module")
def yolo(untrained_root: Path, real_predictor: Predictor) -> Iterator[Any]:
    """ultralytics' own predict, for comparison. It lowers torch's thread count; put that back."""
    from ultralytics import YOLO

    threads = torch.get_num_threads()
    yield YOLO(str(untrained_root / "detection output/yolo11/weights/best.pt"))
    torch.set_num_threads(threads)


@pytest.mark.parametrize("case", CASES)
def test_the_probability_is_that_of_the_straight_line(
    case: str, untrained_root: Path, real_predictor: Predictor
) -> None:
    data = make(case)
    expected = reference_probability(untrained_root, reference_grey(data))
    assert run(data, real_predictor).prediction.probability == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_the_boxes_are_those_of_ultralytics_own_predict(
    case: str, real_predictor: Predictor, yolo: Any
) -> None:
    data = make(case)
    grey = reference_grey(data)
    (result,) = yolo.predict(
        np.stack([grey] * 3, axis=-1), imgsz=640, conf=0.15, verbose=False, device="cpu"
    )
    expected = np.concatenate(
        [
            result.boxes.xyxy.numpy(),
            result.boxes.conf.numpy()[:, None],
            result.boxes.cls.numpy()[:, None],
        ],
        axis=1,
    )
    prediction = run(data, real_predictor).prediction
    found = np.array(
        [
            (f.box.x1, f.box.y1, f.box.x2, f.box.y2, f.confidence, f.class_index)
            for f in prediction.findings or ()
        ]
    )
    firm = found[found[:, 4] >= 0.25]
    assert len(firm) >= 10
    assert _some_overlap(firm[:, :4])
    assert found.shape == expected.shape
    # Nearly equal confidences may change places, so both are put in the order of their places.
    found = found[np.lexsort(found[:, ::-1].round(0).T)]
    expected = expected[np.lexsort(expected[:, ::-1].round(0).T)]
    np.testing.assert_array_equal(found[:, 5], expected[:, 5])
    np.testing.assert_allclose(found[:, :4], expected[:, :4], atol=0.5)
    np.testing.assert_allclose(found[:, 4], expected[:, 4], atol=1e-3)


def _some_overlap(boxes: npt.NDArray[Any]) -> bool:
    for n, a in enumerate(boxes):
        for b in boxes[n + 1 :]:
            if min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]):
                return True
    return False


def test_one_pass_at_the_lower_level_gives_what_two_passes_give(
    real_predictor: Predictor, yolo: Any
) -> None:
    data = make("uncompressed")
    (result,) = yolo.predict(
        np.stack([reference_grey(data)] * 3, axis=-1), imgsz=640, conf=0.25, verbose=False,
        device="cpu",
    )  # fmt: skip
    findings = run(data, real_predictor).prediction.findings or ()
    assert len([f for f in findings if not f.tentative]) == len(result.boxes)


def test_every_result_of_an_untrained_bundle_says_so(real_predictor: Predictor) -> None:
    bundle = run(make("uncompressed"), real_predictor).bundle
    assert bundle.training_data is TrainingData.NONE
    assert "mean nothing" in (bundle.caveat or "")


def test_torch_keeps_the_threads_it_was_given(untrained_root: Path) -> None:
    before = torch.get_num_threads()
    predictor = load_predictor(untrained_root, EngineOptions(engine="torch", threads=2))
    assert torch.get_num_threads() == 2
    predictor.close()
    torch.set_num_threads(before)


def problems_of(root: Path) -> list[tuple[str | None, str]]:
    with pytest.raises(ModelsNotReadyError) as e:
        load_predictor(root, EngineOptions(engine="torch"))
    return [(p.file, p.message) for p in e.value.problems]


@pytest.fixture
def copied_root(untrained_root: Path, tmp_path: Path) -> Path:
    """A bundle that a test may damage; files are linked until then."""
    for folder in ("ensemble output", "detection output"):
        shutil.copytree(untrained_root / folder, tmp_path / folder, copy_function=_link)
    return tmp_path


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(source)


RESNET = "ensemble output/resnet50_optimized/model_best.pth"
DENSENET = "ensemble output/densenet121_balanced/model_best.pth"
YOLO_FILE = "detection output/yolo11/weights/best.pt"


def test_a_file_that_is_not_the_manifests_is_refused(copied_root: Path) -> None:
    file = copied_root / RESNET
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.unlink()
    file.write_bytes(data)
    ((name, message),) = problems_of(copied_root)
    assert name == RESNET
    assert "SHA-256" in message


def test_swapped_members_are_refused_without_any_manifest(copied_root: Path) -> None:
    for manifest in copied_root.glob("*/manifest.json"):
        manifest.unlink()
    resnet, densenet = copied_root / RESNET, copied_root / DENSENET
    swapped = resnet.readlink(), densenet.readlink()
    resnet.unlink()
    densenet.unlink()
    densenet.symlink_to(swapped[0])
    resnet.symlink_to(swapped[1])
    assert [name for name, _ in problems_of(copied_root)] == [DENSENET, RESNET]


def test_other_classes_than_the_manifests_are_refused(copied_root: Path) -> None:
    manifest = copied_root / "detection output/manifest.json"
    document = json.loads(manifest.read_text())
    document["classes"].reverse()
    manifest.unlink()
    manifest.write_text(json.dumps(document))
    ((name, message),) = problems_of(copied_root)
    assert name == YOLO_FILE
    assert "Other lesions" in message


def test_a_detector_of_another_scale_than_the_manifests_is_refused(copied_root: Path) -> None:
    manifest = copied_root / "detection output/manifest.json"
    document = json.loads(manifest.read_text()) | {"architecture": "yolo11l"}
    manifest.unlink()
    manifest.write_text(json.dumps(document))
    ((name, message),) = problems_of(copied_root)
    assert name == YOLO_FILE
    assert "holds a yolo11n" in message


def test_a_file_that_cannot_be_read_is_named(copied_root: Path) -> None:
    (copied_root / "detection output/manifest.json").unlink()
    file = copied_root / YOLO_FILE
    file.unlink()
    file.symlink_to("/proc/self/mem")
    assert [name for name, _ in problems_of(copied_root)] == [YOLO_FILE]


def test_checkpoints_without_manifests_run_as_the_assumed_profile(
    copied_root: Path, real_predictor: Predictor
) -> None:
    for manifest in copied_root.glob("*/manifest.json"):
        manifest.unlink()
    predictor = load_predictor(copied_root, EngineOptions(engine="torch"))
    data = make("uncompressed")
    assumed, known = run(data, predictor), run(data, real_predictor)
    predictor.close()
    assert assumed.bundle.assumed_profile
    assert assumed.prediction.probability == known.prediction.probability
    assert assumed.bundle.classes == known.bundle.classes
