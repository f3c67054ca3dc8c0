"""Metrics of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.runtime.tasks.records import COMPLETED, FAILED

__all__ = ["TaskMetrics"]

_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0)


class TaskMetrics:
    """Waiting and running tasks as the store has them (all workers share it), outcomes as this worker saw them.

    Args:
        registry: a `prometheus_client.CollectorRegistry`.
        prefix: of the names.
        names: of the tasks.
    """

    def __init__(self, registry: Any, prefix: str, names: Sequence[str]) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._names = names
        self._standing = Gauge(
            f"{prefix}_tasks",
            "Tasks that have not ended",
            ("task", "state"),
            multiprocess_mode="mostrecent",  # each worker asks the same store
            registry=registry,
        )
        self._total = Counter(f"{prefix}_task_total", "Tasks by event", ("task", "event"), registry=registry)
        self._seconds = Histogram(
            f"{prefix}_task_duration_seconds", "Time of a run", ("task",), buckets=_SECONDS, registry=registry
        )

    def count(self, name: str, event: str) -> None:
        """Count ``submitted``, ``refused``, ``completed``, ``failed``, ``canceled`` or ``retried``."""
        self._total.labels(name, event).inc()

    def ran(self, name: str, state: str, seconds: float) -> None:
        """Count a run that has ended."""
        self._seconds.labels(name).observe(seconds)
        if state in (COMPLETED, FAILED):
            self.count(name, state)
        elif state.startswith("failed"):
            self.count(name, "retried")

    def waiting(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Set the numbers of tasks that wait and run."""
        for name in self._names:
            for state in ("pending", "in_progress"):
                self._standing.labels(name, state).set(counts.get((name, state), 0))
