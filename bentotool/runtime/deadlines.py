"""How long a call may take, and whether anybody still waits for it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from bentotool.sdk.exceptions import DeadlineExceeded

__all__ = ["Receive", "Scope", "Send", "disconnect_probe", "under_deadline"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def _never() -> bool:
    return False


def disconnect_probe(receive: Receive) -> Callable[[], bool]:
    """A cheap question whether the client is still there.

    The request cycle of uvicorn, whose bound method `receive` is, has a flag; asking it costs nothing, where ASGI's own
    way needs a task per request that waits for ``http.disconnect``. Other servers have no such flag: nobody leaves.
    """
    cycle: Any = getattr(receive, "__self__", None)
    if not hasattr(cycle, "disconnected"):
        return _never
    return lambda: bool(cycle.disconnected)


class _Rest:
    """What is left of a coroutine after its first step, as something to await."""

    __slots__ = ("_coroutine", "_first")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: Any) -> None:
        self._coroutine, self._first = coroutine, first

    def __await__(self) -> Generator[Any, Any, Any]:
        waiting_for = self._first
        try:
            while True:
                try:
                    sent = yield waiting_for
                except BaseException as error:
                    waiting_for = self._coroutine.throw(error)
                else:
                    waiting_for = self._coroutine.send(sent)
        except StopIteration as end:
            return end.value


async def under_deadline(work: Coroutine[Any, Any, Any], deadline: float, seconds: float) -> Any:
    """Await something until `deadline` (monotonic). It runs in the caller's own task, so that no task is made for it.

    Work that never has to wait is done after its first step: then no timer is made either.

    Raises:
        DeadlineExceeded: the deadline passed first; `work` was cancelled.
    """
    try:
        first = work.send(None)
    except StopIteration as end:
        return end.value
    loop, task, fired = asyncio.get_running_loop(), asyncio.current_task(), False

    def expire() -> None:
        nonlocal fired
        fired = True
        if task is not None:
            task.cancel()

    timer = loop.call_later(max(0.0, deadline - time.monotonic()), expire)
    try:
        return await _Rest(work, first)
    except asyncio.CancelledError:
        if not fired:
            raise
        if sys.version_info >= (3, 11) and task is not None:
            task.uncancel()
        raise DeadlineExceeded(f"no answer within {seconds:g} seconds") from None
    finally:
        timer.cancel()
