"""The adaptive batcher: a queue that says what to run next, and the executor that runs it.

Work-conserving: whenever the executor is free it takes what waits, at once; requests gather only while it is busy. So
an idle service adds no delay and a busy one finds its batch size by itself, without a knob. Nothing polls: the executor
sleeps on a condition and is woken by an arrival.

`BatchQueue` is the policy alone, with an injected clock: no threads, no event loop. `Batcher` joins it to a thread (or,
for an ``async def`` API, to a task).
"""

from __future__ import annotations

import asyncio
import bisect
import contextvars
import inspect
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bentotool.runtime.costmodel import CostModel
from bentotool.sdk.exceptions import ClientGone, DeadlineExceeded, InvalidOutput, ServiceUnavailable

__all__ = ["BatchQueue", "Batcher", "Entry", "Observer"]

_log = logging.getLogger("bentotool.batcher")
_numbers = itertools.count()


@dataclass(eq=False)
class Entry:
    """One item in the queue.

    Attributes:
        value: the input.
        units: its rows; counts against the batch size.
        key: only entries with the same key share a batch.
        deadline: on the queue's clock, seconds.
        gone: tells whether nobody waits for the answer any more.
        settle: called exactly once, from the executor, with (result, None) or (None, error).
        at_once: nothing ran and nothing waited when it came.
    """

    value: Any
    units: int
    key: object
    deadline: float
    gone: Callable[[], bool]
    settle: Callable[[Any, BaseException | None], None]
    arrived: float = 0.0
    at_once: bool = False
    number: int = field(default_factory=lambda: next(_numbers))

    def __lt__(self, other: Entry) -> bool:
        return (self.deadline, self.number) < (other.deadline, other.number)


class Observer:
    """What the batcher reports; the metrics subclass it."""

    def executed(self, units: int, seconds: float) -> None: ...
    def waited(self, seconds: float) -> None: ...
    def shed(self, cause: str) -> None: ...


