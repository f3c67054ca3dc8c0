"""The thread that talks to the store: no other does, so that a slow disk never holds the event loop up.

It also keeps the leases of what this worker runs. Being a thread of its own, it does so while the loop is busy.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from bentotool.runtime.tasks.records import Message, NewTask, QueueFull, TaskConflict, TaskRecord, TaskStore

__all__ = ["Clerk"]

T = TypeVar("T")
_log = logging.getLogger("bentotool.tasks")
_LOOK = 0.25
"""Seconds between two looks at whether what runs here is still wanted."""
_TIDY = 60.0
_JUMP = 2.0
"""Seconds that the clock may run apart from the steady one between two looks, before it counts as moved."""
_BATCH = 256
_Deliver = Callable[[Any, "BaseException | None"], None]


class Clerk:
    """Does what the event loop asks for, in order, and submits together what was submitted at the same time.

    Args:
        open_store: called in the thread.
        owner: this worker's name.
        lease: seconds for which a task is this worker's without a renewal.
        lost_answer: the result of a task that killed its workers.
    """

    def __init__(self, open_store: Callable[[], TaskStore], owner: str, lease: float, lost_answer: Message) -> None:
        self._open, self._owner, self._lease, self._lost_answer = open_store, owner, lease, lost_answer
        self._jobs: queue.SimpleQueue[tuple[Any, _Deliver] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_lost: Callable[[set[str]], None] = lambda _ids: None
        self.running: set[str] = set()
        self._wall, self._steady, self._reap_from = time.time(), time.monotonic(), 0.0

    async def start(self, on_lost: Callable[[set[str]], None]) -> None:
        """Open the store.

        Args:
            on_lost: called in the event loop with ids of `running` that are not this worker's any more.

        Raises:
            BentotoolError: the store cannot be opened.
        """
        self._loop, self._on_lost = asyncio.get_running_loop(), on_lost
        opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, args=(self._delivery(opened),), name="tasks", daemon=True)
        self._thread.start()
        await opened

    def _delivery(self, future: asyncio.Future[Any]) -> _Deliver:
        loop = self._loop
        assert loop is not None

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        def deliver(result: Any, error: BaseException | None) -> None:
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                return  # the loop is closed: nobody waits

        return deliver

    async def ask(self, question: Callable[[TaskStore], T]) -> T:
        """Have something done in the thread; give its result, or raise what it raised."""
        assert self._loop is not None
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((question, self._delivery(future)))
        return await future

    def note(self, statement: Callable[[TaskStore], object]) -> None:
        """Have something done, from any thread, without waiting for it."""

        def deliver(_result: Any, error: BaseException | None) -> None:
            if error is not None:
                _log.error("a note of a task's progress failed: %s", error)

        self._jobs.put((statement, deliver))

    async def submit(self, task: NewTask) -> TaskRecord | QueueFull | TaskConflict:
        """Put a task into the queue; see `TaskStore.submit`."""
        assert self._loop is not None
        future: asyncio.Future[TaskRecord | QueueFull | TaskConflict] = self._loop.create_future()
        self._jobs.put((task, self._delivery(future)))
        return await future

    async def stop(self) -> None:
        """Finish what was asked for, and close the store."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join, 10.0)
            self._thread = None

    def _work(self, opened: _Deliver) -> None:
        try:
            store = self._open()
        except BaseException as error:
            opened(None, error)
            return
        opened(None, None)
        look, renewed, tidied = 0.0, time.monotonic(), 0.0
        try:
            while True:
                jobs, last = self._next_jobs()
                self._do(store, jobs)
                if last:
                    return
                now = time.monotonic()
                if now - look >= _LOOK:
                    look = now
                    renewing = self._clock_moved() or now - renewed >= self._lease / 3
                    renewed = now if renewing else renewed
                    self._attend(store, renewing)
                if now - tidied >= _TIDY:
                    tidied = now
                    self._quietly(store.purge)
        finally:
            store.close()

    def _next_jobs(self) -> tuple[list[tuple[Any, _Deliver]], bool]:
        """What waits, and whether it is the last."""
        jobs: list[tuple[Any, _Deliver]] = []
        try:
            job = self._jobs.get(timeout=_LOOK)
            while job is not None:
                jobs.append(job)
                if len(jobs) >= _BATCH:
                    return jobs, False
                job = self._jobs.get_nowait()
        except queue.Empty:
            return jobs, False
        return jobs, True

    @staticmethod
    def _do(store: TaskStore, jobs: list[tuple[Any, _Deliver]]) -> None:
        submitted = [(job, deliver) for job, deliver in jobs if isinstance(job, NewTask)]
        if submitted:
            try:
                outcomes = store.submit([job for job, _ in submitted])
            except Exception as error:
                for _, deliver in submitted:
                    deliver(None, error)
            else:
                for (_, deliver), outcome in zip(submitted, outcomes, strict=True):
                    deliver(outcome, None)
        for job, deliver in jobs:
            if isinstance(job, NewTask):
                continue
            try:
                result = job(store)
            except Exception as error:
                deliver(None, error)
            else:
                deliver(result, None)

    def _clock_moved(self) -> bool:
        """Whether somebody set the clock, or the machine slept: then leases look older or younger than they are.

        For a while nothing is taken from other workers, who notice too and renew theirs.
        """
        wall, steady = time.time(), time.monotonic()
        apart = (wall - self._wall) - (steady - self._steady)
        self._wall, self._steady = wall, steady
        if abs(apart) < _JUMP:
            return False
        _log.warning("the clock was moved by %.0f seconds", apart)
        self._reap_from = steady + max(_JUMP, self._lease / 3)
        return True

    def _attend(self, store: TaskStore, renewing: bool) -> None:
        """Hold the leases; notice what was taken from this worker."""
        running = set(self.running)
        if running:
            owned = functools.partial(store.renew, self._owner, sorted(running), self._lease) if renewing else None
            mine = self._quietly(owned or functools.partial(store.owned, self._owner))
            if mine is not None and running - mine and self._loop is not None:
                try:
                    self._loop.call_soon_threadsafe(self._on_lost, running - mine)
                except RuntimeError:
                    return
        if time.monotonic() >= self._reap_from:
            self._quietly(functools.partial(store.reap, self._lost_answer))

    @staticmethod
    def _quietly(work: Callable[[], T]) -> T | None:
        """A store that does not answer now may do so later: the thread goes on."""
        try:
            return work()
        except Exception as error:
            _log.warning("the store of the tasks does not answer: %s", error)
            return None
