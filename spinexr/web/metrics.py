"""Counts and times for Prometheus. Labels are codes and class names, never a client's
text, so their number is bounded and no patient is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spinexr.domain import Analysis
from spinexr.inference.predictor import Predictor
from spinexr.metrics import SECONDS, Stages, new_registry


class Metrics:
    """What is counted in one application."""

    def __init__(
        self, *, ready: Callable[[], Predictor | None], restarts: Callable[[], dict[str, int]]
    ) -> None:
        """Empty counts.

        Args:
            ready: the predictor, None while there is none.
            restarts: how many reading processes were lost, by cause.
        """
        self.registry = registry = new_registry(_Now(ready, restarts))
        self._requests = Counter(
            "spinexr_requests", "Requests answered.", ("endpoint", "method", "status", "code"),
            registry=registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "spinexr_request_seconds", "Time from a request's head to its answer.", ("endpoint",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._stages = Stages(registry)
        self._results = Counter(
            "spinexr_results", "Analyses with a result.", ("decision",), registry=registry
        )
        self._findings = Counter(
            "spinexr_findings", "Findings shown.", ("label", "status"), registry=registry
        )

    def answered(
        self, *, endpoint: str, method: str, status: int, code: str, seconds: float
    ) -> None:
        """A request was answered."""
        self._requests.labels(endpoint, method, str(status), code).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def analysed(self, analysis: Analysis) -> None:
        """An analysis has a result."""
        self._stages.observe(analysis)
        prediction = analysis.prediction
        self._results.labels(prediction.decision).inc()
        for finding in prediction.findings or ():
            status = "tentative" if finding.tentative else "firm"
            self._findings.labels(finding.label, status).inc()


class _Now(Collector):
    """What is so at the moment of asking."""

    def __init__(
        self, ready: Callable[[], Predictor | None], restarts: Callable[[], dict[str, int]]
    ) -> None:
        self._ready = ready
        self._restarts = restarts

    def collect(self) -> Iterator[Metric]:
        predictor = self._ready()
        yield GaugeMetricFamily(
            "spinexr_ready", "Whether the models answer.", value=float(predictor is not None)
        )
        lost = GaugeMetricFamily(
            "spinexr_reader_restarts_total", "Reading processes lost to a file.", labels=["cause"]
        )
        for cause, count in self._restarts().items():
            lost.add_metric([cause], count)
        yield lost
        if predictor is None:
            return
        yield GaugeMetricFamily(
            "spinexr_queue_places", "Analyses that may run or wait at once.", value=predictor.queue
        )
        yield GaugeMetricFamily(
            "spinexr_queue_depth", "Analyses that run or wait.", value=predictor.taken
        )
        about = GaugeMetricFamily(
            "spinexr_bundle_info", "The weights in use.",
            labels=["name", "sha256", "training_data", "engine", "device", "precision"],
        )  # fmt: skip
        engine = predictor.engine
        about.add_metric(
            [predictor.bundle.name, predictor.fingerprint, predictor.summary.training_data.value,
             engine.name, engine.device, engine.precision],
            1.0,
        )  # fmt: skip
        yield about