class BatchQueue:
    """What waits, per key in order of deadline. Not thread-safe: its owner holds a lock.

    Args:
        max_units: units in one batch at most.
        max_items: entries that may wait.
        cost: learns the time of a batch.
        clock: monotonic seconds.
    """

    def __init__(
        self, max_units: int, max_items: int, cost: CostModel, clock: Callable[[], float], observer: Observer
    ) -> None:
        self.max_units, self.max_items, self.cost, self.clock, self.observer = (
            max_units,
            max_items,
            cost,
            clock,
            observer,
        )
        self._keys: dict[object, list[Entry]] = {}
        self._size = 0
        self._busy = False

    def __len__(self) -> int:
        return self._size

    def put(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            ServiceUnavailable: the queue is full.
            ValueError: the entry alone is larger than a batch may be.
        """
        if entry.units > self.max_units:
            raise ValueError(f"{entry.units} units do not fit into a batch of {self.max_units}")
        if self._size >= self.max_items:
            self._discard_gone()
        if self._size >= self.max_items:
            self.observer.shed("queue_full")
            drain = self.cost(self.max_units) * self._size / self.max_units
            raise ServiceUnavailable("the service is overloaded: its queue is full", retry_after=max(1.0, drain))
        entry.arrived, entry.at_once = self.clock(), not self._size and not self._busy
        bisect.insort(self._keys.setdefault(entry.key, []), entry)
        self._size += 1

    def take(self) -> list[Entry]:
        """Remove and return the next batch, at most `max_units` of one key; empty when nothing waits.

        What nobody waits for is dropped, what cannot be in time is answered with an error, and neither is ever run.
        """
        while self._keys:
            # the queue whose first entry came first goes first, so that no key starves
            key = min(self._keys, key=lambda k: min(e.arrived for e in self._keys[k][:1]))
            waiting = self._feasible(self._keys[key])
            batch = self._choose(waiting) if waiting else []
            chosen = set(map(id, batch))
            left = [entry for entry in waiting if id(entry) not in chosen]
            self._size -= len(self._keys[key]) - len(left)
            if left:
                self._keys[key] = left
            else:
                del self._keys[key]
            if batch:
                now = self.clock()
                for entry in batch:
                    self.observer.waited(now - entry.arrived)
                self._busy = True  # until its taker comes back
                return batch
        self._busy = False
        return []

    def drain(self) -> list[Entry]:
        """Remove and return everything."""
        entries = [entry for waiting in self._keys.values() for entry in waiting]
        self._keys.clear()
        self._size = 0
        return entries

    @staticmethod
    def _is_gone(entry: Entry) -> bool:
        if not entry.gone():
            return False
        entry.settle(None, ClientGone("the client went away before its request was run"))
        return True

    def _discard_gone(self) -> None:
        for key, waiting in list(self._keys.items()):
            left = [entry for entry in waiting if not self._is_gone(entry)]
            self._size -= len(waiting) - len(left)
            if left:
                self._keys[key] = left
            else:
                del self._keys[key]

    def _feasible(self, waiting: list[Entry]) -> list[Entry]:
        now = self.clock()
        feasible = []
        for entry in waiting:
            if self._is_gone(entry):
                self.observer.shed("gone")
            elif entry.deadline <= now:
                self.observer.shed("expired")
                entry.settle(None, DeadlineExceeded("the deadline passed while the request was queued"))
            elif entry.deadline < now + self.cost(entry.units):
                self.observer.shed("infeasible")
                entry.settle(None, self._too_late(entry))
            else:
                feasible.append(entry)
        return feasible

    def _too_late(self, entry: Entry) -> Exception:
        run = self.cost(entry.units)
        if entry.at_once or entry.deadline < entry.arrived + run:  # no load is to blame: it never was possible
            return DeadlineExceeded(f"the deadline is shorter than a run takes, about {run * 1000:.3g} ms")
        return ServiceUnavailable("the service is overloaded: no answer in time", retry_after=1.0)

    def _batch_from(self, waiting: list[Entry], start: int, now: float) -> tuple[int, int]:
        """End and units of the largest batch from `start` that its first (most urgent) entry can wait for."""
        units, end, deadline = 0, start, waiting[start].deadline
        while end < len(waiting) and units + waiting[end].units <= self.max_units:
            if end > start and now + self.cost(units + waiting[end].units) > deadline:
                break
            units += waiting[end].units
            end += 1
        return end, units

    def _choose(self, waiting: list[Entry]) -> list[Entry]:
        now = self.clock()
        end, units = self._batch_from(waiting, 0, now)
        if end == len(waiting) or units * 2 > self.max_units:
            return waiting[:end]
        # the first entry's deadline keeps the batch small; does the next one still make it in a second batch?
        rest = min(self.max_units, sum(entry.units for entry in waiting[end:]))
        if waiting[end].deadline >= now + self.cost(units) + self.cost(rest):
            return waiting[:end]
        best, best_rate = (0, end), units / max(self.cost(units), 1e-9)
        for start in range(1, min(len(waiting), 2 * self.max_units)):
            end, units = self._batch_from(waiting, start, now)
            rate = units / max(self.cost(units), 1e-9)
            if rate > best_rate * 1.001:
                best, best_rate = (start, end), rate
            if end == len(waiting) or units == self.max_units:
                break
        return waiting[best[0] : best[1]]


class Batcher:
    """Runs one batchable function on what its queue gives.

    Args:
        function: values → one result per value. Called with at most `max_units` units of one key; a plain function runs
            in a thread of the batcher's own, an ``async def`` one in a task on the loop.
        max_units: see `BatchQueue`.
        max_items: see `BatchQueue`.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Any]], Any],
        *,
        name: str,
        max_units: int,
        max_items: int = 1000,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
    ) -> None:
        self._function = function
        self._observer = observer or Observer()
        self._clock = clock
        self.cost = CostModel()
        self.queue = BatchQueue(max_units, max_items, self.cost, clock, self._observer)
        self._wake = threading.Condition(threading.Lock())
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._async = inspect.iscoroutinefunction(function)
        self._thread = None if self._async else threading.Thread(target=self._work, name=f"batch-{name}", daemon=True)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        if self._thread is not None:
            self._thread.start()

    async def submit(
        self, value: Any, *, units: int, key: object, deadline: float, gone: Callable[[], bool] = lambda: False
    ) -> Any:
        """Put one value into the queue and wait for its own result.

        Raises:
            ServiceUnavailable: queue full, or no answer possible in time.
            DeadlineExceeded: the deadline passed in the queue.
            Exception: what the function raised for this very value.
        """
        assert self._loop is not None, "start() comes first"
        future: asyncio.Future[Any] = self._loop.create_future()
        entry = Entry(value, units, key, deadline, lambda: future.done() or gone(), self._settler(future))
        with self._wake:
            if self._closed:
                raise ServiceUnavailable("the service is shutting down", retry_after=1.0)
            self.queue.put(entry)
            self._wake.notify()
        if self._async and self._task is None:
            # a context of its own, so that nothing of this request is seen by the batches of others
            self._task = contextvars.Context().run(self._loop.create_task, self._work_async())
        return await future

    def close(self) -> None:
        """Stop after the batch in flight; what still waits is answered with 503."""
        with self._wake:
            self._closed = True
            left = self.queue.drain()
            self._wake.notify_all()
        for entry in left:
            entry.settle(None, ServiceUnavailable("the service is shutting down", retry_after=1.0))

    def _settler(self, future: asyncio.Future[Any]) -> Callable[[Any, BaseException | None], None]:
        loop = self._loop
        assert loop is not None

        def deliver(result: Any, error: BaseException | None) -> None:
            if future.done():  # a cancelled caller is nobody else's concern
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def settle(result: Any, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(deliver, result, error)
            except RuntimeError:
                _log.debug("an answer came after its event loop was closed")

        return settle

    def _work(self) -> None:
        while True:
            with self._wake:
                batch = self.queue.take()
                while not batch:
                    if self._closed:
                        return
                    self._wake.wait()
                    batch = self.queue.take()
            self._execute(batch)

    async def _work_async(self) -> None:
        try:
            while True:
                with self._wake:
                    batch = self.queue.take()
                if not batch:
                    return
                await self._execute_async(batch)
        finally:
            self._task = None

    def _execute(self, batch: list[Entry]) -> None:
        started = self._clock()
        try:
            results = contextvars.Context().run(self._function, [entry.value for entry in batch])
            self._finish(batch, results, started)
        except BaseException as error:  # the executor outlives whatever a model raises
            for half in self._after_failure(batch, error):
                self._execute(half)

    async def _execute_async(self, batch: list[Entry]) -> None:
        started = self._clock()
        try:
            self._finish(batch, await self._function([entry.value for entry in batch]), started)
        except asyncio.CancelledError:
            for entry in batch:
                entry.settle(None, ServiceUnavailable("the batch was cancelled", retry_after=1.0))
            raise
        except BaseException as error:
            for half in self._after_failure(batch, error):
                await self._execute_async(half)

    def _finish(self, batch: list[Entry], results: Any, started: float) -> None:
        seconds, units = self._clock() - started, sum(entry.units for entry in batch)
        if len(results) != len(batch):
            raise InvalidOutput(f"{len(results)} results for {len(batch)} items")
        self.cost.observe(units, seconds)
        self._observer.executed(units, seconds)
        for entry, result in zip(batch, results, strict=True):
            entry.settle(result, None)

    def _after_failure(self, batch: list[Entry], error: BaseException) -> list[list[Entry]]:
        """Halve a failed batch, so that a bad item fails alone. A batch of one gets its error."""
        if len(batch) == 1:
            # a future cannot carry StopIteration, and what ends a process must not end the event loop
            harmless = isinstance(error, Exception) and not isinstance(error, StopIteration)
            batch[0].settle(None, error if harmless else RuntimeError(f"{type(error).__name__}: {error}"))
            return []
        middle, now = len(batch) // 2, self._clock()
        halves = []
        for half in (batch[:middle], batch[middle:]):
            for entry in half:
                if entry.deadline <= now:
                    entry.settle(None, DeadlineExceeded("the deadline passed while a failed batch was repeated"))
            halves.append([entry for entry in half if entry.deadline > now and not entry.gone()])
        return [half for half in halves if half]
