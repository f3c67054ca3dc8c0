"""A bounded set of threads for synchronous calls."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from bentotool.sdk.exceptions import ClientGone, ServiceUnavailable

__all__ = ["Lane"]


def _deliver(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


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
        self, call: Callable[[], Any], *, deadline: float | None = None, gone: Callable[[], bool] = lambda: False
    ) -> Any:
        """Run a call in a thread, with the caller's context variables.

        Raises:
            ServiceUnavailable: too many calls wait.
        """
        if self._calls.qsize() >= self._max_waiting:
            raise ServiceUnavailable("the service is overloaded: too many calls wait for a thread", retry_after=1.0)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            result: Any = None
            failure: Exception | None = None
            try:
                if future.done() or (deadline is not None and time.monotonic() >= deadline):
                    return  # the caller's own timer answers
                if gone():
                    raise ClientGone("the client went away before its call was started")
                result = context.run(call)
            except StopIteration as error:  # a future cannot carry it
                failure = RuntimeError(f"StopIteration: {error}")
            except BaseException as error:
                failure = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
            try:
                loop.call_soon_threadsafe(_deliver, future, result, failure)
            except RuntimeError:
                return  # the loop is closed: nobody waits

        self._calls.put(work)
        self._grow()
        return await future

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
