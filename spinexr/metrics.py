"""What every server of SpineXR counts alike, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.registry import Collector

from spinexr.domain import Analysis

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def new_registry(now: Collector) -> CollectorRegistry:
    """A registry of the process and of what `now` tells when it is asked."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(now)
    return registry


class Stages:
    """How long each stage of the analyses took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "spinexr_stage_seconds", "Time of a stage of an analysis.", ("stage",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip

    def observe(self, analysis: Analysis) -> None:
        """An analysis has a result."""
        for stage, milliseconds in analysis.stage_ms.items():
            self._seconds.labels(stage).observe(milliseconds / 1000.0)
