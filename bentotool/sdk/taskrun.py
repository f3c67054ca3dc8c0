"""A run of a submitted task, as the code that is run sees it."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

from bentotool.sdk.exceptions import ServiceError

__all__ = ["TaskCanceled", "TaskRun", "current_task"]


class TaskCanceled(ServiceError):
    """Raised by `TaskRun.check` in a task that somebody cancelled."""

    code = "task_canceled"
    http_status = 499


class TaskRun:
    """One run of a task, as its code sees it: ``ctx.task``. All of it may be used from any thread.

    Attributes:
        id: of the task.
        attempt: 1 for the first run.
    """

    def __init__(self, id_: str, attempt: int, tell: Callable[[float | None, str | None], None]) -> None:
        self.id, self.attempt = id_, attempt
        self._tell, self._canceled = tell, threading.Event()

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Say how far the task is, for whoever asks for its status.

        Args:
            fraction: of the work that is done, from 0 to 1.
            message: one short line.
        """
        if fraction is not None:
            fraction = min(1.0, max(0.0, float(fraction)))
        self._tell(fraction, None if message is None else str(message)[:1000])

    @property
    def canceled(self) -> bool:
        """Whether nobody wants the result any more: cancelled, or another worker has taken the task over."""
        return self._canceled.is_set()

    def check(self) -> None:
        """Raises: TaskCanceled: the task was cancelled."""
        if self._canceled.is_set():
            raise TaskCanceled(f"task {self.id} was cancelled")

    def cancel(self) -> None:
        """Set the flag. The runtime does this; asking for it from outside is ``PUT /<task>/cancel``."""
        self._canceled.set()


_current: contextvars.ContextVar[TaskRun | None] = contextvars.ContextVar("bentotool_task", default=None)


def current_task() -> TaskRun | None:
    """The run that this code belongs to; None in a call that was not submitted."""
    return _current.get()


def enter(run: TaskRun) -> None:
    """Make `run` the current one in this context. For the runtime."""
    _current.set(run)
