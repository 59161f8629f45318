"""The PyTorch engine: the reference, and the engine for GPUs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from spinexr.errors import ModelOutputError, ModelsNotReadyError, Problem
from spinexr.inference import yolo
from spinexr.inference.bundle import Bundle, digest_problem, not_ready, sha256_of
from spinexr.inference.engines import torch_runtime
from spinexr.inference.engines.base import (
    ClassifierOutput,
    Engine,
    LoadedModel,
    RawDetections,
)
from spinexr.inference.engines.torch_checkpoints import (
    CheckpointError,
    load_classifier,
    load_detector,
)
from spinexr.processors import available_threads


class TorchEngine(Engine):
    """All networks of a bundle as torch modules on one device, in float32."""

    name = "torch"
    version = torch.__version__

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int = 0) -> None:
        """Load every network.

        Args:
            device: auto, cpu, cuda or mps.
            threads: processor threads for the networks, 0 for all that the process may use.

        Raises:
            ModelsNotReadyError: a file is not what the bundle says; `problems` names each.
        """
        if missing := bundle.missing_files():
            raise not_ready(missing)
        try:
            self._device = torch_runtime.pick_device(device)
        except RuntimeError as e:
            raise ModelsNotReadyError(str(e), [Problem("device_missing", str(e))]) from e
        self.device = self._device.type
        # torch's own default, and ultralytics' one of all cores but one, both depend on the host.
        torch.set_num_threads(threads or available_threads())
        self._spec = bundle.detector
        problems: list[Problem] = []
        models: list[LoadedModel] = []
        self._members: dict[str, torch.nn.Module] = {}
        for member in bundle.ensemble.members:
            try:
                digest = _verified_sha256(member.file, member.sha256)
                network = load_classifier(member.file, member.architecture)
            except (CheckpointError, OSError) as e:
                problems.append(_problem(bundle, member.file, e))
                continue
            self._members[member.name] = network.to(self._device)
            models.append(
                LoadedModel(member.name, member.architecture, bundle.relative(member.file), digest)
            )
        try:
            digest = _verified_sha256(self._spec.file, self._spec.sha256)
            detector, architecture, self.class_names = load_detector(self._spec.file)
            if mismatch := self._spec.mismatch(architecture, self.class_names):
                raise CheckpointError(mismatch)  # noqa: TRY301  (as from the loader)
        except (CheckpointError, OSError) as e:
            problems.append(_problem(bundle, self._spec.file, e))
        if problems:
            raise not_ready(problems)
        self._detector = detector.to(self._device)
        models.append(
            LoadedModel("detector", architecture, bundle.relative(self._spec.file), digest)
        )
        self.models = tuple(models)

    @torch.inference_mode()
    def classify(self, batch: npt.NDArray[np.float32]) -> dict[str, ClassifierOutput]:
        tensor = torch.from_numpy(batch).to(self._device)
        return {name: _classify(network, tensor) for name, network in self._members.items()}

    @torch.inference_mode()
    def detect(self, grey: npt.NDArray[np.uint8], *, confidence: float) -> RawDetections:
        framed, frame = yolo.letterbox(grey, self._spec.size)
        plane = torch.from_numpy(framed).to(self._device)
        tensor = (plane.float() / 255.0).expand(1, 3, -1, -1).contiguous()
        output = self._detector(tensor)
        raw = output[0] if isinstance(output, (tuple, list)) else output
        if not torch.isfinite(raw).all():  # suppression would drop these and report "no findings"
            raise ModelOutputError(
                "The detector answered with values that are not numbers, so there is no result. "
                "Its weights are damaged: replace the file."
            )
        return yolo.detections(
            raw[0].float().cpu().numpy(),
            frame,
            confidence=confidence,
            iou=self._spec.iou,
            most=self._spec.max_detections,
        )


def _classify(network: Any, batch: torch.Tensor) -> ClassifierOutput:
    logits, features, activations = (
        t.float().cpu().numpy() for t in torch_runtime.classify(network, batch)
    )
    return ClassifierOutput(logits[:, 0], features, activations[:, 0])


def _verified_sha256(file: Path, expected: str | None) -> str:
    digest = sha256_of(file)
    if problem := digest_problem(digest, expected):
        raise CheckpointError(problem)
    return digest


def _problem(bundle: Bundle, file: Path, error: CheckpointError | OSError) -> Problem:
    shown = bundle.relative(file)
    if isinstance(error, OSError):
        return Problem("checkpoint_unreadable", f"{shown}: {error.strerror or error}.", shown)
    return Problem("checkpoint_invalid", f"{shown} {error}", shown)
