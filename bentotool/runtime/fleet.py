"""All workers of one generation: a group for each service, restarted on their own, drained callers first.

The first worker of the entry service imports it and says what there is; where it has dependencies or asks for GPUs, the
other groups are started then, and it goes on once it knows where they are called.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from bentotool.errors import BentotoolError, NotFoundError, ServiceLoadError, UnsafeError, UsageError
from bentotool.runtime.bounds import check_parts
from bentotool.runtime.causes import Causes
from bentotool.runtime.devices import Plan, make_plan
from bentotool.runtime.meeting import Meeting, loopback_listener
from bentotool.runtime.parts import Part, part_from
from bentotool.runtime.slots import STOPPED_S, Slot
from bentotool.runtime.surroundings import Surroundings

__all__ = ["INDEX", "SLOT", "Fleet"]

SLOT = "BENTOTOOL_WORKER_SLOT"
INDEX = "BENTOTOOL_WORKER_INDEX"
_METRICS = "PROMETHEUS_MULTIPROC_DIR"
# Imported by a service itself, ONNX Runtime starts a telemetry client that writes below the home folder.
_QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
_CRASHES = 5
_CRASH_WINDOW = 60.0
_LONGEST_BACKOFF = 30.0
_HEALTHY_S = 10.0
"""Who has had answers for so long is not part of a row of failures."""
_START_ATTEMPTS = 3
_AT_ONCE = 4
"""So many processes are started at once; then whoever has something to say is heard, a signal above all."""


@dataclass
class _Group:
    """The workers of one service. The first group is the entry's."""

    name: str
    slots: list[Slot] = field(default_factory=list)
    http: socket.socket | None = None
    addresses: list[str] = field(default_factory=list)
    url: str | None = None
    draining: bool = False


