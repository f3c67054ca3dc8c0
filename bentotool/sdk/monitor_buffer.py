"""Between requests and where their records go: a bounded buffer, and a thread that empties it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

__all__ = ["Buffer"]

_log = logging.getLogger("bentotool.monitor")
_GATHER_S = 0.05
"""So long the thread waits between two writes, so that a busy service writes many records at once."""
_WARN_EVERY_S = 60.0
_counting = threading.Lock()


@lru_cache(maxsize=1)
def _counter() -> Any:
    from prometheus_client import Counter

    return Counter("bentotool_monitor_records", "Records of monitors by outcome", ("monitor", "outcome"))


def _count(monitor: str, outcome: str, number: int) -> None:
    """Add to ``bentotool_monitor_records_total``, which all workers share."""
    with _counting:
        counter = _counter()
    counter.labels(monitor, outcome).inc(number)


class Buffer:
    """Takes records without ever waiting, and gives them to a function in a thread of its own.

    What finds no room is dropped, and counted: ``written``, ``dropped`` and ``failed`` together are all records that
    were put.

    Args:
        name: of the monitor.
        write: stores encoded records in order; gives how many of them were stored. May take its time, and may raise.
        most_records: in the buffer.
        most_bytes: in the buffer.
    """

    def __init__(self, name: str, write: Callable[[Sequence[bytes]], int], most_records: int, most_bytes: int) -> None:
        self._name, self._write = name, write
        self._most_records, self._most_bytes = most_records, most_bytes
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._changed = threading.Condition()
        self._closed = False
        self._warned_at = -_WARN_EVERY_S
        self._thread: threading.Thread | None = None

    def put(self, records: Sequence[bytes]) -> None:
        """Take records, as many as there is room for."""
        taken = 0
        with self._changed:
            for record in () if self._closed else records:
                if len(self._waiting) >= self._most_records or self._bytes + len(record) > self._most_bytes:
                    break
                self._waiting.append(record)
                self._bytes += len(record)
                taken += 1
            if taken:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name=f"monitor-{self._name}", daemon=True)
                    self._thread.start()
                self._changed.notify()
        if taken < len(records):
            _count(self._name, "dropped", len(records) - taken)
            self._warn(f"monitor {self._name}: records are dropped, they come faster than they are stored")

    def close(self, seconds: float) -> None:
        """Store what waits, for at most so many seconds; what is left then is dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(seconds)
        with self._changed:
            left, self._waiting = len(self._waiting), []
        if left:
            _count(self._name, "dropped", left)
            _log.warning("monitor %s: %d records were dropped at the end", self._name, left)

    @property
    def closing(self) -> bool:
        """Whether nothing comes any more: a writer that tries again should hurry."""
        return self._closed

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    if self._closed:
                        return
                    self._changed.wait()
                records, self._waiting, self._bytes = self._waiting, [], 0
            self._store(records)
            with self._changed:
                if not self._closed:
                    self._changed.wait_for(lambda: self._closed, _GATHER_S)

    def _store(self, records: Sequence[bytes]) -> None:
        stored = 0
        try:
            stored = self._write(records)
        except Exception as error:  # a full disk, a collector that is down: no concern of the requests
            self._warn(f"monitor {self._name}: records cannot be stored: {error}")
        if stored:
            _count(self._name, "written", stored)
        if stored < len(records):
            _count(self._name, "failed", len(records) - stored)

    def _warn(self, message: str) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            _log.warning("%s", message)
