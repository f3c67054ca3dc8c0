"""A bounded set of threads for synchronous calls."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from bentotool.runtime.failing import harmless
from bentotool.sdk.exceptions import ClientGone, ServiceUnavailable

__all__ = ["Lane"]


def _nobody_counts(_difference: int) -> None: ...


class _Call:
    """One call, from the queue to its caller.

    `_begun` is set before the thread looks whether anybody waits, and read after the caller has ceased to: so a call is
    either never started, or known to run.
    """

    __slots__ = ("_begun", "_call", "_context", "_deadline", "_ended", "_future", "_gone", "_kept", "_left", "_loop")

    def __init__(
        self, call: Callable[[], Any], deadline: float | None, gone: Callable[[], bool], left: Callable[[int], None]
    ) -> None:
        self._call, self._deadline, self._gone, self._left = call, deadline, gone, left
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[Any] = self._loop.create_future()
        self._context = contextvars.copy_context()
        self._begun = self._ended = self._kept = False

    def run(self) -> None:
        """In a thread."""
        result: Any = None
        failure: Exception | None = None
        try:
            if self._deadline is not None and time.monotonic() >= self._deadline:
                return  # the caller's own timer answers
            self._begun = True
            if not self._future.done():
                if self._gone():
                    raise ClientGone("the client went away before its call was started")
                result = self._context.run(self._call)
        except BaseException as error:
            failure = harmless(error)
        try:
            self._loop.call_soon_threadsafe(self._end, result, failure)
        except RuntimeError:
            return  # the loop is closed: nobody waits

    def _end(self, result: Any, failure: Exception | None) -> None:
        self._ended = True
        if self._kept:
            self._left(-1)
        if self._future.done():
            return
        if failure is None:
            self._future.set_result(result)
        else:
            self._future.set_exception(failure)

    async def wait(self) -> Any:
        try:
            return await self._future
        except asyncio.CancelledError:
            if self._begun and not self._ended:
                self._kept = True
                self._left(1)
            raise


class Lane:
    """Runs calls in `threads` daemon threads, the others waiting in a bounded queue.

    A call that was started keeps its thread until it ends, whatever became of its caller: so no more than `threads`
    calls ever run at once. A call whose caller has gone, or whose deadline has passed, is never started.
    """

    def __init__(self, threads: int, max_waiting: int) -> None:
        self._threads, self._max_waiting = threads, max_waiting
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._started = 0
        self._idle = 0
        self._lock = threading.Lock()

    async def run(
        self,
        call: Callable[[], Any],
        *,
        deadline: float | None = None,
        gone: Callable[[], bool] = lambda: False,
        left_running: Callable[[int], None] = _nobody_counts,
    ) -> Any:
        """Run a call in a thread, with the caller's context variables.

        Args:
            left_running: is called, on the event loop, with 1 when the caller ceases to wait for a call that runs, and
                with -1 when that call has ended.

        Raises:
            ServiceUnavailable: too many calls wait.
        """
        if self._calls.qsize() >= self._max_waiting:
            raise ServiceUnavailable("the service is overloaded: too many calls wait for a thread", retry_after=1.0)
        made = _Call(call, deadline, gone, left_running)
        self._calls.put(made.run)
        self._grow()
        return await made.wait()

    def close(self) -> None:
        """Let idle threads end; a call that runs is left to itself."""
        for _ in range(self._started):
            self._calls.put(None)

    def _grow(self) -> None:
        with self._lock:
            if self._started < self._threads and self._calls.qsize() > self._idle:
                self._started += 1
                threading.Thread(target=self._work, name=f"call-{self._started}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            call = self._calls.get()
            with self._lock:
                self._idle -= 1
            if call is None:
                return
            call()
