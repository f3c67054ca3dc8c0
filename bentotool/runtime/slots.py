"""One place for a worker: the process that fills it, its line, and what is known of both."""

from __future__ import annotations

import contextlib
import json
import math
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bentotool.runtime.handover import spawn

__all__ = ["Slot"]

_PING_EVERY_S = 5.0
"""How often a worker is asked whether it lives, at least."""
_TELL_AFTER = 2
"""So many pings without a turn of a worker's event loop are worth a line in the log."""
STOPPED_S = 0.25
"""A process that is stopped (SIGSTOP) for so long is replaced. With ctrl-Z the supervisor is stopped too."""


@dataclass
class Slot:
    """One place for a worker. Its number names the worker's metric files, whoever fills the place.

    Attributes:
        number: among all of the server.
        index: among the workers of its service, from 0.
        listener: where it is called by other services, if it is.
        ready: it takes requests.
        settled: it has answers to them: one whose service has a command of its own waits for that.
        settled_at: since when, on the monotonic clock.
        patience: seconds without a sign of life, after which it is taken for dead; each worker tells its own.
        failures: deaths in a row, none of them after a healthy life.
        restart_at: when the next process may be started, on the monotonic clock.
    """

    number: int
    index: int
    listener: socket.socket | None = None
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    ready: bool = False
    settled: bool = False
    settled_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0
    error: dict[str, Any] | None = None
    stopped_at: float | None = None
    patience: float = math.inf
    asked_at: float = 0.0
    _unanswered: int = 0
    _missed: int = 0
    _busy_at: str | None = None
    _buffer: bytes = field(default=b"", repr=False)

    def start(
        self,
        arguments: Sequence[str],
        sockets: Sequence[socket.socket],
        env: Mapping[str, str],
        module: str = "bentotool.runtime.worker",
    ) -> None:
        """Start a process with the sockets, and its line as the last. Raises: OSError: the system starts none."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = spawn(module, arguments, [*sockets, theirs], env)
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        self.line, self._buffer, self.ready, self.settled, self.error = ours, b"", False, False, None
        self.stopped_at, self._unanswered, self._missed = None, 0, 0

    def send(self, message: Mapping[str, Any]) -> None:
        """Tell the worker something; it may be gone already."""
        if self.line is not None:
            with contextlib.suppress(OSError):
                self.line.setblocking(True)
                self.line.settimeout(5.0)
                self.line.sendall(json.dumps(message).encode() + b"\n")
                self.line.setblocking(False)

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """What the worker said, and whether its line has ended."""
        assert self.line is not None
        try:
            data = self.line.recv(65536)
        except BlockingIOError:
            return [], False
        except OSError:
            data = b""
        self._unanswered = 0
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        return [json.loads(line) for line in lines], not data

    def reap(self) -> int:
        """Wait for a process whose line has ended; give its status."""
        assert self.process is not None
        if self.line is not None:
            self.line.close()
        try:
            status = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.line, self.process, self.ready = None, None, False
        return status

    @property
    def ask_at(self) -> float:
        """When to ask whether it lives."""
        return self.asked_at + self._pause

    @property
    def _pause(self) -> float:
        return min(_PING_EVERY_S, self.patience / 4)

    def ask(self, now: float) -> None:
        """Ask whether it lives, where it is time to. While one question is open no other is asked, but counted."""
        if self.ready and now >= self.ask_at:
            self.asked_at = now
            self._unanswered += 1
            if self._unanswered == 1:
                self.send({"type": "ping"})

    def hear_pulse(self, missed: int, place: str | None) -> str | None:
        """Take the answer (see `pulse`); give what the log should say, if anything."""
        self._missed, self._busy_at = missed, place
        return f"its event loop has been blocked {self._blocked()}" if missed == _TELL_AFTER else None

    def _blocked(self) -> str:
        at = f", at {self._busy_at}" if self._busy_at else ""
        return f"for {self._missed * self._pause:g} seconds{at}"

    def stuck(self, now: float) -> str | None:
        """Why the process has to be replaced, if it has to."""
        if self.process is None:
            return None
        if self.stopped_at is not None and now - self.stopped_at >= STOPPED_S:
            if _is_stopped(self.process.pid):
                return "it was stopped"
            self.stopped_at = None
        if (self._unanswered - 1) * self._pause >= self.patience:
            return f"it gave no sign of life for {self.patience:g} seconds"
        if self._missed * self._pause >= self.patience:
            return f"its event loop was blocked {self._blocked()}"
        return None

    def notice_stop(self, now: float) -> None:
        """After a SIGCHLD: see whether it was stopped."""
        if self.process is not None and self.stopped_at is None and _was_stopped(self.process.pid):
            self.stopped_at = now

    def kill(self) -> None:
        """It is not asked, and not judged, any more."""
        self.stopped_at, self._unanswered, self._missed = None, 0, 0
        if self.process is not None:
            self.process.kill()


def _was_stopped(pid: int) -> bool:
    if sys.platform == "win32" or not hasattr(os, "waitid"):
        return False
    try:
        found = os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return found is not None and found.si_pid == pid and found.si_code == os.CLD_STOPPED


_is_stopped = _was_stopped  # nothing takes the news away, and going on again does
