"""A task that was submitted: asking how it is, fetching its result, cancelling it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bentotool.client.routes import Route
from bentotool.errors import RemoteError

if TYPE_CHECKING:
    from bentotool.client.asynchronous import AsyncHTTPClient
    from bentotool.client.blocking import SyncHTTPClient

__all__ = ["AsyncTask", "ResultStatus", "Task", "TaskStatus"]


class ResultStatus(enum.Enum):
    """The states of a task, by BentoML's names."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def ended(self) -> bool:
        """Whether it stays like this."""
        return self in (ResultStatus.COMPLETED, ResultStatus.FAILED, ResultStatus.CANCELED)


@dataclass(frozen=True)
class TaskStatus:
    """How a task stands.

    Attributes:
        status: one of the five.
        progress: from 0 to 1; None where the task does not tell, or the service is BentoML.
        message: what the task said last.
        attempt: runs so far.
    """

    task_id: str
    status: ResultStatus
    created_at: str | None = None
    executed_at: str | None = None
    completed_at: str | None = None
    progress: float | None = None
    message: str | None = None
    attempt: int | None = None


def read_status(document: Any) -> TaskStatus:
    """What ``GET /<task>/status`` answered.

    Raises:
        RemoteError: it is none.
    """
    try:
        known = {name: document[name] for name in TaskStatus.__dataclass_fields__ if name in document}
        return TaskStatus(**{**known, "status": ResultStatus(document["status"])})
    except (TypeError, KeyError, ValueError) as error:
        raise RemoteError(f"the status of the task cannot be read: {error}") from None


def read_id(document: Any) -> str:
    """The id in the answer to a submission. Raises: RemoteError: there is none."""
    found = document.get("task_id") if isinstance(document, Mapping) else None
    if not isinstance(found, str):
        raise RemoteError("the service did not say which task it made")
    return found


@dataclass(frozen=True)
class Task:
    """A submitted task."""

    id: str
    _route: Route
    _client: SyncHTTPClient

    def __repr__(self) -> str:
        return f"<Task {self._route.name} {self.id}>"

    def get_status(self) -> ResultStatus:
        """Its state."""
        return self.status().status

    def status(self) -> TaskStatus:
        """Its state, progress and times."""
        return self._client._task_status(self._route, self.id)

    def get(self) -> Any:
        """The result. Raises: CallError: what the task failed with; 400 when it has not ended."""
        return self._client._task_result(self._route, self.id)

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end; give the result.

        Args:
            timeout: seconds; None for as long as it takes.

        Raises:
            CallError: what the task failed with.
            RemoteError: it has not ended by then.
        """
        return self._client._task_wait(self._route, self.id, timeout)

    def cancel(self) -> None:
        """Cancel it. Raises: CallError: it has ended."""
        self._client._task_cancel(self._route, self.id)

    def retry(self) -> Task:
        """Run it anew, as another task."""
        return self._client._task_retry(self._route, self.id)


@dataclass(frozen=True)
class AsyncTask:
    """A submitted task; the same as `Task`, awaited."""

    id: str
    _route: Route
    _client: AsyncHTTPClient

    def __repr__(self) -> str:
        return f"<AsyncTask {self._route.name} {self.id}>"

    async def get_status(self) -> ResultStatus:
        """Its state."""
        return (await self.status()).status

    async def status(self) -> TaskStatus:
        """Its state, progress and times."""
        return await self._client._task_status(self._route, self.id)

    async def get(self) -> Any:
        """The result. Raises: CallError: what the task failed with; 400 when it has not ended."""
        return await self._client._task_result(self._route, self.id)

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end; give the result. See `Task.result`."""
        return await self._client._task_wait(self._route, self.id, timeout)

    async def cancel(self) -> None:
        """Cancel it. Raises: CallError: it has ended."""
        await self._client._task_cancel(self._route, self.id)

    async def retry(self) -> AsyncTask:
        """Run it anew, as another task."""
        return await self._client._task_retry(self._route, self.id)


def next_poll(wait: float) -> float:
    """The next pause between two looks at a task: short ones at first, two seconds in the end."""
    return min(2.0, wait * 1.5)
