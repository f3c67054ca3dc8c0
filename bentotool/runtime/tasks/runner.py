"""The side of a worker that runs tasks: takes them from the store as places become free, records what came of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from bentotool.runtime.endpoint import Endpoint
from bentotool.runtime.tasks.clerk import Clerk
from bentotool.runtime.tasks.places import find_store
from bentotool.runtime.tasks.records import COMPLETED, FAILED, MAX_LOSSES, Claim, Message
from bentotool.runtime.tasks.replay import Backstage, CountingLane, Replay
from bentotool.sdk.signature import MethodSpec
from bentotool.sdk.task import TaskOptions
from bentotool.sdk.taskrun import TaskRun, enter

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["TaskRunner"]

_log = logging.getLogger("bentotool.tasks")
_POLL = 0.5
"""Seconds between two looks for tasks that another worker took in."""
_TELL = 0.25
_LEASE = 30.0
_FOREVER = 10.0 * 365 * 86_400
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_MARGIN = 1.0
"""Seconds of the grace kept for giving back what did not end."""


def _owner() -> tuple[str, str]:
    """This worker's name, and how those of its predecessors start; that is empty without a supervisor."""
    slot = os.environ.get("BENTOTOOL_WORKER_SLOT")
    try:
        space = os.readlink("/proc/self/ns/pid")  # two containers may have the same name and the same process ids
    except OSError:
        space = ""
    place = f"{socket.gethostname()}/{space}/{os.getppid()}/{slot}/"
    return place + secrets.token_hex(6), place if slot is not None else ""


def _lost_answer() -> Message:
    message = f"given up: {MAX_LOSSES} workers died, or hung, while they ran this task"
    body = msgspec.json.encode({"error": {"code": "task_lost", "message": message, "hint": None}})
    return Message({"content-type": "application/json"}, body, 500)


class _Kind:
    """One task of the service, in this worker."""

    def __init__(self, spec: MethodSpec, app: Application) -> None:
        assert isinstance(spec.options, TaskOptions)
        self.spec, self.options = spec, spec.options
        self.lane = CountingLane(spec.options.parallel)
        unlimited = replace(spec, options=replace(spec.options, concurrency=None))  # that is for direct calls
        self.endpoint = Endpoint(unlimited, Backstage(app, self.lane))  # type: ignore[arg-type]
        self.endpoint.timeout = spec.options.timeout or _FOREVER
        self.path = app.service.path_prefix + spec.route
        self.active: dict[str, _Run] = {}

    @property
    def free(self) -> int:
        """How many more may run."""
        return self.options.parallel - max(len(self.active), self.lane.busy)


class _Run:
    """One run of one task."""

    def __init__(self, claim: Claim, kind: _Kind, clerk: Clerk, owner: str) -> None:
        self.claim, self.kind = claim, kind
        self._clerk, self._owner = clerk, owner
        self._told = 0.0
        self.run = TaskRun(claim.id, claim.attempt, self._tell)
        self.work: asyncio.Task[None] | None = None
        self.ended = False

    def _tell(self, fraction: float | None, message: str | None) -> None:
        now = time.monotonic()
        if now - self._told < _TELL and fraction not in (0.0, 1.0) and message is None:
            return
        self._told = now
        id_, owner = self.claim.id, self._owner
        self._clerk.note(lambda store: store.tell(id_, owner, fraction, message))

    def cancel(self, *, anyway: bool = False) -> None:
        """Tell the code, and stop it where that is possible: a thread cannot be stopped, so it keeps its place."""
        self.run.cancel()
        if self.work is not None and not self.ended and (anyway or self.kind.spec.kind != "sync"):
            self.work.cancel()


