"""Requests against servers → plain numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from spinexr.benchmark.servers import PeakMemory, Server
from spinexr.errors import ConfigurationError

_WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class Throughput:
    """Answers per second, latencies in seconds and the largest memory at a number of clients."""

    clients: int
    per_second: float
    p50_s: float
    p95_s: float
    p99_s: float
    peak_bytes: int


def alternating(servers: Sequence[Server], data: bytes, *, rounds: int) -> dict[str, float]:
    """Median seconds per server, each round asking every server once in turn."""
    for server in servers:
        for _ in range(_WARM_UPS):
            checked(server, data)
    times: dict[str, list[float]] = {s.name: [] for s in servers}
    for _ in range(rounds):
        for server in servers:
            times[server.name].append(checked(server, data)[0])
    return {name: median(seconds) for name, seconds in times.items()}


def throughput(server: Server, data: bytes, *, clients: int, requests: int) -> Throughput:
    """So many requests from so many clients at once."""
    checked(server, data)
    peak = PeakMemory()
    with peak.watch(server), ThreadPoolExecutor(clients) as pool:
        start = perf_counter()
        seconds = list(pool.map(lambda _: checked(server, data)[0], range(requests)))
        elapsed = perf_counter() - start
    p50, p95, p99 = (float(q) for q in np.percentile(seconds, (50, 95, 99)))
    return Throughput(clients, requests / elapsed, p50, p95, p99, peak.bytes)


def checked(server: Server, data: bytes, *, html: bool = False) -> tuple[float, bytes]:
    """Seconds and body of an answer.

    Raises:
        ConfigurationError: it is no answer; a benchmark of refusals would be fast.
    """
    seconds, status, body = server.post(data, html=html)
    if status != 200:
        raise ConfigurationError(f"{server.name} answered {status}: {body[:300]!r}")
    return seconds, body


def reference_boxes(server: Server, data: bytes) -> tuple[bool, int, float]:
    """Of the reference's answer: abnormal, number of boxes, the lowest confidence among them."""
    document: dict[str, Any] = json.loads(checked(server, data)[1])
    confidences = [box["confidence"] for box in document["boxes"]]
    return document["abnormal"], len(confidences), min(confidences, default=0.0)


def median_seconds(work: Callable[[], object], *, rounds: int) -> float:
    """Median seconds of a piece of work after a warm-up."""
    work()
    times = []
    for _ in range(rounds):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return median(times)
