"""Engines: what runs the networks. One interface, `base.Engine`; `create` picks one."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from spinexr.errors import ModelsNotReadyError, Problem
from spinexr.inference.bundle import Bundle
from spinexr.inference.engines.base import Engine
from spinexr.inference.engines.precision import Precision

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How networks are to run.

    engine: auto (torch on a GPU, otherwise OpenVINO), openvino or torch.
    device: auto, cpu, cuda or mps; the last two are torch's.
    store: folder of compiled networks; None keeps them beside the weights, in `engines/`.
    threads: processor threads, 0 for all.
    precision: in which numbers OpenVINO computes; torch always computes exactly.
    unjudged: run a reduced precision that no gate has accepted, in order to judge it.
    """

    engine: str = "auto"
    device: str = "auto"
    store: Path | None = None
    threads: int = 0
    precision: Precision = Precision.EXACT
    unjudged: bool = False


def create(bundle: Bundle, options: EngineOptions) -> Engine:
    """Load the bundle into the engine for this machine.

    Raises:
        ModelsNotReadyError: a network cannot be loaded; `problems` names each.
    """
    # Imported here: the torch stack takes seconds and hundreds of megabytes.
    if picked(options) == "torch":
        try:
            from spinexr.inference.engines.torch_engine import TorchEngine
        except (ImportError, RuntimeError) as e:  # half a torch stack, or too old a one
            raise _not_installed("torch", "requirements.txt", e) from e
        engine = TorchEngine(bundle, device=options.device, threads=options.threads)
        if options.precision is not Precision.EXACT:
            engine.wanted_precision = options.precision
            engine.precision_note = "PyTorch computes exactly; OpenVINO has reduced precisions."
        return engine
    try:
        from spinexr.inference.engines import openvino_loading
    except ImportError as e:
        raise _not_installed("openvino", "requirements-serve.txt", e) from e
    return openvino_loading.load(
        bundle,
        store=options.store or bundle.root / "engines",
        threads=options.threads,
        precision=options.precision,
        unjudged=options.unjudged,
    )


def _not_installed(engine: str, requirements: str, error: Exception) -> ModelsNotReadyError:
    message = (
        f"The engine {engine} cannot be used: {error}. pip install -r {requirements} brings what "
        "it takes."
    )
    return ModelsNotReadyError(message, [Problem("engine_missing", message)])


def picked(options: EngineOptions) -> str:
    """openvino or torch: what these options mean on this machine."""
    if options.engine != "auto":
        return options.engine
    if options.device in ("cuda", "mps") or importlib.util.find_spec("openvino") is None:
        return "torch"
    # Asking torch would cost what OpenVINO saves, so it is asked only where a GPU may be.
    if options.device == "auto" and _NVIDIA_DRIVER.exists() and importlib.util.find_spec("torch"):
        import torch

        if torch.cuda.is_available():
            return "torch"
    return "openvino"


def gpus(options: EngineOptions) -> list[str]:
    """The GPUs that PyTorch would compute on, by the names that CUDA_VISIBLE_DEVICES has for them;
    none where these options mean something else."""
    if picked(options) != "torch" or options.device not in ("auto", "cuda"):
        return []
    import torch

    if not torch.cuda.is_available():
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",") if visible else [str(n) for n in range(torch.cuda.device_count())]
