from __future__ import annotations

import numpy as np
import pytest
import torch

from spinexr.inference import yolo
from spinexr.inference.engines import torch_runtime

torch_runtime.prepare()

from ultralytics.data.augment import LetterBox  # noqa: E402
from ultralytics.nn.tasks import DetectionModel  # noqa: E402
from ultralytics.utils.nms import non_max_suppression  # noqa: E402
from ultralytics.utils.ops import scale_boxes  # noqa: E402

SHAPES = [(640, 416), (2455, 1606), (300, 500), (64, 64), (641, 639), (100, 2000), (333, 77)]


@pytest.mark.parametrize("size", [640, 512])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_frame_is_that_of_ultralytics(shape: tuple[int, int], size: int) -> None:
    grey = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = LetterBox((size, size), auto=True, stride=32)(image=grey[..., None])
    framed, _ = yolo.letterbox(grey, size)
    np.testing.assert_array_equal(framed, np.asarray(expected).reshape(framed.shape))
    assert framed.shape[0] % 32 == framed.shape[1] % 32 == 0


def network_output(seed: int, anchors: int = 3000, classes: int = 7) -> np.ndarray:
    """Clusters of overlapping boxes with all confidences."""
    rng = np.random.default_rng(seed)
    clusters = rng.uniform(50, 400, (40, 2))
    output = np.empty((4 + classes, anchors), np.float32)
    output[:2] = clusters[rng.integers(0, 40, anchors)].T + rng.normal(0, 8, (2, anchors))
    output[2:4] = rng.uniform(10, 90, (2, anchors))
    output[4:] = rng.random((classes, anchors)) ** 6
    return output


@pytest.mark.parametrize("confidence", [0.001, 0.15, 0.25, 0.99])
@pytest.mark.parametrize("shape", SHAPES[:3])
def test_boxes_are_those_of_ultralytics(shape: tuple[int, int], confidence: float) -> None:
    framed, frame = yolo.letterbox(np.zeros(shape, np.uint8), 640)
    output = network_output(1)
    kept = non_max_suppression(torch.from_numpy(output)[None].clone(), confidence, 0.7)[0]
    boxes = scale_boxes(framed.shape, kept[:, :4].clone(), shape).numpy()
    found = yolo.detections(output, frame, confidence=confidence, iou=0.7, most=300)
    np.testing.assert_array_equal(found.classes, kept[:, 5].numpy())
    np.testing.assert_allclose(found.confidences, kept[:, 4].numpy(), atol=1e-6)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-2)
    assert len(found.boxes) > 20 or confidence == 0.99


def test_boxes_of_other_classes_do_not_suppress() -> None:
    box = [100.0, 100.0, 50.0, 50.0]
    output = np.array([[*box, 0.9, 0.0], [*box, 0.8, 0.0], [*box, 0.0, 0.7]], np.float32).T
    _, frame = yolo.letterbox(np.zeros((640, 640), np.uint8), 640)
    found = yolo.detections(output, frame, confidence=0.1, iou=0.7, most=300)
    assert found.classes.tolist() == [0, 1]
    np.testing.assert_allclose(found.confidences, [0.9, 0.7])


def test_nothing_above_the_confidence_is_no_box() -> None:
    _, frame = yolo.letterbox(np.zeros((64, 64), np.uint8), 640)
    found = yolo.detections(
        np.zeros((11, 100), np.float32), frame, confidence=0.15, iou=0.7, most=300
    )
    assert found.boxes.shape == (0, 4)


def test_no_more_boxes_than_allowed() -> None:
    _, frame = yolo.letterbox(np.zeros((640, 640), np.uint8), 640)
    found = yolo.detections(network_output(2), frame, confidence=0.001, iou=0.7, most=5)
    assert len(found.boxes) == 5
    assert (np.diff(found.confidences) <= 0).all()


@pytest.mark.parametrize("shape", [(640, 448), (320, 640), (640, 640)])
def test_decoding_is_that_of_the_network(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = DetectionModel("yolo11n.yaml", nc=7, verbose=False).eval()
    with torch.no_grad():
        expected, raw = model(torch.rand(1, 3, *shape))
    scores = expected[0, 4:].numpy().max(0)
    confidence = float(np.quantile(scores, 0.9))
    found = yolo.decoded(
        raw["boxes"][0].numpy(), raw["scores"][0].numpy(), *shape, confidence=confidence
    )
    above = scores > confidence
    np.testing.assert_allclose(found[:4, above], expected[0, :4, above].numpy(), atol=1e-2)
    np.testing.assert_allclose(found[4:, above], expected[0, 4:, above].numpy(), atol=1e-6)
    assert not found[:, ~above].any()


def test_decoding_where_nothing_reaches_the_confidence_gives_no_box() -> None:
    anchors = 64 // 8 * (64 // 8) + 64 // 16 * (64 // 16) + 64 // 32 * (64 // 32)
    output = yolo.decoded(
        np.zeros((64, anchors), np.float32), np.full((7, anchors), -9, np.float32), 64, 64,
        confidence=0.15,
    )  # fmt: skip
    assert not output.any()
    _, frame = yolo.letterbox(np.zeros((64, 64), np.uint8), 64)
    assert len(yolo.detections(output, frame, confidence=0.15, iou=0.7, most=9).boxes) == 0
