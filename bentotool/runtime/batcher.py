"""The executor of the adaptive batcher: runs what its queue gives, in a thread or a task, and hands out the answers.

Nothing polls: the executor sleeps on a condition and is woken by an arrival. It fetches its next batch by itself as
soon as it is free, without a way over the event loop. What it has settled reaches the loop in one piece, with one
wake-up per batch.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import itertools
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bentotool.runtime.batchqueue import BatchQueue, Entry, Observer, Policy, is_gone
from bentotool.runtime.costmodel import CostModel
from bentotool.runtime.failing import harmless
from bentotool.runtime.outbox import Answer, Outbox
from bentotool.sdk.exceptions import DeadlineExceeded, InvalidOutput, ServiceUnavailable

__all__ = ["Answer", "Batcher", "Observer"]

_log = logging.getLogger("bentotool.batcher")


class _Patience:
    """Ends the waiting of those whose deadline passes, or whose caller leaves, while their batch runs.

    One timer for all, so that a request costs no timer of its own. What is asked too late by `_GRAIN_S` at most.
    """

    _GRAIN_S = 0.005
    _LOOK_S = 0.25

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float], ended: Callable[[], None]) -> None:
        self._loop, self._clock, self._ended = loop, clock, ended
        self._entries: set[Entry] = set()
        self._next = math.inf

    def add(self, entry: Entry) -> None:
        self._entries.add(entry)
        if entry.deadline < self._next:
            self._plan(entry.deadline)

    def remove(self, entry: Entry) -> None:
        self._entries.discard(entry)

    def _plan(self, first: float) -> None:
        """Look at `first`, or soon; never later than was planned before."""
        now = self._clock()
        planned = max(now + self._GRAIN_S, min(first, now + self._LOOK_S))
        if planned < self._next:
            self._next = planned
            self._loop.call_later(planned - now, self._look, planned)

    def _look(self, planned: float) -> None:
        if planned != self._next:
            return  # an earlier look was planned since
        self._next, now = math.inf, self._clock()
        over = [entry for entry in self._entries if entry.deadline <= now or entry.gone()]
        for entry in over:
            self._entries.discard(entry)
            if not is_gone(entry):
                entry.settle(None, DeadlineExceeded("the deadline passed before there was an answer"))
        if over:
            self._ended()
        if self._entries:
            self._plan(min(entry.deadline for entry in self._entries))


class Batcher:
    """Runs one batchable function on what its queue gives.

    Args:
        function: values → one result per value. Called with at most `max_units` units of one key; a plain function runs
            in a thread of the batcher's own, an ``async def`` one in a task on the loop.
        max_units: see `BatchQueue`.
        max_items: see `BatchQueue`.
        policy: makes the queue; takes what `BatchQueue` takes.
    """

    _LAG_KEPT = 0.9

    def __init__(
        self,
        function: Callable[[Sequence[Any]], Any],
        *,
        name: str,
        max_units: int,
        max_items: int = 1000,
        clock: Callable[[], float] = time.monotonic,
        observer: Observer | None = None,
        policy: Callable[..., Policy] = BatchQueue,
    ) -> None:
        self._function = function
        self._observer = observer or Observer()
        self._clock = clock
        self.cost = CostModel()
        self.queue = policy(max_units, max_items, self.cost, clock, self._observer)
        self._lock = threading.Lock()
        self._asleep = False
        self._alarm: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._closed = False
        self._lag = self._lag_spread = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._outbox: Outbox | None = None
        self._patience: _Patience | None = None
        self._async = inspect.iscoroutinefunction(function)
        self._thread = None if self._async else threading.Thread(target=self._work, name=f"batch-{name}", daemon=True)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve, on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._loop, self._clock, self._note_lag)
        self._patience = _Patience(self._loop, self._clock, self._outbox.send)
        if self._thread is not None:
            self._thread.start()

    def admit(self, deadline: float) -> None:
        """Refuse a request before its body is read. Raises: ServiceUnavailable: no answer would be in time."""
        with self._lock:
            self.queue.admit(deadline)

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

        def answer(result: Any, error: BaseException | None) -> None:
            if future.done():  # a cancelled caller is nobody else's concern
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        entry = self.put(
            value, units=units, key=key, deadline=deadline, gone=lambda: future.done() or gone(), answer=answer
        )
        try:
            return await future
        finally:
            self.forget(entry)

    def put(
        self,
        value: Any,
        *,
        units: int,
        key: object,
        deadline: float,
        gone: Callable[[], bool],
        answer: Answer,
        wake: bool = True,
    ) -> Entry:
        """Put one value into the queue, as `submit` does, for a caller who does not wait.

        Args:
            gone: also told once there was an answer.
            wake: False where there are others to come at once, after which `wake` is called.
            answer: called on the event loop, more than once where the first answer was that the deadline had passed;
                `forget` comes with the first.

        Raises:
            ServiceUnavailable: queue full, or no answer possible in time.
        """
        outbox, patience = self._outbox, self._patience
        assert outbox is not None, "start() comes first"
        assert patience is not None
        entry = Entry(value, units, key, deadline, gone, outbox.settler(answer), answer, self._observer.origin())
        with self._lock:
            if self._closed:
                raise ServiceUnavailable("the service is shutting down", retry_after=1.0)
            self.queue.put(entry)
        if wake:
            self.wake()
        if self._async and self._task is None:
            assert self._loop is not None
            self._task = contextvars.Context().run(self._loop.create_task, self._work_async())
        patience.add(entry)
        return entry

    def wake(self) -> None:
        """Wake the executor, if it sleeps."""
        with self._lock:
            asleep, self._asleep = self._asleep, False
        if asleep:
            self._alarm.put(None)

    def deliver(self) -> None:
        """Hand out the answers that are there. On the loop, amid long work, so that they need not wait for its end."""
        if self._outbox is not None and self._outbox.ready:
            self._outbox.deliver()

    def forget(self, entry: Entry) -> None:
        """Nobody's patience with it can end any more: it has its answer."""
        if self._patience is not None:
            self._patience.remove(entry)

    def close(self) -> None:
        """Stop after the batch in flight; what still waits is answered with 503."""
        with self._lock:
            self._closed = True
            left = self.queue.drain()
        self._alarm.put(None)
        for entry in left:
            entry.settle(None, ServiceUnavailable("the service is shutting down", retry_after=1.0))
        self._send()

    def _send(self) -> None:
        if self._outbox is not None:
            self._outbox.send()

    def _note_lag(self, seconds: float) -> None:
        """The lag that most answers keep: the mean and twice the mean deviation, both of late."""
        kept, new = self._LAG_KEPT, 1 - self._LAG_KEPT
        self._lag_spread = kept * self._lag_spread + new * abs(seconds - self._lag)
        self._lag = kept * self._lag + new * seconds
        self.queue.lag = self._lag + 2 * self._lag_spread

    def _work(self) -> None:
        while self._work_once():  # a function of its own, so that nothing holds a batch while the next one is awaited
            pass

    def _work_once(self) -> bool:
        with self._lock:
            batch = self._take()
            self._asleep = not batch and not self._closed
            if self._asleep:
                self.queue.lag = self._lag = self._lag_spread = 0.0  # a loop that gives nothing to do is not behind
            if not batch and self._closed:
                return False
        if batch:
            try:
                self._execute(batch)
            except BaseException as error:
                self._fail(batch, error)
        else:
            self._alarm.get()
        return True

    async def _work_async(self) -> None:
        try:
            while await self._work_once_async():
                pass
        except asyncio.CancelledError:
            self._give_up(self._drained())
            raise
        finally:
            self._task = None
            self._send()

    async def _work_once_async(self) -> bool:
        with self._lock:
            batch = self._take()
        try:
            if batch:
                await self._execute_async(batch)
        except Exception as error:
            self._fail(batch, error)
        return bool(batch)

    def _take(self) -> list[Entry]:
        try:
            return list(self.queue.take())
        except BaseException as error:  # a policy that is not ours; the executor outlives it
            _log.exception("the batch policy failed")
            for entry in self._drained():
                entry.settle(None, harmless(error))
            return []
        finally:
            self._send()  # what was settled before, and what was given up now

    def _drained(self) -> list[Entry]:
        """What waited. Where a policy fails at this too, those who wait are answered at their deadlines."""
        try:
            return self.queue.drain()
        except BaseException:
            _log.exception("the batch policy failed")
            return []

    def _fail(self, batch: list[Entry], error: BaseException) -> None:
        """Something that is neither the model's fault nor the policy's own; the executor outlives that too."""
        _log.error("a batch could not be run", exc_info=error)
        for entry in batch:
            if isinstance(entry, Entry):  # a policy may give anything
                entry.settle(None, harmless(error))

    def _execute(self, batch: list[Entry]) -> None:
        parts = [batch]
        while parts:
            part = parts.pop()
            started = self._begin(part)
            try:
                results = contextvars.Context().run(self._run, part)
                self._finish(part, results, started)
            except BaseException as error:  # the executor outlives whatever a model raises
                parts += self._after_failure(part, error)

    def _run(self, batch: list[Entry]) -> Any:
        with self._observer.running(batch):
            return self._function([entry.value for entry in batch])

    async def _execute_async(self, batch: list[Entry]) -> None:
        assert self._loop is not None
        parts = [batch]
        while parts:
            part = parts.pop()
            started = self._begin(part)
            # a task and a context for each, so that neither a cancel scope nor a variable of one batch meets another's
            running = contextvars.Context().run(self._loop.create_task, self._run_async(part))
            try:
                await asyncio.wait((running,))
            except asyncio.CancelledError:  # of ourselves; what the model makes of its own comes out below
                running.add_done_callback(_heard)
                running.cancel()
                self._give_up([*part, *itertools.chain.from_iterable(parts)])
                raise
            try:
                self._finish(part, running.result(), started)
            except BaseException as error:
                parts += self._after_failure(part, error)

    async def _run_async(self, batch: list[Entry]) -> Any:
        try:
            with self._observer.running(batch):
                return await self._function([entry.value for entry in batch])
        except (SystemExit, KeyboardInterrupt) as error:  # these end the event loop when they leave a task
            raise harmless(error) from error

    @staticmethod
    def _give_up(entries: Sequence[Entry]) -> None:
        for entry in entries:
            entry.settle(None, ServiceUnavailable("the batch was cancelled", retry_after=1.0))

    def _begin(self, batch: list[Entry]) -> float:
        """When it starts to run."""
        now = self._clock()
        self._tell(partial(self._observer.waited, [now - entry.arrived for entry in batch]))
        return now

    def _tell(self, report: Callable[[], None]) -> None:
        if self._outbox is not None:
            self._outbox.tell(report)

    def _finish(self, batch: list[Entry], results: Any, started: float) -> None:
        seconds, units = self._clock() - started, sum(entry.units for entry in batch)
        if len(results) != len(batch):
            raise InvalidOutput(f"{len(results)} results for {len(batch)} items")
        self.cost.observe(units, seconds)
        self._tell(partial(self._observer.executed, units, seconds))
        assert self._outbox is not None
        self._outbox.hand_over(batch, list(results))

    def _after_failure(self, batch: list[Entry], error: BaseException) -> list[list[Entry]]:
        """Halve a failed batch, so that a bad item fails alone; the more urgent half comes last. One alone gets it."""
        if len(batch) == 1:
            batch[0].settle(None, harmless(error))
            return []
        middle, now = len(batch) // 2, self._clock()
        halves = []
        for half in (batch[middle:], batch[:middle]):
            again = [entry for entry in half if not is_gone(entry)]
            for entry in again:
                if entry.deadline <= now:
                    entry.settle(None, DeadlineExceeded("the deadline passed while a failed batch was repeated"))
            halves.append([entry for entry in again if entry.deadline > now])
        return [half for half in halves if half]


def _heard(task: asyncio.Task[Any]) -> None:
    """Nobody asks for its result any more."""
    if not task.cancelled():
        task.exception()
