"""The parent process: binds the socket, keeps the workers alive, stops them in order.

It imports the standard library alone, so that it costs next to nothing beside the workers. One loop waits on the
workers' lines, on signals and on the next restart; a worker's death is seen as the end of its line.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess  # the type of what handover starts
import sys
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentotool.errors import BentotoolError, ConflictError, ServiceLoadError, UnsafeError, UsageError
from bentotool.runtime import door
from bentotool.runtime.bento import Target
from bentotool.runtime.handover import spawn
from bentotool.runtime.leftovers import MetricsFolder, sweep

__all__ = ["Settings", "Supervisor", "bind"]

_METRICS = "PROMETHEUS_MULTIPROC_DIR"
# Imported by a service itself, ONNX Runtime starts a telemetry client that writes below the home folder.
_QUIET = {"ORT_DISABLE_TELEMETRY": "1"}
_SLOT = "BENTOTOOL_WORKER_SLOT"
_CRASHES = 5
_CRASH_WINDOW = 60.0
_LONGEST_BACKOFF = 30.0
_START_ATTEMPTS = 3


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
    """

    host: str = "127.0.0.1"
    port: int = 3000
    workers: int | None = None
    drain_delay: float = 0.0
    grace: float = 30.0
    port_file: Path | None = None
    log_format: str = "text"
    quiet: bool = False


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConflictError: the port is in use.
        UsageError: no such address on this machine, or a port that may not be used.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, OverflowError) as error:
        raise UsageError(f"host {host!r}: {getattr(error, 'strerror', error)}", hint="use --host 127.0.0.1") from error
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # on Windows this option would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except PermissionError as error:
        listener.close()
        raise UsageError(f"port {port} may not be used: {error.strerror}", hint="use a port above 1023") from error
    except OSError as error:
        listener.close()
        raise ConflictError(
            f"port {port} on {host} is in use", hint="stop what uses it, or pass --port 0 for a free port"
        ) from error
    return listener


