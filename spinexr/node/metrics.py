"""Counts of the node for Prometheus. Labels are codes, kinds, AE titles of the list and names of
destinations, so their number is bounded and no patient is in them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from spinexr.domain import Analysis
from spinexr.metrics import Stages, new_registry
from spinexr.node.queue import Counts


class Metrics:
    """What is counted in one node."""

    def __init__(self, counts: Callable[[], Counts], destinations: tuple[str, ...]) -> None:
        self.registry = registry = new_registry(_Now(counts, destinations))
        self._objects = Counter(
            "spinexr_node_objects", "Objects that were sent to the node.", ("caller", "outcome"),
            registry=registry,
        )  # fmt: skip
        self._analyses = Counter(
            "spinexr_node_analyses", "Objects that the node analysed or refused.", ("outcome",),
            registry=registry,
        )  # fmt: skip
        self._deliveries = Counter(
            "spinexr_node_deliveries", "Attempts to deliver an object.",
            ("destination", "object", "outcome"), registry=registry,
        )  # fmt: skip
        self._stages = Stages(registry)

    def received(self, caller: str, outcome: str) -> None:
        """Somebody sent an object."""
        self._objects.labels(caller, outcome).inc()

    def analysed(self, analysis: Analysis) -> None:
        """An analysis has a result."""
        self._stages.observe(analysis)

    def worked(self, outcome: str) -> None:
        """An object of the queue was worked on."""
        self._analyses.labels(outcome).inc()

    def delivered(self, destination: str, kind: str, outcome: str) -> None:
        """A delivery was attempted."""
        self._deliveries.labels(destination, kind, outcome).inc()


class _Now(Collector):
    """What the queue holds at the moment of asking."""

    def __init__(self, counts: Callable[[], Counts], destinations: tuple[str, ...]) -> None:
        self._counts, self._destinations = counts, destinations

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        yield GaugeMetricFamily(
            "spinexr_node_received", "Objects that wait for analysis.", value=counts.received
        )
        waiting = GaugeMetricFamily(
            "spinexr_node_waiting", "Objects that wait for a destination.", labels=["destination"]
        )
        for name in self._destinations:
            waiting.add_metric([name], counts.waiting.get(name, 0))
        yield waiting
        yield GaugeMetricFamily("spinexr_node_letters", "Dead letters.", value=counts.dead)
        yield GaugeMetricFamily(
            "spinexr_node_queue_bytes", "What the queue holds, in bytes.", value=counts.used_bytes
        )
