"""Engines: what runs the networks. One interface, `base.Engine`; `create` picks one."""

from __future__ import annotations

from spinexr.inference.bundle import Bundle
from spinexr.inference.engines.base import Engine


def create(bundle: Bundle, *, device: str = "auto", threads: int = 0) -> Engine:
    """Load the bundle into the engine for this machine.

    Raises:
        ModelsNotReadyError: a network cannot be loaded; `problems` names each.
    """
    # Imported here: the torch stack takes seconds and hundreds of megabytes.
    from spinexr.inference.engines.torch_engine import TorchEngine

    return TorchEngine(bundle, device=device, threads=threads)
