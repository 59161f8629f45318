"""The models of the process: loaded once, in the background, so that the server answers at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from time import perf_counter

import structlog

from spinexr import memory, stopping
from spinexr.errors import DecoderCrashedError, ModelsNotReadyError, Problem
from spinexr.imaging.sandbox import Sandbox
from spinexr.inference.loading import load_predictor
from spinexr.inference.predictor import Predictor
from spinexr.settings import Settings

_log = structlog.stdlib.get_logger("spinexr.models")

_STARTING = ModelsNotReadyError(
    "The models are being loaded. Try again in a few seconds.",
    [Problem("starting", "The models are being loaded.")],
)


class Models:
    """Loading, ready or failed; every state but ready is an error that says what is wrong."""

    def __init__(self, load: Callable[[], Predictor]) -> None:
        self._load = load
        self._outcome: Predictor | ModelsNotReadyError = _STARTING
        self._thread = threading.Thread(target=self._run, name=stopping.LOADING, daemon=True)

    @classmethod
    def for_settings(cls, settings: Settings, sandbox: Sandbox) -> Models:
        """Models of the bundle below `settings.weights`, and the processes that read for them."""

        def load() -> Predictor:
            wait = sandbox.start()
            try:
                predictor = load_predictor(
                    settings.weights,
                    settings.engine_options,
                    queue=settings.queue,
                    readers=settings.readers,
                )
            except ModelsNotReadyError:
                with contextlib.suppress(DecoderCrashedError):
                    wait()  # processes that are ended as they begin may say so in the log
                sandbox.close()  # nothing will be read for models that are not there
                raise
            try:
                wait()
            except DecoderCrashedError as e:
                sandbox.close()
                predictor.close()
                raise ModelsNotReadyError(e.message, [Problem(e.code, e.message)]) from e
            return predictor

        return cls(load)

    def start(self) -> None:
        """Begin to load; returns at once."""
        self._thread.start()

    def wait(self, timeout_s: float | None = None) -> None:
        """Until loading has ended, well or not."""
        self._thread.join(timeout_s)

    def predictor(self) -> Predictor:
        """The loaded predictor.

        Raises:
            ModelsNotReadyError: still loading, or loading failed.
        """
        if isinstance(self._outcome, ModelsNotReadyError):
            # A new object each time: a raised exception collects the traceback of its request.
            raise ModelsNotReadyError(self._outcome.message, self._outcome.problems)
        return self._outcome

    @property
    def loaded(self) -> Predictor | None:
        """The loaded predictor, None while there is none."""
        return None if isinstance(self._outcome, ModelsNotReadyError) else self._outcome

    @property
    def starting(self) -> bool:
        return self._outcome is _STARTING

    def _run(self) -> None:
        start = perf_counter()
        try:
            self._outcome = self._load()
        except ModelsNotReadyError as e:
            message = _with_shortage(e.message)
            self._outcome = ModelsNotReadyError(message, e.problems)
            _log.error("models not ready", why=message)
        # Anything else is a fault of this program; the server must still say that it is not ready.
        except Exception as e:
            message = f"The models cannot be loaded: {type(e).__name__}. The log says more."
            message = _with_shortage(message)
            self._outcome = ModelsNotReadyError(message, [Problem("load_failed", message)])
            _log.exception("models not ready: loading failed")
        else:
            _log.info(
                "models ready",
                after_s=round(perf_counter() - start, 1),
                bundle=self._outcome.bundle.name,
                device=self._outcome.engine.device,
            )


def _with_shortage(message: str) -> str:
    """What is said of models that do not load, and of memory where there is too little."""
    return " ".join(filter(None, [message, memory.shortage(memory.available_mb())]))
