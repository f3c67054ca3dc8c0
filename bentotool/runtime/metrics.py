"""Prometheus metrics of one worker, summed over all workers when they are scraped.

Under a supervisor each worker writes into memory-mapped files in a private folder (prometheus_client's multiprocess
mode), named after the worker's slot rather than its pid: a worker that replaces a dead one goes on counting in the same
file, so nothing is lost and nothing is counted twice.
"""

from __future__ import annotations

import bisect
import os
from typing import TYPE_CHECKING, Any

from bentotool.runtime.batcher import Observer

if TYPE_CHECKING:
    from bentotool.sdk.config import ServiceConfig

__all__ = ["DIRECTORY", "SLOT", "Metrics", "RouteMetrics", "use_slot"]

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
SLOT = "BENTOTOOL_WORKER_SLOT"
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_WAITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def use_slot(slot: str) -> None:
    """Name this process's metric files after its slot. Comes before any metric is made."""
    from prometheus_client import values

    # the metric classes look the name up in this module each time they make a value
    values.ValueClass = values.MultiProcessValue(process_identifier=lambda: slot)  # type: ignore[no-untyped-call]


class RouteMetrics:
    """The counters of one API, looked up once."""

    def __init__(self, metrics: Metrics, endpoint: str) -> None:
        self._metrics, self._endpoint = metrics, endpoint
        self._by_status: dict[int, tuple[Any, Any]] = {}
        self.in_progress = metrics.in_progress.labels(endpoint)
        self.in_progress.set(0)  # a predecessor of this slot may have died with requests in flight

    def done(self, status: int, seconds: float) -> None:
        """Count one answered request."""
        found = self._by_status.get(status)
        if found is None:
            labels = (self._endpoint, str(status))
            found = self._metrics.total.labels(*labels), self._metrics.duration.labels(*labels)
            self._by_status[status] = found
        found[0].inc()
        found[1].observe(seconds)


class _BatchMetrics(Observer):
    def __init__(self, metrics: Metrics, endpoint: str) -> None:
        self._size = metrics.batch_size.labels(endpoint)
        self._execution = metrics.execution.labels(endpoint)
        self._wait = metrics.queue_wait.labels(endpoint)
        self._shed = metrics.shed
        self._endpoint = endpoint

    def executed(self, units: int, seconds: float) -> None:
        self._size.observe(units)
        self._execution.observe(seconds)

    def waited(self, seconds: float) -> None:
        self._wait.observe(seconds)

    def shed(self, cause: str) -> None:
        self._shed.labels(self._endpoint, cause).inc()


class Metrics:
    """All metrics of one application.

    Args:
        config: gives the namespace and the buckets.
    """

    def __init__(self, config: ServiceConfig) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        prefix = config.metrics_namespace
        self.registry = CollectorRegistry()
        common: dict[str, Any] = {"registry": self.registry}
        buckets = config.duration_buckets
        if list(buckets) != sorted(buckets) or bisect.bisect(buckets, 0) == len(buckets):
            raise ValueError("metrics.duration.buckets: bounds must rise")
        route, answer = ("endpoint",), ("endpoint", "http_response_code")
        self.total = Counter(f"{prefix}_request_total", "Requests answered", answer, **common)
        self.duration = Histogram(
            f"{prefix}_request_duration_seconds",
            "Time to the last byte of the answer",
            answer,
            buckets=buckets,
            **common,
        )
        self.in_progress = Gauge(
            f"{prefix}_request_in_progress", "Requests being answered", route, multiprocess_mode="livesum", **common
        )
        self.batch_size = Histogram(f"{prefix}_batch_size", "Units per batch", route, buckets=_BATCH_SIZES, **common)
        self.queue_wait = Histogram(f"{prefix}_queue_wait_seconds", "Wait of an item", route, buckets=_WAITS, **common)
        self.execution = Histogram(f"{prefix}_batch_seconds", "Time of a batch", route, buckets=_WAITS, **common)
        self.shed = Counter(f"{prefix}_shed_total", "Requests refused or dropped", ("endpoint", "cause"), **common)

    def route(self, endpoint: str) -> RouteMetrics:
        return RouteMetrics(self, endpoint)

    def batch(self, endpoint: str) -> Observer:
        return _BatchMetrics(self, endpoint)

    def render(self) -> bytes:
        """The text exposition of the whole server, metrics of the service's own included."""
        from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
        from prometheus_client.multiprocess import MultiProcessCollector

        if os.environ.get(DIRECTORY):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self.registry) + generate_latest(REGISTRY)
