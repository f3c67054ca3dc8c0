"""The parent process: binds the socket, keeps the workers alive, stops them in order.

It imports the standard library alone, so that it costs next to nothing beside the workers. One loop waits on the
workers' lines, on signals and on the next restart; a worker's death is seen as the end of its line. The workers of one
generation are a `Fleet`; when files change under ``--reload`` another one is started beside it, on the same socket, and
takes its place once all of it is ready.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from bentotool.runtime import door, endings
from bentotool.runtime.bento import Target
from bentotool.runtime.fleet import Fleet
from bentotool.runtime.leftovers import make_metrics_folder, sweep
from bentotool.runtime.lobby import Lobby
from bentotool.runtime.orphans import reap
from bentotool.runtime.slots import Slot
from bentotool.runtime.surroundings import Surroundings

__all__ = ["Settings", "Supervisor"]

_UNANSWERED_S = 1.0
"""After so long without a worker, the supervisor answers itself."""
_LEAVE_S = 0.5
"""For so long a worker that is replaced tells those connected to it to connect anew; merely cut, they would lose the
request that is on its way just then."""
_SETTLE_S = 0.1
"""Changes of files that come so close together are one."""
_SAME_S = 0.1
"""Within so long a signal again is the same request: some senders tell a process and then its group."""


@dataclass(frozen=True)
class Settings:
    """How to serve.

    Attributes:
        workers: processes; None for what the service declares, which the first worker tells.
        drain_delay: seconds in which requests are still taken after readiness went away.
        grace: seconds for what is in flight.
        port_file: gets the port, once the server is ready.
        log_format: ``text``, or ``json`` for standard output and logs in JSON Lines.
        quiet: nothing but warnings and errors is said.
        development: dependencies live in the process of the service that uses them.
        watcher: module that watches the project's files, as a program; None not to reload.
    """

    host: str = "127.0.0.1"
    port: int = 3000
    workers: int | None = None
    drain_delay: float = 0.0
    grace: float = 30.0
    port_file: Path | None = None
    log_format: str = "text"
    quiet: bool = False
    development: bool = False
    watcher: str | None = None


class Supervisor:
    """Runs until a signal comes, or the service turns out not to start.

    Args:
        target: what to serve.
        settings: how.
        listener: from `bind`.
    """

    def __init__(self, target: Target, settings: Settings, listener: socket.socket) -> None:
        self._target, self._settings, self._listener = target, settings, listener
        self._selector = selectors.DefaultSelector()
        self._signals: deque[int] = deque()
        sweep()
        self._metrics = make_metrics_folder()
        self._fleet: Fleet | None = None  # what answers, or is to
        self._next: Fleet | None = None  # what is to take its place
        self._leaving: list[Fleet] = []
        self._announced = False
        self._stopping: int | None = None
        self._stopping_at = 0.0
        self._kill_at = 0.0
        self._door: door.Door | None = None
        self._shut_out = False
        self._lobby = Lobby(listener, self._selector)
        self._silent_since: float | None = None
        self._watcher: Slot | None = None
        self._changed_at: float | None = None

    def run(self) -> int:
        """Serve; give the exit status: 0 after SIGTERM, 130 after ctrl-C, 1 after the keeper of the port has gone.

        A signal that comes before the server has said that it serves gives 128 and its number: what was asked for never
        was.

        Raises:
            ServiceLoadError: the service does not start.
        """
        self._catch_signals()
        try:
            if lent := os.environ.get(door.VARIABLE):
                self._door = door.take(lent)
                self._selector.register(self._door.line, selectors.EVENT_READ, self._door)
            self._watch()
            self._fleet = self._make_fleet()
            self._fleet.start()
            while not self._finished():
                self._turn()
        finally:
            self._clean_up()
        return self._status()

    def _status(self) -> int:
        if self._shut_out or self._stopping is None:
            return 1
        done = self._announced and self._stopping == signal.SIGTERM
        return 0 if done else endings.status(self._stopping)

    def _finished(self) -> bool:
        return self._stopping is not None and all(fleet.gone for fleet in self._fleets())

    def _fleets(self) -> list[Fleet]:
        return [fleet for fleet in (self._fleet, self._next, *self._leaving) if fleet is not None]

    def _catch_signals(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._wakeup = (ours, theirs)
        self._selector.register(ours, selectors.EVENT_READ, None)
        for number in endings.numbers():
            signal.signal(number, lambda received, _frame: self._signals.append(received))
        if hasattr(signal, "SIGCHLD"):  # a child has ended or was stopped
            signal.signal(signal.SIGCHLD, lambda _received, _frame: None)
        endings.release()

    def _make_fleet(self) -> Fleet:
        from bentotool.runtime.hosts import is_loopback

        settings, target = self._settings, self._target
        options = ["--app-dir", str(target.app_dir), "--log-format", settings.log_format]
        options += ["--drain-delay", str(settings.drain_delay), "--grace", str(settings.grace)]
        for middleware in target.bento.middleware if target.bento else ():
            options += ["--middleware", middleware]
        options += ["--quiet"] if settings.quiet else []
        options += ["--service", target.service] if target.service else []
        options += ["--loopback"] if is_loopback(self._listener.getsockname()[0]) else []
        listeners = [self._listener, *([self._door.listener] if self._door else [])]
        return Fleet(
            Surroundings(
                target=target,
                workers=settings.workers,
                options=options,
                listeners=listeners,
                metrics=self._metrics.path,
                inside=settings.development,
                number=self._free_number,
                selector=self._selector,
                note=self._note,
            )
        )

    def _free_number(self) -> int:
        taken = {slot.number for fleet in self._fleets() for slot in fleet.slots()}
        return next(number for number in itertools.count() if number not in taken)

    def _turn(self) -> None:
        events = self._selector.select(self._timeout())
        self._heed_signals()  # first of all: where a whole group was told to end, no death of a worker is news
        for key, _events in events:
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._wakeup[0].recv(64)
                for fleet in self._fleets():
                    fleet.notice_children()
            elif isinstance(key.data, door.Door):
                self._lose_port(key.data)
            elif isinstance(key.data, Lobby):
                if self._stopping is None:  # else it is closed since
                    key.data.serve(key.fileobj)
            elif key.data is self._watcher:
                self._hear_watcher(self._watcher)
            else:
                fleet, slot = key.data
                fleet.receive(slot)
        self._heed_signals()
        now = time.monotonic()
        for fleet in self._fleets():
            fleet.tick(now)
        self._follow(now)
        reap(self._children())

    def _children(self) -> set[int]:
        """Processes whose end this one waits for."""
        slots = [slot for fleet in self._fleets() for slot in fleet.slots()]
        slots += [self._watcher] if self._watcher is not None else []
        return {slot.process.pid for slot in slots if slot.process is not None}

    def _follow(self, now: float) -> None:
        """Everything that follows from what the workers have said or done."""
        if self._stopping is not None:
            for fleet in self._fleets():
                fleet.drain_next()
            if now >= self._kill_at:
                self._kill_all()
            return
        self._judge()
        if self._changed_at is not None and now - self._changed_at >= _SETTLE_S:
            self._changed_at = None
            self._reload()
        for fleet in list(self._leaving):
            fleet.drain_next()
            if fleet.gone:
                fleet.close()
                self._leaving.remove(fleet)
        self._keep_lobby(now)

    def _judge(self) -> None:
        """See whether a generation has failed, or is ready."""
        if self._next is not None:
            if self._next.failure is not None:
                self._drop(self._next, "the change is not taken, the last version goes on: ")
                self._next = None
            elif self._next.announced:
                if self._fleet is not None:
                    self._fleet.drain(_LEAVE_S)
                    self._leaving.append(self._fleet)
                self._fleet, self._next = self._next, None
                self._say_reloaded()
        if self._fleet is not None:
            if self._fleet.failure is not None:
                if self._watcher is None or self._announced:
                    raise self._fleet.failure
                self._drop(self._fleet, "")
                self._fleet = None
            elif self._fleet.announced:
                self._announce(self._fleet)

    def _drop(self, fleet: Fleet, before: str) -> None:
        assert fleet.failure is not None
        fleet.kill()
        fleet.close()
        hint = f" ({fleet.failure.hint})" if fleet.failure.hint else ""
        self._note(f"{before}{fleet.failure.message}{hint}")

    def _keep_lobby(self, now: float) -> None:
        if self._fleet is not None and self._fleet.answers:
            self._silent_since = None
            self._lobby.set_open(False)
        elif self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= _UNANSWERED_S:
            problem = self._fleet.problem if self._fleet is not None else "the service does not start"
            self._lobby.reason = problem or ("no worker is ready" if self._announced else "the server is starting")
            self._lobby.set_open(True)
        self._lobby.tick(now)

    def _lose_port(self, lent: door.Door) -> None:
        self._selector.unregister(lent.line)
        if self._stopping is None:
            self._shut_out = True
            self._note("whoever keeps the port has gone; this server ends, to be started again")
            self._stop(signal.SIGTERM)

    def _timeout(self) -> float | None:
        """Seconds until something is due; None: nothing but an event."""
        due = [at for fleet in self._fleets() for at in fleet.due()]
        if self._stopping is not None:
            due.append(self._kill_at)
        else:
            due += [self._changed_at + _SETTLE_S] if self._changed_at is not None else []
            if self._silent_since is not None and not self._lobby.open:
                due.append(self._silent_since + _UNANSWERED_S)
            guests = self._lobby.due()
            due += [guests] if guests is not None else []
        return max(0.0, min(due) - time.monotonic()) if due else None

    # reloading

    def _watch(self) -> None:
        if self._settings.watcher is None:
            return
        self._watcher = Slot(-1, 0)
        self._watcher.start([str(self._target.app_dir)], [], os.environ, module=self._settings.watcher)
        assert self._watcher.line is not None
        self._selector.register(self._watcher.line, selectors.EVENT_READ, self._watcher)

    def _hear_watcher(self, watcher: Slot) -> None:
        messages, ended = watcher.receive()
        for message in messages:
            if message["type"] == "changed":
                self._changed_at = time.monotonic()
            elif message["type"] == "note":
                self._note(message["message"])
        if ended and watcher.line is not None:
            self._selector.unregister(watcher.line)
            watcher.reap()
            if self._stopping is None:
                self._note("files are watched no more: the watcher has ended")

    def _reload(self) -> None:
        if self._next is not None:  # a newer change replaces one that is being tried
            self._next.kill()
            self._next.close()
        self._next = self._make_fleet()
        self._next.start()

    def _say_reloaded(self) -> None:
        if not self._settings.quiet and self._announced:
            text = "reloaded"
            print(json.dumps({"event": text}) if self._settings.log_format == "json" else text, flush=True)  # noqa: T201

    def _announce(self, fleet: Fleet) -> None:
        """Say where the server is, once, when every worker answers."""
        if self._announced:
            return
        self._announced = True
        host, port = self._listener.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        if self._settings.port_file is not None:
            self._settings.port_file.write_text(f"{port}\n", encoding="ascii")
        if self._settings.quiet:
            return
        url = f"{fleet.scheme}://{name}:{port}"
        as_json = json.dumps({"event": "serving", "url": url, "name": fleet.service})
        line = as_json if self._settings.log_format == "json" else f"serving on {url}"
        print(line, flush=True)  # noqa: T201 - the one line of this program's output

    def _note(self, message: str) -> None:
        line = f"bentotool: {message}"
        if self._settings.log_format == "json":
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            fields = {"time": now, "level": "warning", "logger": "bentotool.supervisor", "message": message}
            line = json.dumps(fields)
        with contextlib.suppress(OSError):  # whoever read the log has gone, or its disk is full: the workers go on
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    # ending

    def _heed_signals(self) -> None:
        while self._signals:
            self._stop(self._signals.popleft())

    def _stop(self, number: int) -> None:
        now = time.monotonic()
        if self._stopping is not None:
            if number != self._stopping or now - self._stopping_at >= _SAME_S:  # the second one does not wait
                self._kill_all()
            return
        self._stopping, self._stopping_at = number, now
        settings = self._settings
        self._lobby.close()
        if self._door is not None:
            self._door.listener.close()
        self._kill_at = now + settings.drain_delay + settings.grace + 5.0
        for fleet in self._fleets():
            fleet.drain()
        if self._listener.fileno() != -1:
            self._listener.close()

    def _kill_all(self) -> None:
        for fleet in self._fleets():
            fleet.kill()

    def _clean_up(self) -> None:
        self._lobby.close()
        for fleet in self._fleets():
            fleet.close()
        if self._watcher is not None:
            self._watcher.kill()
            if self._watcher.process is not None:
                self._watcher.reap()
        self._selector.close()
        self._listener.close()
        if self._door is not None:
            self._door.close()
        signal.set_wakeup_fd(-1)
        for end in self._wakeup:
            end.close()
        self._metrics.remove()
        if self._settings.port_file is not None and self._announced:
            self._settings.port_file.unlink(missing_ok=True)
