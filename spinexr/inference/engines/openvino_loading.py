"""Bundle → OpenVINO engine: finds the compiled networks, or makes them once."""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import json
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino

from spinexr.domain import TrainingData
from spinexr.errors import ConfigurationError, ModelsNotReadyError, Problem
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
from spinexr.inference.engines.precision import Choice, Precision, Verdicts, subject_of, supported
from spinexr.processors import available_threads

_log = logging.getLogger("spinexr.engines")

_BRING_COMPILED = (
    "Compile it where torch is installed (python -m spinexr compile) and bring the folder of "
    "compiled networks along, or name it in SPINEXR_ENGINES."
)


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


def load(
    bundle: Bundle,
    *,
    store: Path,
    threads: int,
    precision: Precision = Precision.EXACT,
    unjudged: bool = False,
) -> OpenVinoEngine:
    """The engine of a bundle. Networks that are not compiled yet are made, where torch is.

    A reduced precision is taken where the processor has it and the gate accepted it for this
    bundle, or `unjudged`; otherwise the engine is exact and says why.

    Raises:
        ModelsNotReadyError: a network can neither be found nor made; `problems` names each.
    """
    engines = EngineStore(store)
    wanted = _networks(bundle)
    problems = [_missing(bundle, w) for w in wanted if not _known(w, engines)]
    if problems:
        raise not_ready(problems)
    digests: dict[str, str] = {}
    with ThreadPoolExecutor(min(threads or available_threads(), len(wanted))) as pool:
        begun = [pool.submit(_digest, network) for network in wanted]
    for network, computed in zip(wanted, begun, strict=True):
        try:
            digests[network.name] = computed.result()
        except (_NotAvailableError, OSError) as e:
            problems.append(_problem(bundle.relative(network.checkpoint), e))
    if problems:
        raise not_ready(problems)
    choice = _choose(bundle, wanted, digests, engines, precision, unjudged=unjudged)
    networks: dict[str, EngineFile] = {}
    models: list[LoadedModel] = []
    for network in wanted:
        shown, digest = bundle.relative(network.checkpoint), digests[network.name]
        try:
            found = _obtain(network, digest, engines, choice.precision)
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
            batch_shape=bundle.ensemble.preprocessing.batch_shape,
            threads=threads,
            choice=choice,
        )
    except RuntimeError as e:
        message = f"OpenVINO cannot compile the networks: {e}"
        raise ModelsNotReadyError(message, [Problem("engine_failed", message)]) from e


def verdict_subject(bundle: Bundle, precision: Precision, *, store: Path) -> str:
    """What a verdict on a bundle's precision is filed under.

    Raises:
        ModelsNotReadyError: a checkpoint, or an int8 network, is missing or damaged.
    """
    wanted = _networks(bundle)
    try:
        digests = {w.name: _digest(w) for w in wanted}
        calibration = ""
        if precision is Precision.INT8:
            calibration = _calibration(wanted, digests, EngineStore(store))
    except (_NotAvailableError, EngineFileError, OSError) as e:
        message = f"The networks cannot be read: {e}"
        raise ModelsNotReadyError(message, [Problem("checkpoint_invalid", message)]) from e
    return subject_of(bundle, digests, VERSION, calibration)


def compiled_folders(
    bundle: Bundle, *, store: Path, precision: Precision, version: str
) -> list[Path] | None:
    """The folders of a bundle's networks as one version of OpenVINO takes them; None where one of
    them is not there.

    Raises:
        ModelsNotReadyError: a checkpoint is missing, or another than the manifest's.
    """
    engines, keys = EngineStore(store), []
    for network in _networks(bundle):
        if not network.checkpoint.is_file() and network.sha256 is None:
            raise not_ready([_missing(bundle, network)])
        try:
            keys.append(_key(network, _digest(network), precision, version))
        except (_NotAvailableError, OSError) as e:
            raise not_ready([_problem(bundle.relative(network.checkpoint), e)]) from e
    if not all(map(engines.holds, keys)):
        return None
    return [store / key.folder_name for key in keys]


def check_precision(precision: Precision) -> None:
    """That a precision can be judged here, before anything is read for it.

    Raises:
        ConfigurationError: the processor lacks it, or NNCF to calibrate it is not installed.
    """
    if not supported(precision, _capabilities()):
        raise ConfigurationError(
            f"This processor has no instructions for {precision}, so it cannot be judged here."
        )
    if precision is Precision.INT8:
        from spinexr.inference.engines import openvino_quantisation  # noqa: F401


