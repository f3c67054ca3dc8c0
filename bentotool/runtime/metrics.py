"""Prometheus metrics of one worker, summed over all workers when they are scraped (see `metricfiles`).

Labels never hold a raw path: ``endpoint`` is a route as it was declared, or ``unmatched``.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bentotool.runtime.batcher import Observer
from bentotool.runtime.deadlines import Receive, Send
from bentotool.sdk.current import bento_value, served_version
from bentotool.sdk.metrics import whole_exposition

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["UNMATCHED", "Metrics", "RouteMetrics", "SocketMetrics"]

UNMATCHED = "unmatched"
"""What stands for a path that no route answers."""
_SERVICE = ("service_name", "service_version", "runner_name")
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_WAITS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class _Distribution:
    """A histogram with its labels, for what is observed with each request: finds the bucket by bisection, and leaves
    out what `prometheus_client` asks each time of a metric that never changes.
    """

    def __init__(self, histogram: Any) -> None:
        self._sum, self._buckets, self._bounds = histogram._sum, histogram._buckets, histogram._upper_bounds

    def observe(self, amount: float) -> None:
        self._sum.inc(amount)
        self._buckets[bisect_left(self._bounds, amount)].inc(1)

    def observe_all(self, amounts: Sequence[float]) -> None:
        """The same for several, with one change of each number."""
        self._sum.inc(sum(amounts))
        counts = Counter([bisect_left(self._bounds, amount) for amount in amounts])
        for bucket, count in counts.items():
            self._buckets[bucket].inc(count)


class RouteMetrics:
    """The counters of one API, looked up once.

    Attributes:
        in_progress: the gauge of requests that are being answered.
        add_in_progress: changes it, without what the gauge asks each time.
    """

    def __init__(self, metrics: Metrics, endpoint: str) -> None:
        self._metrics, self._endpoint = metrics, endpoint
        self._by_status: dict[int, tuple[Callable[[int], None], _Distribution]] = {}
        self.in_progress = metrics.labelled(metrics.in_progress, endpoint)
        self.add_in_progress: Callable[[int], None] = self.in_progress._value.inc

    def done(self, status: int, seconds: float) -> None:
        """Count one answered request."""
        count, duration = self._by_status.get(status) or self._of(status)
        count(1)
        duration.observe(seconds)
        self._metrics.touch()

    def done_all(self, status: int, seconds: Sequence[float]) -> None:
        """Count several that were answered alike."""
        count, duration = self._by_status.get(status) or self._of(status)
        count(len(seconds))
        duration.observe_all(seconds)
        self._metrics.touch()

    def _of(self, status: int) -> tuple[Callable[[int], None], _Distribution]:
        metrics, labels = self._metrics, (self._endpoint, str(status))
        duration = _Distribution(metrics.labelled(metrics.duration, *labels))
        found = self._by_status[status] = metrics.labelled(metrics.total, *labels)._value.inc, duration
        return found


class SocketMetrics:
    """The counters of one websocket route."""

    def __init__(self, metrics: Metrics, endpoint: str) -> None:
        connections, received, sent = metrics.sockets()
        self.connections = metrics.labelled(connections, endpoint)
        self._received = metrics.labelled(received, endpoint).observe
        self._sent = metrics.labelled(sent, endpoint).observe

    def around(self, receive: Receive, send: Send) -> tuple[Receive, Send]:
        """The two ways of a connection, with what passes observed."""

        async def receiving() -> dict[str, Any]:
            message = await receive()
            if message["type"] == "websocket.receive":
                self._received(_size(message))
            return message

        async def sending(message: dict[str, Any]) -> None:
            await send(message)
            if message["type"] == "websocket.send":
                self._sent(_size(message))

        return receiving, sending


def _size(message: dict[str, Any]) -> int:
    """Bytes of a message."""
    data = message.get("bytes")
    return len(data) if data is not None else len((message.get("text") or "").encode())


class _BatchMetrics(Observer):
    def __init__(self, metrics: Metrics, endpoint: str) -> None:
        self._size = metrics.labelled(metrics.batch_size, endpoint)
        self._execution = metrics.labelled(metrics.execution, endpoint)
        self._wait = _Distribution(metrics.labelled(metrics.queue_wait, endpoint))
        self._metrics, self._endpoint = metrics, endpoint

    def executed(self, units: int, seconds: float) -> None:
        self._size.observe(units)
        self._execution.observe(seconds)

    def waited(self, seconds: Sequence[float]) -> None:
        self._wait.observe_all(seconds)

    def shed(self, cause: str) -> None:
        self._metrics.labelled(self._metrics.shed, self._endpoint, cause).inc()


class Metrics:
    """All metrics of one application.

    Args:
        service: gives the namespace, the buckets and its name.
    """

    def __init__(self, service: Service[Any]) -> None:
        from prometheus_client import CollectorRegistry, Gauge, Histogram
        from prometheus_client import Counter as Total

        config = service.config
        self._prefix = prefix = config.metrics_namespace
        self._service = (bento_value("name") or service.name, served_version(service) or "not available", service.name)
        self.registry = CollectorRegistry()
        common: dict[str, Any] = {"registry": self.registry}
        route, answer = ("endpoint", *_SERVICE), ("endpoint", "http_response_code", *_SERVICE)
        self.total = Total(f"{prefix}_request_total", "Requests answered", answer, **common)
        self.duration = Histogram(
            f"{prefix}_request_duration_seconds",
            "Time to the last byte of the answer",
            answer,
            buckets=config.duration_buckets,
            **common,
        )
        self.in_progress = Gauge(
            f"{prefix}_request_in_progress", "Requests being answered", route, multiprocess_mode="livesum", **common
        )
        self.batch_size = Histogram(f"{prefix}_batch_size", "Units per batch", route, buckets=_BATCH_SIZES, **common)
        self.queue_wait = Histogram(f"{prefix}_queue_wait_seconds", "Wait of an item", route, buckets=_WAITS, **common)
        self.execution = Histogram(f"{prefix}_batch_seconds", "Time of a batch", route, buckets=_WAITS, **common)
        self.shed = Total(
            f"{prefix}_shed_total", "Requests refused or dropped", ("endpoint", "cause", *_SERVICE), **common
        )
        seconds = {"multiprocess_mode": "livemax", **common}
        self._last = self.labelled(
            Gauge(f"{prefix}_last_request_timestamp_seconds", "When a request was last answered", _SERVICE, **seconds)
        )
        self.startup = self.labelled(
            Gauge(f"{prefix}_startup_seconds", "Longest start of the workers that run", _SERVICE, **seconds)
        )
        self._second = 0
        self._unanswered: dict[str, RouteMetrics] = {}
        self._sockets: tuple[Any, Any, Any] | None = None

    def labelled(self, metric: Any, *values: str) -> Any:
        """A metric with the values of its own labels, and those of the service."""
        return metric.labels(*values, *self._service)

    def touch(self) -> None:
        """A request was answered now; written once a second."""
        now = time.time()
        if int(now) != self._second:
            self._second = int(now)
            self._last.set(now)

    def route(self, endpoint: str) -> RouteMetrics:
        return RouteMetrics(self, endpoint)

    def unanswered(self, route: str, status: int, seconds: float) -> None:
        """Count a request that no route has answered: it was refused before, or there is none for its path."""
        endpoint = route or UNMATCHED
        found = self._unanswered.get(endpoint)
        if found is None:
            found = self._unanswered[endpoint] = RouteMetrics(self, endpoint)
        found.done(status, seconds)

    def socket(self, endpoint: str) -> SocketMetrics:
        return SocketMetrics(self, endpoint)

    def batch(self, endpoint: str) -> Observer:
        return _BatchMetrics(self, endpoint)

    def sockets(self) -> tuple[Any, Any, Any]:
        """Connections, data received and data sent, of websockets; made when the first one asks."""
        if self._sockets is None:
            from prometheus_client import Gauge, Summary

            prefix, labels, registry = self._prefix, ("endpoint", *_SERVICE), self.registry
            self._sockets = (
                Gauge(
                    f"{prefix}_websocket_connections", "Open websockets", labels, multiprocess_mode="livesum",
                    registry=registry,
                ),
                Summary(f"{prefix}_websocket_data_received", "Bytes of a message received", labels, registry=registry),
                Summary(f"{prefix}_websocket_data_sent", "Bytes of a message sent", labels, registry=registry),
            )  # fmt: skip
        return self._sockets

    def render(self) -> bytes:
        """The text exposition of the whole server, metrics of the service's own included."""
        return whole_exposition(also=self.registry)
