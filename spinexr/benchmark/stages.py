"""One request taken apart: seconds by stage, and how near each network comes to the processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from openvino import opset13 as opset
from torch.utils.flop_counter import FlopCounterMode

from spinexr.analysis import analyse
from spinexr.benchmark.measure import median_seconds
from spinexr.errors import ConfigurationError
from spinexr.imaging import reader
from spinexr.imaging.sandbox import Sandbox
from spinexr.inference import transforms, yolo
from spinexr.inference.bundle import load_bundle
from spinexr.inference.engines import EngineOptions
from spinexr.inference.engines.openvino_engine import OpenVinoEngine
from spinexr.inference.engines.precision import Precision
from spinexr.inference.engines.torch_checkpoints import load_classifier, load_detector
from spinexr.inference.loading import load_predictor
from spinexr.processors import available_threads
from spinexr.reporting import as_json, overlay

_MATRIX = 4096  # side of the product: large enough to run at the processor's rate
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True, slots=True)
class NetworkRate:
    """What a network reaches. GFLOP are those of a direct convolution, 2 per multiply-add.

    shares: of the rate at which a library multiplies large matrices, by the library's name.
    """

    gflop: float
    seconds: float
    shares: dict[str, float]

    @property
    def gflop_per_s(self) -> float:
        return self.gflop / self.seconds


def of_reading(files: Mapping[str, bytes], *, rounds: int) -> dict[str, float]:
    """Seconds to read each file here, and through the sandbox."""
    sandbox = Sandbox()
    sandbox.start()()
    found = {}
    try:
        for name, data in files.items():
            for place, read in (("decode", reader.read), ("decode in the sandbox", sandbox.read)):
                found[f"{place}, {name}"] = median_seconds(
                    partial(read, data, max_pixels=_MAX_PIXELS), rounds=rounds
                )
    finally:
        sandbox.close()
    return found


def of_request(
    weights: Path, engines: Path, data: bytes, precision: Precision, *, rounds: int
) -> tuple[dict[str, float], dict[str, NetworkRate]]:
    """Seconds by stage after reading, and the rate of each network.

    Args:
        weights: an untrained bundle that calls everything abnormal.
    """
    options = EngineOptions(engine="openvino", store=engines, precision=precision)
    predictor = load_predictor(weights, options)
    engine: Any = predictor.engine
    assert isinstance(engine, OpenVinoEngine)  # noqa: S101  (asked for above)
    if engine.precision is not precision:
        raise ConfigurationError(f"Nothing can be measured in {precision}: {engine.precision_note}")
    spec = predictor.bundle
    radiograph = reader.read(data, max_pixels=_MAX_PIXELS)
    intensity = spec.ensemble.preprocessing.intensity
    grey = transforms.to_grey(radiograph, intensity)
    batch = transforms.classifier_input(grey, spec.ensemble.preprocessing)
    framed, frame = yolo.letterbox(grey, spec.detector.size)
    plane = yolo.detector_input(framed)
    detector = engine._detector(*framed.shape)
    distances, logits = (np.array(v[0]) for v in detector(plane).values())
    lowest = spec.detector.tentative_confidence
    work: dict[str, Callable[[], object]] = {
        "normalise": lambda: transforms.to_grey(radiograph, intensity),
        "resize": lambda: transforms.classifier_input(grey, spec.ensemble.preprocessing),
        **{name: partial(network, batch) for name, network in engine._members.items()},
    }
    work["letterbox"] = lambda: yolo.detector_input(yolo.letterbox(grey, spec.detector.size)[0])
    work["detector"] = lambda: detector(plane)
    work["post-process"] = lambda: yolo.detections(
        yolo.decoded(distances, logits, *framed.shape, confidence=lowest),
        frame, confidence=lowest, iou=spec.detector.iou, most=spec.detector.max_detections,
    )  # fmt: skip
    analysis = analyse(data, predictor=predictor, max_pixels=_MAX_PIXELS)
    work["render"] = lambda: as_json.document(analysis, image=overlay.as_jpeg(analysis))
    measured = {name: median_seconds(do, rounds=rounds) for name, do in work.items()}
    products = _product_rates(predictor.engine.precision, rounds=rounds)
    predictor.close()
    rates = {
        name: NetworkRate(
            gflop,
            measured[name],
            {library: gflop / measured[name] / rate for library, rate in products.items()},
        )
        for name, gflop in _work(weights, framed.shape).items()
    }
    return measured, rates


def _product_rates(precision: Precision, *, rounds: int) -> dict[str, float]:
    """GFLOP/s of a large matrix product in the precision; int8 is held against bf16's.

    Two libraries, as neither is the faster one on every processor.
    """
    exact = precision is Precision.EXACT
    values = np.random.default_rng(0).random((_MATRIX, _MATRIX), np.float32)
    torch.set_num_threads(available_threads())
    matrix = torch.from_numpy(values).to(torch.float32 if exact else torch.bfloat16)
    left = opset.parameter(values.shape, np.float32)
    product = opset.matmul(left, opset.constant(values), False, False)
    config = {
        "INFERENCE_PRECISION_HINT": "f32" if exact else "bf16",
        "INFERENCE_NUM_THREADS": available_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = openvino.Core().compile_model(openvino.Model([product], [left]), "CPU", config)
    work: dict[str, Callable[[], object]] = {
        "PyTorch": lambda: matrix @ matrix,
        "OpenVINO": lambda: compiled(values),
    }
    gflop = 2 * _MATRIX**3 / 1e9
    return {library: gflop / median_seconds(do, rounds=rounds) for library, do in work.items()}


def _work(weights: Path, shape: tuple[int, ...]) -> dict[str, float]:
    """GFLOP of each network for one image, counted by torch."""
    bundle = load_bundle(weights)
    size = bundle.ensemble.preprocessing.size
    networks: dict[str, tuple[Any, tuple[int, ...]]] = {
        m.name: (load_classifier(m.file, m.architecture), (size, size))
        for m in bundle.ensemble.members
    }
    networks["detector"] = (load_detector(bundle.detector.file)[0], shape)
    found = {}
    for name, (network, (rows, columns)) in networks.items():
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, rows, columns))
        found[name] = counter.get_total_flops() / 1e9
    return found


def processor() -> str:
    """The processor's name, as OpenVINO knows it."""
    return str(openvino.Core().get_property("CPU", "FULL_DEVICE_NAME"))