class Fleet:
    """One generation.

    Attributes:
        announced: every worker has been ready.
        problem: why the server as a whole is not ready, or None.
        failure: why it cannot start, once that is certain.
        scheme: ``https`` where the entry's workers speak TLS.
    """

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._entry = _Group("")
        self.groups = [self._entry]
        self.parts: list[Part] = []
        self.plan = Plan()
        self.announced = False
        self.problem: str | None = None
        self.failure: BentotoolError | None = None
        self.service = ""
        self.scheme = "http"
        self.stopping = False
        self._leave = 0.0
        self._meeting: Meeting | None = None
        self._crashes: deque[float] = deque()
        self._crash_reason = ""
        self._causes = Causes()
        self._told: dict[int, str | None] = {}

    # what is known

    def slots(self) -> list[Slot]:
        return [slot for group in self.groups for slot in group.slots]

    @property
    def gone(self) -> bool:
        return all(slot.process is None for slot in self.slots())

    @property
    def answers(self) -> bool:
        """Whether a worker of the entry service takes requests."""
        return any(slot.ready for slot in self._entry.slots)

    def due(self) -> list[float]:
        """When something has to be looked at, on the monotonic clock."""
        found = [slot.stopped_at + STOPPED_S for slot in self.slots() if slot.stopped_at is not None]
        if self.stopping:
            return found
        found += [slot.restart_at for slot in self.slots() if slot.process is None]
        found += [slot.ask_at for slot in self.slots() if slot.ready]
        if self.problem and self._crashes:
            found.append(self._crashes[-1] + _CRASH_WINDOW + 0.1)
        return found

    # starting

    def start(self) -> None:
        """Start the first worker; the rest follows when it has spoken."""
        self._entry.slots.append(Slot(self._around.number(), 0))
        self._launch(self._entry, self._entry.slots[0])

    def _launch(self, group: _Group, slot: Slot) -> None:
        around, target = self._around, self._around.target
        entry = group is self._entry
        first = entry and not self.parts and slot.index == 0
        arguments = [*around.options, "--index", str(slot.index)]
        sockets = list(around.listeners) if entry else [s for s in (group.http, slot.listener) if s is not None]
        if entry:
            arguments += ["--workers", str(around.workers or 0)]
        else:
            arguments += ["--workers", str(len(group.slots)), "--part", group.name, "--called"]
        arguments += ["--setup"]
        arguments += ["--tell"] if first else []
        arguments += ["--inside"] if around.inside else []
        part = next((part for part in self.parts if part.name == group.name), None)
        env = {
            **_QUIET, **os.environ, **target.environment,
            **{name: value for name, value in (part.envs if part else {}).items() if name not in os.environ},
            **self.plan.variables(group.name, slot.index),
            _METRICS: str(around.metrics), SLOT: str(slot.number), INDEX: str(slot.index + 1),
        }  # fmt: skip
        slot.start(arguments, sockets, env)
        assert slot.line is not None
        slot.send(self._setup(first))
        around.selector.register(slot.line, selectors.EVENT_READ, (self, slot))
        self._told.pop(slot.number, None)
        self._tell_problem(slot)

    def _try_launch(self, group: _Group, slot: Slot) -> None:
        """Start a process, or say that the system starts none; a server that is up goes on with those that it has."""
        try:
            self._launch(group, slot)
        except OSError as error:
            why = f"no process can be started for worker {self._called(slot)}: {(error.strerror or str(error)).lower()}"
            slot.restart_at = time.monotonic() + _LONGEST_BACKOFF
            if self.announced:
                self._around.note(why)
            else:
                self.failure = ServiceLoadError(why, hint="start fewer --workers, or raise the limits of this user")

    def _setup(self, first: bool) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "setup", "values": dict(self._around.target.arguments)}
        if not first:
            found["peers"] = self._peers()
        return found

    def _peers(self) -> dict[str, Any]:
        token = self._meeting.token if self._meeting else ""
        services = {g.name: {"addresses": g.addresses, "url": g.url} for g in self.groups[1:]}
        return {"token": token, "services": services}

    def _take_parts(self, slot: Slot, documents: list[dict[str, Any]]) -> None:
        """The first worker has said what there is: make the plan, start the others, let it go on."""
        self.parts = check_parts((part_from(document) for document in documents), self._around.workers)
        self._entry.name = self.parts[0].name
        self.plan = make_plan(self.parts)
        for note in self.plan.notes:
            self._around.note(note)
        self._meeting = Meeting() if len(self.parts) > 1 else None
        for part in self.parts[1:]:
            self._prepare(part)
        if self.plan.variables(self._entry.name, slot.index):
            self._retire(slot)  # what it did while it was imported has seen devices that are not its own
            slot.restart_at = 0.0
        else:
            slot.send({"type": "peers", "peers": self._peers()})
        self._fill_up(self.parts[0].workers)

    def _prepare(self, part: Part) -> None:
        assert self._meeting is not None
        group = _Group(part.name)
        self.groups.append(group)  # before its places are made: a number is free that no place has
        for index in range(part.workers):
            listener, address = self._meeting.place()
            group.slots.append(Slot(self._around.number(), index, listener))
            group.addresses.append(address)
        if part.http:
            group.http, group.url = loopback_listener("http://{}:{}")

    def _fill_up(self, workers: int) -> None:
        """Make places for the entry's other workers; they are started by and by."""
        if self.stopping:
            return
        for index in range(len(self._entry.slots), workers):
            self._entry.slots.append(Slot(self._around.number(), index))

    # what workers say

    def receive(self, slot: Slot) -> None:
        """A line is readable."""
        messages, ended = slot.receive()
        for message in messages:
            self._hear(slot, message)
        if ended and slot.line is not None:
            self._lost(slot)
        self.announced = self.announced or all(slot.settled for slot in self.slots())
        self._look()

    def _hear(self, slot: Slot, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "pong":
            if note := slot.hear_pulse(message.get("missed", 0), message.get("at")):
                self._around.note(f"worker {self._called(slot)}: {note}")
        elif kind == "parts":
            try:
                self._take_parts(slot, message["parts"])
            except BentotoolError as error:
                self.failure = error
        elif kind == "ready":
            slot.ready, slot.settled = True, not message.get("waiting")
            slot.asked_at = slot.settled_at = time.monotonic()
            slot.patience = message["patience"]
            if slot in self._entry.slots:
                self.service, self.scheme = message["name"], message["scheme"]
        elif kind == "settled":
            slot.settled, slot.settled_at = True, time.monotonic()
        elif kind == "failed":
            slot.error = message["error"]
        elif kind == "note":
            self._around.note(message["message"])

    def _retire(self, slot: Slot) -> None:
        """End a process on purpose."""
        if slot.line is not None:
            with contextlib.suppress(KeyError):
                self._around.selector.unregister(slot.line)
        slot.kill()
        if slot.process is not None:
            slot.reap()

    def _lost(self, slot: Slot) -> None:
        """A worker's line has ended: it is dead, or about to be."""
        assert slot.line is not None
        self._around.selector.unregister(slot.line)
        settled_for = time.monotonic() - slot.settled_at if slot.settled else 0.0
        why = self._causes.why(slot.reap())
        for path in self._around.metrics.glob(f"gauge_live*_{slot.number}.db"):
            with contextlib.suppress(OSError):
                path.unlink()
        if self.stopping:
            return
        slot.failures = 1 if settled_for >= _HEALTHY_S else slot.failures + 1
        if not self.announced:
            self._give_up_when_hopeless(slot, why)
            if self.failure is not None:
                return  # whoever started the server is told, and that alone
        now = time.monotonic()
        self._crashes.append(now)
        while now - self._crashes[0] > _CRASH_WINDOW:
            self._crashes.popleft()
        delay = 0.0 if slot.failures == 1 else min(_LONGEST_BACKOFF, 0.25 * 2.0 ** (slot.failures - 2))
        slot.restart_at = now + delay
        reason = slot.error["message"] if slot.error else why
        if self.failure is None:
            self._around.note(f"worker {self._called(slot)} ended ({reason}); restarting in {delay:g} s")
        self._crash_reason = reason

    def _called(self, slot: Slot) -> str:
        group = next(group for group in self.groups if slot in group.slots)
        return f"{slot.index} of {group.name}" if len(self.groups) > 1 else str(slot.index)

    def _give_up_when_hopeless(self, slot: Slot, why: str) -> None:
        """Before the server was ever ready, a failure to start is final."""
        if slot.error is not None:
            message, hint = slot.error["message"], slot.error.get("hint")
            for kind in (UnsafeError, UsageError, NotFoundError):
                if slot.error.get("code") == kind.code:
                    self.failure = kind(message, hint=hint)
                    return
            known = {key: value for key, value in slot.error.items() if key not in ("code", "message", "hint")}
            self.failure = ServiceLoadError(message, hint=hint, details=known)
        elif slot.failures >= _START_ATTEMPTS:
            self.failure = ServiceLoadError(f"the service does not start: its worker ended ({why})")

    # looking after them

    def notice_children(self) -> None:
        """After a SIGCHLD."""
        now = time.monotonic()
        for slot in self.slots():
            slot.notice_stop(now)

    def tick(self, now: float) -> None:
        """Start what is due, those first that others call; replace what is stuck."""
        started = 0
        for group in reversed(self.groups):
            for slot in group.slots:
                reason = slot.stuck(now)
                if reason is not None:
                    self._around.note(f"worker {self._called(slot)} is replaced: {reason}")
                    slot.kill()
                if self.stopping or self.failure is not None:
                    continue
                slot.ask(now)
                if slot.process is None and now >= slot.restart_at and started < _AT_ONCE:
                    started += 1
                    self._try_launch(group, slot)
        self._look()

    def _look(self) -> None:
        """Decide whether the server as a whole is ready, and tell the workers where that changed."""
        now = time.monotonic()
        if self._crashes and now - self._crashes[-1] > _CRASH_WINDOW:
            self._crashes.clear()
        if len(self._crashes) >= _CRASHES:
            self.problem = f"workers crash in a loop: {self._crash_reason}"
        else:
            empty = [g.name for g in self.groups[1:] if not any(slot.settled for slot in g.slots)]
            self.problem = f"no worker of {', '.join(empty)} is ready" if empty and not self.stopping else None
        for slot in self.slots():
            self._tell_problem(slot)

    def _tell_problem(self, slot: Slot) -> None:
        if slot.line is not None and self._told.get(slot.number) != self.problem:
            self._told[slot.number] = self.problem
            slot.send({"type": "problem", "message": self.problem})

    # ending

    def drain(self, leave: float = 0.0) -> None:
        """Stop in order: the entry's workers now, each other group when nobody is left to call it.

        Args:
            leave: seconds in which the callers of the entry's workers are told to connect anew, to those that replace
                them.
        """
        self.stopping, self._leave = True, leave
        self.drain_next()

    def drain_next(self) -> None:
        """After a worker has gone: whose turn it is."""
        for group in self.groups:
            if not group.draining:
                group.draining = True
                for slot in group.slots:
                    if not slot.ready:
                        slot.kill()  # still loading: nothing is in flight
                    slot.send({"type": "drain", "leave": self._leave if group is self._entry else 0.0})
            if any(slot.process is not None for slot in group.slots):
                return

    def kill(self) -> None:
        self.stopping = True
        for slot in self.slots():
            slot.kill()

    def close(self) -> None:
        """Forget everything; the processes are dead, or die now."""
        for slot in self.slots():
            if slot.line is not None:
                with contextlib.suppress(KeyError):
                    self._around.selector.unregister(slot.line)
            slot.kill()
            if slot.process is not None:
                slot.reap()
            if slot.listener is not None:
                slot.listener.close()
        for group in self.groups:
            if group.http is not None:
                group.http.close()
        if self._meeting is not None:
            self._meeting.close()
