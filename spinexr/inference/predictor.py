"""The Predictor: one loaded bundle that any thread may ask."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np

from spinexr.domain import (
    ActivationMap,
    BundleSummary,
    DetectPolicy,
    Familiarity,
    Finding,
    Photometric,
    Prediction,
    Radiograph,
)
from spinexr.errors import BusyError, DeadlineError, ModelOutputError
from spinexr.inference import classifier, detector, ensemble, familiarity, transforms
from spinexr.inference.bundle import Bundle, Intensity
from spinexr.inference.classifier import Classified
from spinexr.inference.engines.base import FIRST_SHAPE, Engine
from spinexr.inference.transforms import Grey

# One image that the networks look at, and one that is being read meanwhile.
_LEAST_DECODED: Final = 2

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class TimedPrediction:
    """A prediction and the milliseconds of each of its stages."""

    prediction: Prediction
    stage_ms: MappingProxyType[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """Bundle and engine behind one inference thread and a bounded number of places.

    Model objects may not be shared between threads, so all of them run on one thread of their own.
    Whoever analyses takes one of `queue` places for the whole of it; beyond them the next one is
    refused at once. Of those that have a place, only so many are decoded as keep the thread busy,
    or as there are `readers`: pixels take more memory than files.

    fingerprint: SHA-256 over the networks' own, every number of the manifests that a result depends
    on, and the precision: what answered.
    """

    bundle: Bundle
    engine: Engine
    queue: int = 4
    familiarity: familiarity.Familiarity | None = None
    readers: int = _LEAST_DECODED
    fingerprint: str = field(init=False)
    _places: _Places = field(init=False, repr=False)
    _decoded: threading.BoundedSemaphore = field(init=False, repr=False)
    _thread: ThreadPoolExecutor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_places", _Places(self.queue))
        decoded = max(_LEAST_DECODED, self.readers)
        object.__setattr__(self, "_decoded", threading.BoundedSemaphore(decoded))
        object.__setattr__(self, "fingerprint", _fingerprint(self.bundle, self.engine))
        object.__setattr__(
            self, "_thread", ThreadPoolExecutor(1, thread_name_prefix="spinexr-inference")
        )

    @property
    def taken(self) -> int:
        """How many of the places are taken now."""
        return self._places.taken

    @property
    def summary(self) -> BundleSummary:
        return self.bundle.summary(self.engine.class_names)

    def predict(
        self,
        radiograph: Radiograph,
        *,
        detect: DetectPolicy = DetectPolicy.WHEN_ABNORMAL,
        candidates_from: float | None = None,
        timeout_s: float = math.inf,
    ) -> TimedPrediction:
        """Classify, and find lesions as `detect` says.

        Args:
            candidates_from: also keep every box of at least this confidence; the detector then
                always runs.

        Raises:
            ConstantImageError: nothing is left of the image under the bundle's intensity rule.
            ModelOutputError: a network gave no valid answer.
            DeadlineError: there is no answer after `timeout_s`.
        """
        # Here and not on the inference thread, which another image may be using.
        stages = _Stages()
        rules = {self.bundle.ensemble.preprocessing.intensity, self.bundle.detector.intensity}
        grey = stages.run(
            "normalise", lambda: {rule: transforms.to_grey(radiograph, rule) for rule in rules}
        )
        future = self._thread.submit(
            self._predict, radiograph, grey, stages, detect, candidates_from
        )
        try:
            return future.result(None if math.isinf(timeout_s) else timeout_s)
        except TimeoutError as e:
            future.cancel()  # where it has not begun
            raise _late() from e

    @contextmanager
    def place(self, *, timeout_s: float = math.inf) -> Iterator[None]:
        """One of the places, held from before an image is read until it is predicted; waits for
        its turn to be read.

        Raises:
            BusyError: all are taken.
            DeadlineError: the turn has not come after `timeout_s`.
        """
        if not self._places.acquire():
            raise BusyError("Too many images are being analysed. Try again in a few seconds.")
        try:
            if not self._decoded.acquire(timeout=None if math.isinf(timeout_s) else timeout_s):
                raise _late()
            try:
                yield
            finally:
                self._decoded.release()
        finally:
            self._places.release()

    def warm_up(self) -> None:
        """Run every network once on a made-up image.

        Raises:
            ModelOutputError: a network gave no valid answer.
        """
        stored = np.linspace(0, 4095, num=int(np.prod(FIRST_SHAPE))).reshape(FIRST_SHAPE)
        ramp = Radiograph(
            stored=stored.astype(np.uint16),
            lowest=0,
            levels=np.linspace(0, 1, 4096, dtype=np.float32),
            photometric=Photometric.MONOCHROME2,
            spacing=None,
            attributes=(),
        )
        self.predict(ramp, detect=DetectPolicy.ALWAYS)

    def close(self) -> None:
        """Finish what is running and end the inference thread."""
        self._thread.shutdown(wait=True)

    def _predict(
        self,
        radiograph: Radiograph,
        grey: dict[Intensity, Grey],
        stages: _Stages,
        detect: DetectPolicy,
        candidates_from: float | None,
    ) -> TimedPrediction:
        bundle = self.bundle
        classified = stages.run(
            "classify",
            lambda: classifier.classify(
                self.engine, grey[bundle.ensemble.preprocessing.intensity], bundle.ensemble
            ),
        )
        scores = classified.scores
        probability = ensemble.combine(scores, bundle.ensemble)
        abnormal = probability > bundle.ensemble.threshold
        findings: tuple[Finding, ...] | None = None
        candidates: tuple[Finding, ...] = ()
        if abnormal or detect is DetectPolicy.ALWAYS or candidates_from is not None:
            tentative = bundle.detector.tentative_confidence
            lowest = tentative if candidates_from is None else min(candidates_from, tentative)
            raw = stages.run(
                "detect",
                lambda: self.engine.detect(grey[bundle.detector.intensity], confidence=lowest),
            )
            boxes = detector.to_findings(
                raw,
                self.engine.class_names,
                firm_confidence=bundle.detector.firm_confidence,
                rows=radiograph.rows,
                columns=radiograph.columns,
            )
            if candidates_from is not None:
                candidates = tuple(f for f in boxes if f.confidence >= candidates_from)
            if abnormal or detect is DetectPolicy.ALWAYS:
                findings = detector.select(boxes, bundle.detector, abnormal=abnormal)
        prediction = Prediction(
            probability=probability,
            threshold=bundle.ensemble.threshold,
            review_band=bundle.ensemble.review_band,
            members=scores,
            findings=findings,
            firm_confidence=bundle.detector.firm_confidence,
            tentative_confidence=bundle.detector.tentative_confidence,
            candidates=candidates,
            familiarity=self._familiarity(classified),
            activation=(
                ActivationMap(tuple(map(tuple, classified.activation.tolist())))
                if abnormal
                else None
            ),
        )
        return TimedPrediction(prediction, MappingProxyType(stages.ms))

    def _familiarity(self, classified: Classified) -> Familiarity | None:
        if self.familiarity is None:
            return None
        looks = familiarity.looks_of(classified.seen)
        distance = float(self.familiarity.distance(classified.features | looks)[0])
        if not np.isfinite(distance):
            raise ModelOutputError(
                "A model gave features that are not numbers, so there is no result. Its weights "
                "are damaged: replace the file."
            )
        return Familiarity(distance, self.familiarity.cut)


def _late() -> DeadlineError:
    return DeadlineError("There was no answer in time, so there is none. Try again in a moment.")


class _Places:
    """A bounded number of places, of which it can be told how many are taken."""

    def __init__(self, number: int) -> None:
        self.taken = 0
        self._number = number
        self._lock = threading.Lock()

    def acquire(self) -> bool:
        with self._lock:
            if self.taken >= self._number:
                return False
            self.taken += 1
            return True

    def release(self) -> None:
        with self._lock:
            self.taken -= 1


class _Stages:
    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    def run(self, name: str, work: Callable[[], _T]) -> _T:
        start = perf_counter()
        result = work()
        self.ms[name] = (perf_counter() - start) * 1000.0
        return result


def _fingerprint(bundle: Bundle, engine: Engine) -> str:
    profile = {
        "networks": {m.name: m.sha256 for m in engine.models},
        "precision": engine.precision.value,
        "calibration": engine.calibration,
        "ensemble": _plain(bundle.ensemble, bundle),
        "detector": _plain(bundle.detector, bundle),
    }
    return hashlib.sha256(json.dumps(profile, sort_keys=True).encode()).hexdigest()


def _plain(spec: Any, bundle: Bundle) -> Any:
    def default(value: object) -> str:
        return bundle.relative(value) if isinstance(value, Path) else str(value)

    return json.loads(json.dumps(dataclasses.asdict(spec), default=default))
