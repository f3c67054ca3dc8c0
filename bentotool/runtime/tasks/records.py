"""What a store of tasks is given, gives back and promises. Plugins that bring another store implement `TaskStore`.

The states are those of BentoML's wire: ``pending``, ``in_progress``, ``completed``, ``failed``, ``canceled``. Times are
seconds since 1970 (`time.time`), because several processes compare them, and they outlive all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

__all__ = [
    "CANCELED",
    "COMPLETED",
    "ENDED",
    "FAILED",
    "IN_PROGRESS",
    "MAX_LOSSES",
    "PENDING",
    "Claim",
    "Message",
    "NewTask",
    "QueueFull",
    "TaskConflict",
    "TaskRecord",
    "TaskStore",
]

PENDING, IN_PROGRESS, COMPLETED, FAILED, CANCELED = "pending", "in_progress", "completed", "failed", "canceled"
ENDED = (COMPLETED, FAILED, CANCELED)
MAX_LOSSES = 3
"""Workers that may die while they run a task, before the task is given up."""


class QueueFull(Exception):
    """As many tasks wait as may; `waiting` is their number."""

    def __init__(self, waiting: int) -> None:
        super().__init__(waiting)
        self.waiting = waiting


class TaskConflict(Exception):
    """The idempotency key belongs to a task with another input."""


@dataclass(frozen=True)
class Message:
    """A request or an answer in the form in which it travels, so that nothing has to be pickled.

    Attributes:
        headers: names in lower case.
        status: of an answer; 0 for a request.
        query: query string of a request.
    """

    headers: Mapping[str, str]
    body: bytes
    status: int = 0
    query: str = ""


@dataclass(frozen=True)
class NewTask:
    """A task to be put into the queue.

    Attributes:
        id: made by the caller: 32 hexadecimal digits.
        key: idempotency key; two submissions with the same name and key are one task.
        ttl: seconds for which the task is kept once it has ended.
        max_waiting: pending tasks of this name, above which this one is refused.
    """

    id: str
    name: str
    request: Message
    priority: int = 0
    key: str | None = None
    ttl: float = 86_400.0
    max_waiting: int = 10_000


@dataclass(frozen=True)
class TaskRecord:
    """How a task stands, without its input and result.

    Attributes:
        attempt: runs so far, the present one included.
        progress: from 0 to 1, where the task told.
    """

    id: str
    name: str
    state: str
    priority: int
    created: float
    started: float | None
    finished: float | None
    attempt: int
    progress: float | None
    message: str | None


@dataclass(frozen=True)
class Claim:
    """A task that this worker shall run now."""

    id: str
    name: str
    attempt: int
    request: Message


class TaskStore(Protocol):
    """A queue that many processes share. `bentotool.testing.check_task_store` tests one.

    One thread of a process calls it, never two. A method that cannot be done now raises, and is called again later:
    nothing is half done then. Each method is atomic, and what `submit` has returned survives the
    death of every process. `owner` is a text that names one worker; a call for a task that the worker does not own any
    more changes nothing and gives False: that is how each task gets one result, however often it ran.
    """

    def submit(self, tasks: Sequence[NewTask]) -> list[TaskRecord | QueueFull | TaskConflict]:
        """Put tasks into the queue, each on its own; give for each the record (an older one's, for a known key)."""

    def claim(self, name: str, owner: str, limit: int, lease: float) -> list[Claim]:
        """Take pending tasks that are due, highest priority first, then oldest, for `lease` seconds."""

    def renew(self, owner: str, ids: Sequence[str], lease: float) -> set[str]:
        """Hold these for `lease` more seconds; give the ids that are still this worker's."""

    def owned(self, owner: str) -> set[str]:
        """The ids that are still this worker's. Called often; no write."""

    def tell(self, id_: str, owner: str, progress: float | None, message: str | None) -> bool:
        """Record progress; None leaves what is there."""

    def finish(self, id_: str, owner: str, state: str, answer: Message) -> bool:
        """Record the one result: ``completed`` or ``failed``."""

    def give_back(self, id_: str, owner: str, delay: float | None) -> bool:
        """Make a task pending again: in `delay` seconds after a failed run; None: the run does not count."""

    def reclaim(self, owners: str) -> int:
        """Make pending what workers hold whose names start with `owners`, known to be dead; give their number."""

    def reap(self, answer: Message) -> int:
        """Make pending what dead workers held: their leases passed. `answer` ends a task that kills its workers."""

    def cancel(self, name: str, id_: str) -> TaskRecord | None:
        """Make a task ``canceled`` unless it has ended; give its record, None where there is none."""

    def get(self, name: str, id_: str) -> TaskRecord | None:
        """How a task stands."""

    def answer(self, id_: str) -> Message | None:
        """The result of a task that has one."""

    def request(self, id_: str) -> Message | None:
        """The input of a task."""

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Number of tasks by name and state, for those not yet ended."""

    def purge(self) -> int:
        """Remove what has expired; give the number of tasks."""

    def close(self) -> None:
        """Let go of files and connections."""
