"""Weights folder → a Predictor that has answered once."""

from __future__ import annotations

from pathlib import Path

from spinexr.errors import ModelOutputError, ModelsNotReadyError, Problem
from spinexr.inference import engines
from spinexr.inference.bundle import load_bundle
from spinexr.inference.predictor import Predictor


def load_predictor(
    weights: Path, *, device: str = "auto", threads: int = 0, queue: int = 4
) -> Predictor:
    """Load the bundle below `weights` and run every network once.

    Raises:
        ModelsNotReadyError: anything that keeps a network from answering; `problems` names each.
    """
    bundle = load_bundle(weights)
    predictor = Predictor(bundle, engines.create(bundle, device=device, threads=threads), queue)
    try:
        predictor.warm_up()
    except ModelOutputError as e:
        predictor.close()
        raise ModelsNotReadyError(e.message, [Problem(e.code, e.message)]) from e
    # Out of memory, a driver that fails, an operator that a device lacks: torch raises anything.
    except Exception as e:
        predictor.close()
        message = f"The models loaded, but failed on a first image: {type(e).__name__}: {e}"
        raise ModelsNotReadyError(message, [Problem("warm_up_failed", message)]) from e
    return predictor
