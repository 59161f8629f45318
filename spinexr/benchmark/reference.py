"""The plain server that the benchmark compares with: what one writes first, and no faster.

pydicom's default decoder, a float64 min–max, three eager timm models one after the other,
ultralytics' own `predict` at 0.25 and once more at 0.15 when nothing was found, the annotated image
as PNG in base64 in JSON, one request at a time. It knows the standard layout and profile only, and
is left as it is: a faster reference would be another yardstick.

`python -m spinexr.benchmark.reference WEIGHTS PORT THREADS`; THREADS is 1, as the application that
SpineXR re-implements sets it, or the number of cores.
"""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flask import Flask, jsonify, request
from PIL import Image, ImageDraw
from pydicom import dcmread

from spinexr.inference.engines import torch_runtime

torch_runtime.prepare()

import timm  # noqa: E402  (the runtime must be prepared first)
from ultralytics import YOLO  # noqa: E402

_MEMBERS = (
    ("densenet121", "ensemble output/densenet121_balanced/model_best.pth", 0.42),
    ("resnet50", "ensemble output/resnet50_optimized/model_best.pth", 0.26),
    ("tf_efficientnetv2_s", "ensemble output/tf_efficientnetv2_s_optimized/model_best.pth", 0.32),
)
_DETECTOR = "detection output/yolo11/weights/best.pt"
_THRESHOLD = 0.449
_SIZE = 224
_CONFIDENCES = (0.25, 0.15)
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def create_reference(weights: Path, threads: int) -> Flask:
    """The plain server as a Flask application with its models loaded.

    Args:
        weights: folder with checkpoints in the standard layout.
        threads: of torch.
    """
    answer = plain(weights, threads)
    app = Flask("reference")

    @app.get("/health")
    def health() -> Any:
        return jsonify(status="ok")

    @app.post("/upload")
    def upload() -> Any:
        return jsonify(answer(request.files["file"].read()))

    return app


def plain(weights: Path, threads: int) -> Callable[[bytes], dict[str, Any]]:
    """What the plain server does with a file, its models loaded; for one thread.

    Args:
        weights, threads: as in `create_reference`.
    """
    classifiers = [(_classifier(name, weights / file), share) for name, file, share in _MEMBERS]
    detector: Any = YOLO(str(weights / _DETECTOR))

    def answer(data: bytes) -> dict[str, Any]:
        torch.set_num_threads(threads)  # ultralytics changes it whenever it predicts
        grey = _grey(data)
        probability = _probability(classifiers, grey)
        abnormal = probability > _THRESHOLD
        picture = Image.fromarray(grey).convert("RGB")
        boxes: list[dict[str, Any]] = []
        if abnormal:
            boxes = _boxes(detector, np.asarray(picture), threads)
            _draw(picture, boxes)
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        return {
            "abnormal": abnormal,
            "probability": probability,
            "boxes": boxes,
            "image": base64.b64encode(stream.getvalue()).decode(),
        }

    return answer


def _classifier(architecture: str, file: Path) -> torch.nn.Module:
    network: torch.nn.Module = timm.create_model(architecture, pretrained=False, num_classes=1)
    network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return network.eval()


def _grey(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    dataset = dcmread(io.BytesIO(data))
    values = dataset.pixel_array.astype(np.float64)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() - values
    values = np.maximum(values, 0)
    scaled = (values - values.min()) / (values.max() - values.min()) * 255.0
    grey: np.ndarray[Any, np.dtype[np.uint8]] = scaled.astype(np.uint8)
    return grey


@torch.no_grad()
def _probability(
    classifiers: list[tuple[torch.nn.Module, float]], grey: np.ndarray[Any, np.dtype[np.uint8]]
) -> float:
    picture = Image.fromarray(grey).convert("RGB").resize((_SIZE, _SIZE), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255.0
    batch = ((pixels - _MEAN) / _STD)[None]
    return sum(share * float(torch.sigmoid(network(batch))[0, 0]) for network, share in classifiers)


def _boxes(
    detector: Any, image: np.ndarray[Any, np.dtype[np.uint8]], threads: int
) -> list[dict[str, Any]]:
    for confidence in _CONFIDENCES:
        found = detector.predict(
            image, imgsz=640, conf=confidence, device="cpu", verbose=False
        )[0]  # fmt: skip
        torch.set_num_threads(threads)
        if len(found.boxes):
            break
    return [
        {"xyxy": xyxy, "confidence": confidence, "label": found.names[int(label)]}
        for xyxy, confidence, label in zip(
            found.boxes.xyxy.tolist(), found.boxes.conf.tolist(), found.boxes.cls.tolist(),
            strict=True,
        )
    ]  # fmt: skip


def _draw(picture: Image.Image, boxes: list[dict[str, Any]]) -> None:
    canvas = ImageDraw.Draw(picture)
    for box in boxes:
        canvas.rectangle(box["xyxy"], outline=(255, 0, 0), width=3)
        canvas.text(box["xyxy"][:2], f"{box['label']} {box['confidence']:.2f}", fill=(255, 0, 0))


def main(weights: str, port: str, threads: str) -> None:
    """Serve on loopback, one request at a time, until killed."""
    app = create_reference(Path(weights), int(threads))
    app.run(host="127.0.0.1", port=int(port), threaded=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
