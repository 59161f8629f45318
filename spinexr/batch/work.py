"""What a worker does with an input: the one path, and its answer as a row."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from time import perf_counter, sleep

from spinexr import __version__
from spinexr.analysis import analyse
from spinexr.batch import results
from spinexr.batch.dicomweb import Credentials
from spinexr.batch.executor import About, Answer, Failure, Task
from spinexr.batch.sources import Sources
from spinexr.domain import Analysis, DetectPolicy, Read
from spinexr.errors import BusyError, ModelsNotReadyError, Problem, SpineXRError
from spinexr.imaging.sandbox import Sandbox, SandboxOptions
from spinexr.inference.engines import EngineOptions
from spinexr.inference.engines.base import Engine
from spinexr.inference.loading import load_predictor
from spinexr.inference.predictor import Predictor
from spinexr.reporting import overlay
from spinexr.reporting.codes import Codes

INSTANCE = "SOPInstanceUID"
ENGINES = "engines"
# Inputs on their way through a worker beside those that are read: one waits, one is looked at.
_BESIDE_READERS = 2
_PAUSES_S = (0.2, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Options:
    """How inputs are analysed.

    max_bytes, max_pixels: of one file.
    keep: keywords whose values stand in the rows; `results.ADDRESS` for the input's address.
    salt: what instance UIDs are hashed with.
    overlay: also draw the annotated image.
    codes: also make DICOM objects, with these codes.
    credentials: for archives that speak DICOMweb.
    """

    max_bytes: int
    max_pixels: int
    detect: DetectPolicy = DetectPolicy.WHEN_ABNORMAL
    allow_other_body_part: bool = False
    keep: tuple[str, ...] = ()
    salt: bytes = field(default=b"", repr=False)  # a cluster logs what it was given
    overlay: bool = False
    codes: Codes | None = None
    credentials: Credentials = field(default_factory=Credentials, repr=False)

    @property
    def read_keywords(self) -> tuple[str, ...]:
        """The attributes that reading has to bring along."""
        return (INSTANCE, *(k for k in self.keep if k not in (INSTANCE, results.ADDRESS)))


@dataclass(frozen=True, slots=True)
class OpenWorker:
    """Loads a bundle and starts its decoders; pickled on its way to a worker."""

    weights: Path
    engine: EngineOptions
    sandbox: SandboxOptions
    options: Options

    def __call__(self) -> Worker:
        """A worker that has answered once.

        Raises:
            ModelsNotReadyError: the bundle cannot be loaded, or not in the precision asked for.
            DecoderCrashedError: the decoders cannot start.
        """
        slots = self.sandbox.workers + _BESIDE_READERS
        sandbox = Sandbox(dataclasses.replace(self.sandbox, keep=self.options.read_keywords))
        try:
            wait = sandbox.start()
            predictor = load_predictor(
                self.weights, self.engine, queue=slots, readers=self.sandbox.workers
            )
            wait()
            self._check_precision(predictor.engine)
        except BaseException:
            sandbox.close()
            raise
        return Worker(predictor, sandbox.read, self.options, slots=slots, sandbox=sandbox)

    def moved(self, root: Path, *, threads: int) -> OpenWorker:
        """The same, where bundle and compiled networks lie below another folder.

        Args:
            threads: of the processor, unless the user chose a number.
        """
        engine = dataclasses.replace(
            self.engine, store=root / ENGINES, threads=self.engine.threads or threads
        )
        return dataclasses.replace(self, weights=root, engine=engine)

    def _check_precision(self, engine: Engine) -> None:
        if engine.precision is not self.engine.precision:
            message = f"Nothing is analysed in {self.engine.precision}: {engine.precision_note}"
            raise ModelsNotReadyError(message, [Problem("precision", message)])


class Worker:
    """A loaded bundle that answers tasks. Threads may share it."""

    def __init__(
        self,
        predictor: Predictor,
        read: Read,
        options: Options,
        *,
        slots: int,
        sandbox: Sandbox | None = None,
    ) -> None:
        """A worker over a predictor that has at least `slots` places; both are closed with it."""
        self._predictor, self._read, self._options = predictor, read, options
        self._sandbox = sandbox
        self._sources = Sources(max_bytes=options.max_bytes, credentials=options.credentials)
        self.about = About(
            identity={
                "bundle": predictor.summary.name,
                "bundle_sha256": predictor.fingerprint,
                "engine": predictor.engine.name,
                "device": predictor.engine.device,
                "precision": predictor.engine.precision.value,
                "detect": options.detect.value,
                "allow_other_body_part": options.allow_other_body_part,
                "max_pixels": options.max_pixels,
                "keep": list(options.keep),
                "schema": results.SCHEMA_VERSION,
            },
            caveat=predictor.summary.caveat,
            slots=slots,
        )

    def __call__(self, task: Task) -> Answer | Failure:
        """The answer to one input, or its refusal."""
        start = perf_counter()
        options = self._options
        try:
            data = self._sources.read(task.address) if task.data is None else task.data
            fetch_ms = (perf_counter() - start) * 1000.0
            analysis = self._analysed(data)
            objects = self._objects(analysis)
        except SpineXRError as e:
            return Failure(e.code, e.message)
        row = results.row(
            analysis,
            precision=self._predictor.engine.precision.value,
            bundle_sha256=self._predictor.fingerprint,
            software=__version__,
            fetch_ms=fetch_ms,
            kept=self._kept(analysis.radiograph.kept, task),
            instance=results.hashed(dict(analysis.radiograph.kept).get(INSTANCE), options.salt),
        )
        return Answer(row, overlay.as_jpeg(analysis).data if options.overlay else None, objects)

    def _analysed(self, data: bytes) -> Analysis:
        """The analysis of a file. What is short for a moment, memory to share or a place that a
        driver before this one still fills, is waited for: the file is not to blame."""
        for pause_s in _PAUSES_S:
            with contextlib.suppress(BusyError):
                return self._analysed_now(data)
            sleep(pause_s)
        return self._analysed_now(data)

    def _analysed_now(self, data: bytes) -> Analysis:
        return analyse(
            data,
            predictor=self._predictor,
            max_pixels=self._options.max_pixels,
            detect=self._options.detect,
            allow_other_body_part=self._options.allow_other_body_part,
            read=self._read,
        )

    def close(self) -> None:
        """End the decoders and the inference thread."""
        self._sources.close()
        if self._sandbox is not None:
            self._sandbox.close()
        self._predictor.close()

    def _objects(self, analysis: Analysis) -> dict[str, bytes]:
        if self._options.codes is None:
            return {}
        from spinexr.reporting import dicom  # highdicom: a second to import

        made = dicom.build(analysis, codes=self._options.codes, now=datetime.now())
        return {each.kind.value: each.data for each in made}

    def _kept(self, values: tuple[tuple[str, str], ...], task: Task) -> dict[str, str | None]:
        known: dict[str, str | None] = dict(values)
        known[results.ADDRESS] = str(task.address)
        return {keyword: known.get(keyword) for keyword in self._options.keep}
