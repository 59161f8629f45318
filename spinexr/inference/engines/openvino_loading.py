"""Bundle → OpenVINO engine: finds the compiled networks, or makes them once."""

from __future__ import annotations

import atexit
import importlib.util
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from spinexr.errors import ModelsNotReadyError, Problem
from spinexr.inference.bundle import Bundle, digest_problem, not_ready, sha256_of
from spinexr.inference.engines.base import LoadedModel
from spinexr.inference.engines.engine_files import (
    EngineFile,
    EngineFileError,
    EngineKey,
    EngineStore,
    Writer,
)
from spinexr.inference.engines.openvino_engine import VERSION, OpenVinoEngine

_log = logging.getLogger("spinexr.engines")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A network of the bundle, and how to make it from its checkpoint."""

    name: str
    architecture: str
    checkpoint: Path
    sha256: str | None
    input_size: int
    writer: Callable[[], Writer]


class _NotAvailableError(Exception):
    """Why a network can be had neither compiled nor from its checkpoint."""


def load(bundle: Bundle, *, store: Path, threads: int) -> OpenVinoEngine:
    """The engine of a bundle. Networks that are not compiled yet are made, where torch is.

    Raises:
        ModelsNotReadyError: a network can neither be found nor made; `problems` names each.
    """
    engines = EngineStore(store)
    wanted = _networks(bundle)
    problems = [_missing(bundle, w) for w in wanted if not _known(w, engines)]
    if problems:
        raise not_ready(problems)
    networks: dict[str, EngineFile] = {}
    models: list[LoadedModel] = []
    for network in wanted:
        shown = bundle.relative(network.checkpoint)
        try:
            digest = _digest(network)
            found = _obtain(network, digest, engines)
            architecture = str(found.about["architecture"])
            if network.name == "detector":
                mismatch = bundle.detector.mismatch(architecture, tuple(found.about["classes"]))
                if mismatch:
                    raise _NotAvailableError(mismatch)  # noqa: TRY301  (one of several reasons)
        except (_NotAvailableError, OSError) as e:
            problems.append(_problem(shown, e))
            continue
        networks[network.name] = found
        models.append(LoadedModel(network.name, architecture, shown, digest))
    if problems:
        raise not_ready(problems)
    try:
        return OpenVinoEngine(
            members={m.name: networks[m.name].network for m in bundle.ensemble.members},
            detector=networks["detector"].network,
            spec=bundle.detector,
            class_names=tuple(networks["detector"].about["classes"]),
            models=tuple(models),
            threads=threads,
        )
    except RuntimeError as e:
        message = f"OpenVINO cannot compile the networks: {e}"
        raise ModelsNotReadyError(message, [Problem("engine_failed", message)]) from e


def _networks(bundle: Bundle) -> list[_Wanted]:
    def of_classifier(file: Path, architecture: str, size: int) -> Callable[[], Writer]:
        def writer() -> Writer:
            from spinexr.inference.engines.openvino_conversion import classifier_writer

            return classifier_writer(file, architecture, size)

        return writer

    def of_detector() -> Writer:
        from spinexr.inference.engines.openvino_conversion import detector_writer

        return detector_writer(bundle.detector.file)

    size = bundle.ensemble.preprocessing.size
    wanted = [
        _Wanted(
            m.name, m.architecture, m.file, m.sha256, size,
            of_classifier(m.file, m.architecture, size),
        )
        for m in bundle.ensemble.members
    ]  # fmt: skip
    d = bundle.detector
    # The detector's network takes any shape, so its key knows none.
    return [*wanted, _Wanted("detector", d.architecture, d.file, d.sha256, 0, of_detector)]


def _known(wanted: _Wanted, store: EngineStore) -> bool:
    """Whether there is a checkpoint, or a compiled network of the one that the manifest names."""
    if wanted.checkpoint.is_file():
        return True
    return wanted.sha256 is not None and store.holds(_key(wanted, wanted.sha256))


def _missing(bundle: Bundle, wanted: _Wanted) -> Problem:
    shown = bundle.relative(wanted.checkpoint)
    return Problem("file_missing", f"{shown} is missing.", shown)


def _key(wanted: _Wanted, digest: str) -> EngineKey:
    return EngineKey(wanted.architecture, digest, wanted.input_size, "f32", VERSION)


def _digest(wanted: _Wanted) -> str:
    """SHA-256 of the checkpoint; where it was left out, what the manifest says of it."""
    if not wanted.checkpoint.is_file():
        return str(wanted.sha256)
    digest = sha256_of(wanted.checkpoint)
    if problem := digest_problem(digest, wanted.sha256):
        raise _NotAvailableError(problem)
    return digest


def _obtain(wanted: _Wanted, digest: str, store: EngineStore) -> EngineFile:
    """The compiled network, made if need be."""
    key = _key(wanted, digest)
    try:
        if found := store.find(key):
            return found
    except EngineFileError as e:
        _log.warning("compiled network discarded: %s", e)
        store.remove(key)
    if not wanted.checkpoint.is_file():
        raise _NotAvailableError("is missing, and its compiled network is damaged.")
    if importlib.util.find_spec("torch") is None:
        raise _NotAvailableError(
            "is not compiled for this machine. Compile it where torch is installed "
            "(python -m spinexr compile) and bring the folder of compiled networks along."
        )
    from spinexr.inference.engines.torch_checkpoints import CheckpointError

    _log.info("compiling %s for OpenVINO %s", wanted.name, VERSION)
    write = wanted.writer()
    try:
        return store.add(key, write)
    except CheckpointError as e:
        raise _NotAvailableError(str(e)) from e
    except (EngineFileError, RuntimeError) as e:
        raise _NotAvailableError(f"cannot be compiled: {e}") from e
    except OSError as e:
        _log.warning("compiled networks cannot be kept in %s: %s", store.root.name, e.strerror)
        return _scratch_store().add(key, write)


@cache
def _scratch_store() -> EngineStore:
    """Where networks live that cannot be kept, until the process ends."""
    folder = tempfile.TemporaryDirectory(prefix="spinexr-engines-")
    atexit.register(folder.cleanup)
    return EngineStore(Path(folder.name))


def _problem(shown: str, error: Exception) -> Problem:
    if isinstance(error, OSError):
        return Problem("checkpoint_unreadable", f"{shown}: {error.strerror or error}.", shown)
    return Problem("checkpoint_invalid", f"{shown} {error}", shown)
