"""Weights folder → a Predictor that has answered once."""

from __future__ import annotations

from pathlib import Path

from spinexr import allocator
from spinexr.errors import ModelOutputError, ModelsNotReadyError, Problem
from spinexr.inference import engines, familiarity
from spinexr.inference.bundle import Bundle, load_bundle, sha256_of
from spinexr.inference.engines import EngineOptions
from spinexr.inference.familiarity import Familiarity, FamiliarityFileError
from spinexr.inference.predictor import Predictor


def load_predictor(
    weights: Path, options: EngineOptions | None = None, *, queue: int = 4, readers: int = 2
) -> Predictor:
    """Load the bundle below `weights` and run every network once.

    Raises:
        ModelsNotReadyError: anything that keeps a network from answering; `problems` names each.
    """
    bundle = load_bundle(weights)
    known = _familiarity(bundle)
    engine = engines.create(bundle, options or EngineOptions())
    predictor = Predictor(bundle, engine, queue, known, readers)
    try:
        predictor.warm_up()
        allocator.give_back_now()
    except ModelOutputError as e:
        predictor.close()
        raise ModelsNotReadyError(e.message, [Problem(e.code, e.message)]) from e
    # Out of memory, a driver that fails, an operator that a device lacks: torch raises anything.
    except Exception as e:
        predictor.close()
        message = f"The models loaded, but failed on a first image: {type(e).__name__}: {e}"
        raise ModelsNotReadyError(message, [Problem("warm_up_failed", message)]) from e
    return predictor


def _familiarity(bundle: Bundle) -> Familiarity | None:
    spec = bundle.ensemble
    if spec.familiarity is None:
        return None
    shown = bundle.relative(spec.familiarity)
    try:
        digest = sha256_of(spec.familiarity)
        if spec.familiarity_sha256 not in (None, digest):
            message = f"{shown} is not the file of the manifest: its SHA-256 differs."
            raise ModelsNotReadyError(message, [Problem("familiarity_invalid", message, shown)])
        return familiarity.load(spec.familiarity, tuple(m.name for m in spec.members))
    except (FamiliarityFileError, OSError) as e:
        reason = f"cannot be read: {e.strerror}." if isinstance(e, OSError) else str(e)
        message = f"{shown} {reason}"
        raise ModelsNotReadyError(message, [Problem("familiarity_invalid", message, shown)]) from e