def quantise(
    bundle: Bundle, samples: Mapping[str, Sequence[npt.NDArray[np.float32]]], *, store: Path
) -> None:
    """Make the int8 form of each network of a bundle whose exact form is compiled.

    Args:
        samples: by the network's name, inputs as it gets them.

    Raises:
        ConfigurationError: NNCF is not installed.
        ModelsNotReadyError: a network's exact form is not there.
        OSError: the folder cannot be written.
    """
    from spinexr.inference.engines.openvino_quantisation import quantised_writer

    engines = EngineStore(store)
    for network in _networks(bundle):
        try:
            digest = _digest(network)
            exact = _obtain(network, digest, engines, Precision.EXACT)
        except _NotAvailableError as e:
            raise not_ready([_problem(bundle.relative(network.checkpoint), e)]) from e
        key = _key(network, digest, Precision.INT8)
        engines.remove(key)
        _log.info("calibrating %s with %d images", network.name, len(samples[network.name]))
        engines.add(key, quantised_writer(exact, samples[network.name]))


def _choose(
    bundle: Bundle,
    wanted: Sequence[_Wanted],
    digests: Mapping[str, str],
    engines: EngineStore,
    precision: Precision,
    *,
    unjudged: bool,
) -> Choice:
    if precision is Precision.EXACT:
        return Choice()
    command = f"python -m spinexr compile --precision {precision} --data DATASET"

    def instead(note: str) -> Choice:
        _log.warning("computing exactly, not in %s: %s", precision, note)
        return Choice(Precision.EXACT, precision, note)

    if not supported(precision, _capabilities()):
        return instead(f"this processor has no instructions for {precision}.")
    calibration = ""
    if precision is Precision.INT8:
        try:
            calibration = _calibration(wanted, digests, engines)
        except EngineFileError as e:
            return instead(f"a compiled network is damaged ({e}): {command}")
        except _NotAvailableError:
            return instead(f"the networks are not compiled in it: {command}")
    # Random weights have nothing to lose, and benchmarks run on them.
    if unjudged or bundle.training_data is TrainingData.NONE:
        return Choice(precision, precision, calibration=calibration)
    subject = subject_of(bundle, digests, VERSION, calibration)
    verdicts = Verdicts(engines.root)
    if not verdicts.hold(precision, subject):  # what was judged here goes before what came along
        verdicts = Verdicts(bundle.verdicts)
    measured = verdicts.find(precision, subject)
    if measured is None:
        return instead(f"it was not judged good enough for these weights: {command}")
    return Choice(precision, precision, measured=measured, calibration=calibration)


def _capabilities() -> tuple[str, ...]:
    return tuple(openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _calibration(
    wanted: Sequence[_Wanted], digests: Mapping[str, str], engines: EngineStore
) -> str:
    """A hash of the int8 networks: other images to calibrate on make others.

    Raises:
        _NotAvailableError: one is not there.
        EngineFileError: one is damaged.
    """
    made = {}
    for network in wanted:
        found = engines.find(_key(network, digests[network.name], Precision.INT8))
        if found is None:
            raise _NotAvailableError(f"{network.name} has no int8 network.")
        made[network.name] = found.about["sha256"]
    return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


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
    message = f"{shown} is missing."
    if importlib.util.find_spec("torch") is None:  # where only compiled networks are expected
        message = (
            f"{shown} is missing, and so is the network compiled from it for OpenVINO {VERSION}. "
            f"{_BRING_COMPILED}"
        )
    return Problem("file_missing", message, shown)


def _key(
    wanted: _Wanted, digest: str, precision: Precision = Precision.EXACT, version: str = VERSION
) -> EngineKey:
    # bf16 is made of the float32 network when it is loaded.
    kind = "int8" if precision is Precision.INT8 else "f32"
    return EngineKey(wanted.architecture, digest, wanted.input_size, kind, version)


def _digest(wanted: _Wanted) -> str:
    """SHA-256 of the checkpoint; where it was left out, what the manifest says of it."""
    if not wanted.checkpoint.is_file():
        return str(wanted.sha256)
    digest = sha256_of(wanted.checkpoint)
    if problem := digest_problem(digest, wanted.sha256):
        raise _NotAvailableError(problem)
    return digest


def _obtain(wanted: _Wanted, digest: str, store: EngineStore, precision: Precision) -> EngineFile:
    """The compiled network; an exact one is made if need be, an int8 one was looked for before."""
    key = _key(wanted, digest, precision)
    try:
        if found := store.find(key):
            return found
    except EngineFileError as e:
        _log.warning("compiled network discarded: %s", e)
        store.remove(key)
    if precision is Precision.INT8:
        raise _NotAvailableError("lost its int8 network a moment ago; start again.")
    if not wanted.checkpoint.is_file():
        raise _NotAvailableError("is missing, and its compiled network is damaged.")
    if importlib.util.find_spec("torch") is None:
        raise _NotAvailableError(f"is not compiled for OpenVINO {VERSION}. {_BRING_COMPILED}")
    try:
        from spinexr.inference.engines.torch_checkpoints import CheckpointError

        write = wanted.writer()
    except (ImportError, RuntimeError) as e:  # half a torch stack, or too old a one
        raise _NotAvailableError(
            f"cannot be compiled here: {e}. pip install -r requirements.txt brings what it takes."
        ) from e
    _log.info("compiling %s for OpenVINO %s", wanted.name, VERSION)
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
