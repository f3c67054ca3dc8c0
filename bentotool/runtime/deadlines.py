"""How long a call may take, and whether anybody still waits for it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from bentotool.runtime.failing import harmless
from bentotool.sdk.exceptions import ClientGone, DeadlineExceeded, ServiceError

__all__ = ["Receive", "Scope", "Send", "disconnect_probe", "is_cancelled", "under_deadline"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_LOOK_S = 0.25
_TICK_S = 0.001
"""Timers of uvloop count milliseconds, and would else be early by a part of one."""


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


def is_cancelled(task: asyncio.Task[Any] | None) -> bool:
    """Whether somebody cancelled a task, which a `CancelledError` in it does not tell. Python 3.10 does not know: there
    it is taken to be so.
    """
    return sys.version_info < (3, 11) or (task is not None and task.cancelling() > 0)


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


class _Watch:
    """Cancels the task it was made in at a deadline, or soon after its caller has left."""

    def __init__(self, deadline: float, gone: Callable[[], bool]) -> None:
        self._deadline, self._gone = deadline, gone
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self.reason: type[ServiceError] | None = None
        self._wait()

    def _wait(self) -> None:
        left = max(0.0, self._deadline - time.monotonic()) + _TICK_S
        pause = left if self._gone is _never else min(left, _LOOK_S)
        self._timer = self._loop.call_later(pause, self._look)

    def _look(self) -> None:
        if time.monotonic() >= self._deadline:
            self.reason = DeadlineExceeded
        elif self._gone():
            self.reason = ClientGone
        else:
            self._wait()
            return
        if self._task is not None:
            self._task.cancel()

    def end(self) -> None:
        self._timer.cancel()

    def forgive(self) -> None:
        """The cancellation was our own."""
        if sys.version_info >= (3, 11) and self._task is not None:
            self._task.uncancel()


async def under_deadline(
    work: Coroutine[Any, Any, Any], deadline: float, seconds: float, gone: Callable[[], bool] = _never
) -> Any:
    """Await something until `deadline` (monotonic). It runs in the caller's own task, so that no task is made for it.

    Work that never has to wait is done after its first step: then no timer is made either.

    Args:
        gone: whether the caller has left, as `disconnect_probe` tells; asked now and then while the work lasts.

    Raises:
        DeadlineExceeded: the deadline passed first; `work` was cancelled.
        ClientGone: the caller left first; `work` was cancelled.
        RuntimeError: `work` raised what ends tasks or processes: a cancellation of its own making, `SystemExit`.
    """
    try:
        first = work.send(None)
    except StopIteration as end:
        return end.value
    except Exception:
        raise
    except BaseException as error:
        raise harmless(error) from error
    watch = _Watch(deadline, gone)
    try:
        return await _Rest(work, first)
    except asyncio.CancelledError as error:
        if watch.reason is None:
            if is_cancelled(asyncio.current_task()):
                raise
            raise harmless(error) from None
        watch.forgive()
        if watch.reason is ClientGone:
            raise ClientGone("the client went away before its answer was there") from None
        raise DeadlineExceeded(f"no answer within {seconds:g} seconds") from None
    except (Exception, GeneratorExit):
        raise
    except BaseException as error:
        raise harmless(error) from error
    finally:
        watch.end()