class TaskRunner:
    """The tasks of a service, in one worker.

    Args:
        app: the application; its service has tasks.
        specs: them, by name.
    """

    def __init__(self, app: Application, specs: Mapping[str, MethodSpec]) -> None:
        self.app = app
        self._kinds = {name: _Kind(spec, app) for name, spec in specs.items()}
        self.owner, self._predecessors = _owner()
        options = app.service.config.options.get("tasks") or {}
        self._lease = float(options.get("lease", _LEASE))
        self.clerk = Clerk(find_store(app.service), self.owner, self._lease, _lost_answer())
        self.metrics = None
        if app.metrics is not None:
            from bentotool.runtime.tasks.metrics import TaskMetrics

            self.metrics = TaskMetrics(app.metrics.registry, app.service.config.metrics_namespace, list(specs))
        self._wake = asyncio.Event()
        self._tending: asyncio.Task[None] | None = None
        self._stopping = False

    async def start(self, instance: object) -> None:
        """Open the store, and begin to run what waits.

        Raises:
            BentotoolError: the store cannot be opened.
        """
        for kind in self._kinds.values():
            kind.endpoint.bind(instance)
        await self.clerk.start(self._on_lost)
        if self._predecessors:
            await self.clerk.ask(lambda store: store.reclaim(self._predecessors))
        self._tending = asyncio.get_running_loop().create_task(self._tend())

    async def stop(self) -> None:
        """Take no more; give what runs the rest of the grace; put back what has not ended by then."""
        self._stopping = True
        self._wake.set()
        if self._tending is not None:
            await self._tending
        runs = [run for kind in self._kinds.values() for run in kind.active.values()]
        works = [run.work for run in runs if run.work is not None]
        drain_by = getattr(self.app, "drain_by", None)
        grace = 0.0 if drain_by is None else max(0.0, drain_by - time.monotonic() - _MARGIN)
        if works and grace:
            await asyncio.wait(works, timeout=grace)
        for run in runs:
            run.cancel(anyway=True)
        if works:
            await asyncio.wait(works, timeout=_MARGIN)
        await self.clerk.stop()
        for kind in self._kinds.values():
            kind.endpoint.close()
            kind.lane.close()

    def wake(self) -> None:
        """There may be something to run."""
        self._wake.set()

    def stop_run(self, name: str, id_: str) -> None:
        """A task was cancelled: stop it at once if it runs here. Elsewhere its worker notices by itself."""
        run = self._kinds[name].active.get(id_)
        if run is not None:
            run.cancel()

    async def refresh_metrics(self) -> None:
        """Count what waits, for a scrape."""
        if self.metrics is not None and self._tending is not None:
            self.metrics.waiting(await self.clerk.ask(lambda store: store.counts()))

    def _on_lost(self, ids: set[str]) -> None:
        for kind in self._kinds.values():
            for id_ in ids & set(kind.active):
                if not kind.active[id_].ended:
                    kind.active[id_].cancel()

    async def _tend(self) -> None:
        while not self._stopping:
            self._wake.clear()
            if self.app.ready:
                for kind in self._kinds.values():
                    await self._claim(kind)
            try:
                await asyncio.wait_for(self._wake.wait(), _POLL)
            except asyncio.TimeoutError:
                continue

    async def _claim(self, kind: _Kind) -> None:
        free = kind.free
        if free <= 0:
            return
        name, owner, lease = kind.spec.name, self.owner, self._lease
        try:
            claims = await self.clerk.ask(lambda store: store.claim(name, owner, free, lease))
        except Exception as error:
            _log.warning("no task could be taken from the store: %s", error)
            return
        for claim in claims:
            run = _Run(claim, kind, self.clerk, owner)
            kind.active[claim.id] = run
            self.clerk.running.add(claim.id)
            run.work = asyncio.get_running_loop().create_task(self._work(run))

    def _traced(self, claim: Claim) -> contextlib.AbstractContextManager[None]:
        """A span around a run, in the trace of the request that submitted the task."""
        tracing = self.app.tracing
        return (
            contextlib.nullcontext() if tracing is None else tracing.call(f"task {claim.name}", claim.request.headers)
        )

    async def _work(self, run: _Run) -> None:
        claim, kind = run.claim, run.kind
        started = time.monotonic()
        try:
            enter(run.run)
            replay = Replay(claim.request, kind.path, run.run)
            with self._traced(claim):
                await kind.endpoint(replay.scope, replay.receive, replay.send)
            run.ended = True
            state = await self._record(run, replay.answer)
        except asyncio.CancelledError:
            run.ended, state = True, "given back"
            await self._settle(lambda store: store.give_back(claim.id, self.owner, None))
        except Exception as error:
            _log.exception("task %s %s: its outcome could not be recorded", claim.name, claim.id)
            state = f"unrecorded: {error}"
        finally:
            kind.active.pop(claim.id, None)
            self.clerk.running.discard(claim.id)
            self._wake.set()
        seconds = time.monotonic() - started
        _log.info("task %s %s: %s after %.3f s (run %d)", claim.name, claim.id, state, seconds, claim.attempt)
        if self.metrics is not None:
            self.metrics.ran(claim.name, state, seconds)

    async def _record(self, run: _Run, answer: Message) -> str:
        """Write down what came of a run; give the task's state for the log."""
        claim, options = run.claim, run.kind.options
        failed = answer.status >= 400 or not answer.status
        if failed and answer.status not in range(400, 500) and claim.attempt <= options.retries:
            delay = min(options.retry_max_delay, options.retry_delay * 2.0 ** (claim.attempt - 1))
            delay *= random.uniform(0.9, 1.1)  # noqa: S311 - so that what failed together is not tried together
            kept = await self._settle(lambda store: store.give_back(claim.id, self.owner, delay))
            asyncio.get_running_loop().call_later(delay, self.wake)
            return f"failed, again in {delay:.1f} s" if kept else "no longer wanted"
        state = FAILED if failed else COMPLETED
        kept = await self._settle(lambda store: store.finish(claim.id, self.owner, state, answer))
        return state if kept else "no longer wanted"

    async def _settle(self, change: Any) -> bool:
        """Have a change made even while this run is being cancelled: what has ended is not run again for nothing."""
        pending = asyncio.ensure_future(self._until_made(change))
        try:
            return bool(await asyncio.shield(pending))
        except asyncio.CancelledError:
            return bool(await pending)

    async def _until_made(self, change: Any) -> Any:
        """Have a change made, again and again where the store does not answer: what was worked out is not lost."""
        wait = _FIRST_WAIT
        while True:
            try:
                return await self.clerk.ask(change)
            except (TypeError, ValueError, AttributeError):
                raise  # it would never be made
            except Exception as error:
                if self._stopping:
                    raise
                _log.warning("what came of a task cannot be recorded yet: %s", error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
