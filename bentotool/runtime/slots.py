"""One place for a worker: the process that fills it, its line, and what is known of both."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bentotool.runtime.handover import spawn

__all__ = ["Slot"]

PING_EVERY_S = 5.0
"""How often a worker is asked whether it lives."""
SILENT_S = 60.0
"""After so many seconds without an answer it does not. A thread of its own answers, so that blocking code in a
service is no reason; what is left is a process that is stuck as a whole."""
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
    heard_at: float = 0.0
    asked_at: float = 0.0
    _buffer: bytes = field(default=b"", repr=False)

    def start(
        self,
        arguments: Sequence[str],
        sockets: Sequence[socket.socket],
        env: Mapping[str, str],
        module: str = "bentotool.runtime.worker",
    ) -> None:
        """Start a process with the sockets, and its line as the last."""
        ours, theirs = socket.socketpair()
        self.process = spawn(module, arguments, [*sockets, theirs], env)
        theirs.close()
        ours.setblocking(False)
        self.line, self._buffer, self.ready, self.settled, self.error = ours, b"", False, False, None
        self.stopped_at, self.heard_at = None, time.monotonic()

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
        self.heard_at = time.monotonic()
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

    def ask(self, now: float) -> None:
        """Ask whether it lives, where it is time to."""
        if self.ready and now - self.asked_at >= PING_EVERY_S:
            self.asked_at = now
            self.send({"type": "ping"})

    def stuck(self, now: float) -> str | None:
        """Why the process has to be replaced, if it has to."""
        if self.process is None:
            return None
        if self.stopped_at is not None and now - self.stopped_at >= STOPPED_S:
            if _is_stopped(self.process.pid):
                return "it was stopped"
            self.stopped_at = None
        if self.ready and now - self.heard_at > SILENT_S:
            return f"it gave no sign of life for {SILENT_S:g} seconds"
        return None

    def notice_stop(self, now: float) -> None:
        """After a SIGCHLD: see whether it was stopped."""
        if self.process is not None and self.stopped_at is None and _was_stopped(self.process.pid):
            self.stopped_at = now

    def kill(self) -> None:
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
