"""The OpenVINO engine: the fast one on CPUs. Imports neither torch nor anything built on it."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino.op import Constant
from openvino.utils import replace_node

from spinexr.errors import ModelOutputError
from spinexr.inference import yolo
from spinexr.inference.bundle import DetectorSpec
from spinexr.inference.engines.base import (
    FIRST_SHAPE,
    ClassifierOutput,
    Engine,
    LoadedModel,
    RawDetections,
)
from spinexr.inference.engines.mapped_files import release_pages
from spinexr.inference.engines.precision import Choice, Precision
from spinexr.processors import available_threads

VERSION = openvino.__version__.split("-")[0]
# Radiographs of one archive have few shapes, and each compiled detector takes memory.
_MOST_SHAPES = 4
_SMALL_BYTES = 64 * 1024
# Compiling a network is mostly one thread's work, and each takes memory while it lasts.
_COMPILED_AT_ONCE = 2


class OpenVinoEngine(Engine):
    """Compiled networks of a bundle on the CPU."""

    name = "openvino"
    version = VERSION
    device = "cpu"

    def __init__(
        self,
        *,
        members: dict[str, Path],
        detector: Path,
        spec: DetectorSpec,
        class_names: tuple[str, ...],
        models: tuple[LoadedModel, ...],
        batch_shape: tuple[int, ...],
        threads: int = 0,
        choice: Choice | None = None,
    ) -> None:
        """Load the networks.

        Args:
            members: by name, the file of each classifier. detector: its file.
            batch_shape: (N, 3, size, size) of what `classify` will get; the networks are compiled
                for one shape, and anew for another.
            threads: 0 for all processors that the process may use.
            choice: the precision; exact by default.

        Raises:
            RuntimeError: OpenVINO cannot read or compile a file.
        """
        choice = choice or Choice()
        self.precision, self.wanted_precision = choice.precision, choice.wanted
        self.precision_note, self.precision_measured = choice.note, choice.measured
        self.calibration = choice.calibration
        self._core: Any = openvino.Core()
        threads = threads or available_threads()
        self._config = {
            # OpenVINO itself would take bf16 where it can.
            "INFERENCE_PRECISION_HINT": "bf16" if self.precision is Precision.BF16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if threads < available_threads():
            # Others that take a share as well would be bound to the same processors.
            self._config["ENABLE_CPU_PINNING"] = False
        self.models = models
        self.class_names = class_names
        self._spec = spec
        # Read once, as they were when their digests were compared.
        self._networks = {name: _Network.read(self._core, file) for name, file in members.items()}
        self._detector_network = _Network.read(self._core, detector)
        self._batch_shape = batch_shape
        framed, _ = yolo.letterbox(np.zeros(FIRST_SHAPE, np.uint8), spec.size)
        self._detectors: OrderedDict[tuple[int, int], Any] = OrderedDict()
        self._at_once = min(_COMPILED_AT_ONCE, threads)
        with ThreadPoolExecutor(self._at_once) as pool:
            first = pool.submit(self._detector, *framed.shape)  # it takes longest
            self._members = self._compiled_members(pool)
            first.result()

    def classify(self, batch: npt.NDArray[np.float32]) -> dict[str, ClassifierOutput]:
        if batch.shape != self._batch_shape:
            self._batch_shape = batch.shape
            with ThreadPoolExecutor(self._at_once) as pool:
                self._members = self._compiled_members(pool)
        answers = {}
        for name, network in self._members.items():
            logits, features, activations = network(batch).values()
            answers[name] = ClassifierOutput(
                logits=np.array(logits[:, 0], np.float32),
                features=np.array(features, np.float32),
                activations=np.array(activations[:, 0], np.float32),
            )
        return answers

    def detect(self, grey: npt.NDArray[np.uint8], *, confidence: float) -> RawDetections:
        framed, frame = yolo.letterbox(grey, self._spec.size)
        rows, columns = framed.shape
        network = self._detector(rows, columns)
        distances, logits = network(yolo.detector_input(framed)).values()
        if not (np.isfinite(distances).all() and np.isfinite(logits).all()):
            raise ModelOutputError(
                "The detector answered with values that are not numbers, so there is no result. "
                "Its weights are damaged: replace the file."
            )
        output = yolo.decoded(distances[0], logits[0], rows, columns, confidence=confidence)
        return yolo.detections(
            output, frame, confidence=confidence, iou=self._spec.iou,
            most=self._spec.max_detections,
        )  # fmt: skip

    def _compiled_members(self, pool: ThreadPoolExecutor) -> dict[str, Any]:
        made = pool.map(lambda n: self._compiled(n, self._batch_shape), self._networks.values())
        return dict(zip(self._networks, made, strict=True))

    def _detector(self, rows: int, columns: int) -> Any:
        """The detector compiled for one shape; the least recently used one makes room."""
        shape = (rows, columns)
        if shape not in self._detectors:
            while len(self._detectors) >= _MOST_SHAPES:
                self._detectors.popitem(last=False)
            self._detectors[shape] = self._compiled(self._detector_network, (1, 3, rows, columns))
        self._detectors.move_to_end(shape)
        return self._detectors[shape]

    def _compiled(self, network: _Network, shape: tuple[int, ...]) -> Any:
        """A network for one input shape: faster than for any, and its weights are repacked now, so
        that the file's pages can go."""
        model = network.model.clone()
        model.reshape(list(shape))
        compiled = self._core.compile_model(model, "CPU", self._config)
        release_pages(network.weights)
        return compiled


@dataclass(frozen=True, slots=True)
class _Network:
    """A network for any input shape, its weights mapped from their file."""

    model: Any
    weights: Path

    @classmethod
    def read(cls, core: Any, file: Path) -> _Network:
        model = core.read_model(file)
        _keep_small_constants(model)
        return cls(model, file.with_suffix(".bin"))


def _keep_small_constants(network: Any) -> None:
    """Move small constants from the mapped file into memory: unlike the large ones they stay in use
    as they are, and each would bring the file's pages around it back."""
    for node in network.get_ops():
        if node.get_type_name() == "Constant" and node.get_byte_size() < _SMALL_BYTES:
            replace_node(node, Constant(node.data.copy()))