@dataclass
class _Slot:
    """One place for a worker. Its number names the worker's metric files, whoever fills the place."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    line: socket.socket | None = None
    buffer: bytes = b""
    ready: bool = False
    failures: int = 0
    restart_at: float = 0.0
    error: dict[str, Any] | None = None


class Supervisor:
    """Runs until a signal comes, or the service turns out not to start.

    Args:
        target: what to serve.
        settings: how.
        listener: from `bind`.
    """

    def __init__(self, target: Target, settings: Settings, listener: socket.socket) -> None:
        self._target, self._settings, self._listener = target, settings, listener
        self._slots = [_Slot(number) for number in range(settings.workers or 1)]
        self._selector = selectors.DefaultSelector()
        self._signals: deque[int] = deque()
        sweep()
        self._metrics = MetricsFolder()
        self._announced = False
        self._stopping: int | None = None
        self._kill_at = 0.0
        self._crashes: deque[float] = deque()
        self._problem: str | None = None
        self._door: door.Door | None = None
        self._shut_out = False

    def run(self) -> int:
        """Serve; give the exit status: 0 after SIGTERM, 130 after ctrl-C, 1 after the keeper of the port has gone.

        Raises:
            ServiceLoadError: the service does not start.
        """
        self._catch_signals()
        try:
            if lent := os.environ.get(door.VARIABLE):
                self._door = door.take(lent)
                self._selector.register(self._door.line, selectors.EVENT_READ, self._door)
            for slot in self._slots:
                self._start(slot)
            while not self._finished():
                self._turn()
        finally:
            self._clean_up()
        return 1 if self._shut_out else 130 if self._stopping == signal.SIGINT else 0

    def _finished(self) -> bool:
        return self._stopping is not None and all(slot.process is None for slot in self._slots)

    def _catch_signals(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._wakeup = (ours, theirs)
        self._selector.register(ours, selectors.EVENT_READ, None)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, _frame: self._signals.append(received))

    def _start(self, slot: _Slot) -> None:
        settings, target = self._settings, self._target
        ours, theirs = socket.socketpair()
        arguments = ["--app-dir", str(target.app_dir), "--workers", str(settings.workers or 0)]
        arguments += ["--drain-delay", str(settings.drain_delay), "--grace", str(settings.grace)]
        arguments += ["--log-format", settings.log_format]
        for middleware in target.bento.middleware if target.bento else ():
            arguments += ["--middleware", middleware]
        if settings.quiet:
            arguments.append("--quiet")
        if target.arguments:
            arguments.append("--arguments")
        if target.service:
            arguments += ["--service", target.service]
        from bentotool.runtime.hosts import is_loopback

        if is_loopback(self._listener.getsockname()[0]):
            arguments.append("--loopback")
        env = {**_QUIET, **os.environ, **target.environment, _METRICS: str(self._metrics.path), _SLOT: str(slot.number)}
        listeners = [self._listener, *([self._door.listener] if self._door else [])]
        slot.process = spawn("bentotool.runtime.worker", arguments, [*listeners, theirs], env)
        theirs.close()
        slot.line, slot.buffer, slot.ready, slot.error = ours, b"", False, None
        if target.arguments:
            self._send(slot, {"type": "arguments", "values": dict(target.arguments)})
        ours.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ, slot)
        if self._problem:
            self._send(slot, {"type": "problem", "message": self._problem})

    def _turn(self) -> None:
        for key, _events in self._selector.select(self._timeout()):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._wakeup[0].recv(64)
            elif isinstance(key.data, door.Door):
                self._lose_port(key.data)
            else:
                self._receive(key.data)
        while self._signals:
            self._stop(self._signals.popleft())
        now = time.monotonic()
        if self._stopping is not None:
            if now >= self._kill_at:
                self._kill_all()
            return
        if self._problem and (not self._crashes or now - self._crashes[-1] > _CRASH_WINDOW):
            self._set_problem(None)
        for slot in self._slots:
            if slot.process is None and now >= slot.restart_at:
                self._start(slot)

    def _lose_port(self, lent: door.Door) -> None:
        self._selector.unregister(lent.line)
        if self._stopping is None:
            self._shut_out = True
            self._note("whoever keeps the port has gone; this server ends, to be started again")
            self._stop(signal.SIGTERM)

    def _timeout(self) -> float | None:
        """Seconds until something is due; None: nothing but an event."""
        now, due = time.monotonic(), []
        if self._stopping is not None:
            due.append(self._kill_at)
        else:
            due += [slot.restart_at for slot in self._slots if slot.process is None]
            if self._problem and self._crashes:
                due.append(self._crashes[-1] + _CRASH_WINDOW + 0.1)
        return max(0.0, min(due) - now) if due else None

    def _receive(self, slot: _Slot) -> None:
        assert slot.line is not None
        try:
            data = slot.line.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        slot.buffer += data
        *lines, slot.buffer = slot.buffer.split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["type"] == "ready":
                slot.ready, slot.failures = True, 0
                self._fill_up(int(message["workers"]))
                self._announce(message["name"])
            elif message["type"] == "failed":
                slot.error = message["error"]
        if not data:
            self._lost(slot)

    def _fill_up(self, workers: int) -> None:
        """Start the workers that the service asks for, where the user did not say how many."""
        if self._settings.workers is None and self._stopping is None:
            for number in range(len(self._slots), workers):
                self._slots.append(_Slot(number))
                self._start(self._slots[-1])

    def _announce(self, service: str) -> None:
        """Say where the server is, once, when every worker answers."""
        if self._announced or not all(slot.ready for slot in self._slots):
            return
        self._announced = True
        host, port = self._listener.getsockname()[:2]
        name = f"[{host}]" if ":" in host else host
        if self._settings.port_file is not None:
            self._settings.port_file.write_text(f"{port}\n", encoding="ascii")
        if self._settings.quiet:
            return
        url = f"http://{name}:{port}"
        as_json = json.dumps({"event": "serving", "url": url, "name": service})
        line = as_json if self._settings.log_format == "json" else f"serving on {url}"
        print(line, flush=True)  # noqa: T201 - the one line of this program's output

    def _lost(self, slot: _Slot) -> None:
        """A worker's line has ended: it is dead, or about to be."""
        assert slot.line is not None
        assert slot.process is not None
        self._selector.unregister(slot.line)
        slot.line.close()
        try:
            status = slot.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            slot.process.kill()
            status = slot.process.wait()
        slot.line, slot.process, slot.ready = None, None, False
        for path in self._metrics.path.glob(f"gauge_live*_{slot.number}.db"):
            with contextlib.suppress(OSError):
                path.unlink()
        if self._stopping is not None:
            return
        slot.failures += 1
        if not self._announced:
            self._give_up_when_hopeless(slot, status)
        now = time.monotonic()
        self._crashes.append(now)
        while now - self._crashes[0] > _CRASH_WINDOW:
            self._crashes.popleft()
        delay = 0.0 if slot.failures == 1 else min(_LONGEST_BACKOFF, 0.25 * 2.0 ** (slot.failures - 2))
        slot.restart_at = now + delay
        reason = slot.error["message"] if slot.error else _why(status)
        self._note(f"worker {slot.number} ended ({reason}); restarting in {delay:g} s")
        if len(self._crashes) >= _CRASHES:
            self._set_problem(f"workers crash in a loop: {reason}")

    def _give_up_when_hopeless(self, slot: _Slot, status: int) -> None:
        """Before the server was ever ready, a failure to start is final.

        Raises:
            ServiceLoadError: why.
            UnsafeError: the service loads a model that runs code, without saying that it is trusted.
            UsageError: an argument is missing or wrong.
        """
        if slot.error is not None:
            for kind in (UnsafeError, UsageError):
                if slot.error.get("code") == kind.code:
                    raise kind(slot.error["message"], hint=slot.error.get("hint"))
            known = {key: value for key, value in slot.error.items() if key not in ("code", "message", "hint")}
            raise ServiceLoadError(slot.error["message"], hint=slot.error.get("hint"), details=known)
        if slot.failures >= _START_ATTEMPTS:
            raise ServiceLoadError(f"the service does not start: its worker ended ({_why(status)})")

    def _note(self, message: str) -> None:
        line = f"bentotool: {message}"
        if self._settings.log_format == "json":
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            fields = {"time": now, "level": "warning", "logger": "bentotool.supervisor", "message": message}
            line = json.dumps(fields)
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def _set_problem(self, message: str | None) -> None:
        if message != self._problem:
            self._problem = message
            for slot in self._slots:
                self._send(slot, {"type": "problem", "message": message})

    def _send(self, slot: _Slot, message: dict[str, Any]) -> None:
        if slot.line is not None:
            with contextlib.suppress(OSError):
                slot.line.sendall(json.dumps(message).encode() + b"\n")

    def _stop(self, number: int) -> None:
        if self._stopping is not None:  # the second signal does not wait
            self._kill_all()
            return
        self._stopping = number
        settings = self._settings
        if self._door is not None:
            self._door.listener.close()
        self._kill_at = time.monotonic() + settings.drain_delay + settings.grace + 5.0
        for slot in self._slots:
            if slot.process is not None and not slot.ready:
                slot.process.kill()  # still loading: nothing is in flight
            self._send(slot, {"type": "drain"})
        if self._listener.fileno() != -1:
            self._listener.close()

    def _kill_all(self) -> None:
        for slot in self._slots:
            if slot.process is not None:
                slot.process.kill()

    def _clean_up(self) -> None:
        self._kill_all()
        for slot in self._slots:
            if slot.process is not None:
                slot.process.wait()
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


def _why(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def report(error: BentotoolError, form: str) -> None:
    """One line, or one JSON document, on standard error."""
    if form == "json":
        sys.stderr.write(json.dumps(error.to_dict(), default=str) + "\n")
    else:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        sys.stderr.write(f"error: {error.message}{hint}\n")
    sys.stderr.flush()
