"""A port that outlives the servers behind it: one process keeps the listening socket, and servers are lent it.

``python -m bentotool.runtime.door --port 3000 --socket FILE`` listens and answers nobody: whoever connects to the Unix
socket FILE is handed the listening socket itself (``SCM_RIGHTS``). A server that finds ``BENTOTOOL_DOOR=FILE`` in its
environment accepts from that socket, once its service is loaded, beside the one of its own. So a new version stands
next to the old one on the very same queue of connections; when the old one goes, none is refused and none is lost, and
no byte passes through a process between client and server.

The connection to FILE stays open. Where it ends, the socket that was lent leads nowhere any more: the server ends too,
with status 1, and whoever looks after it starts it again, to be lent the new one.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bentotool.errors import BentotoolError, ServiceLoadError, UsageError

__all__ = ["VARIABLE", "Door", "main", "open_door", "take"]

VARIABLE = "BENTOTOOL_DOOR"
"""The Unix socket that a server is lent its port at."""

_PATIENCE_S = 30.0
_BACKLOG = 128


@dataclass(frozen=True)
class Door:
    """What a server was lent.

    Attributes:
        listener: the listening socket; others accept from it too.
        line: readable when the keeper of the port has gone.
    """

    listener: socket.socket
    line: socket.socket

    def close(self) -> None:
        """Give both back. Connections that wait are for whoever else accepts."""
        self.listener.close()
        self.line.close()


def take(path: str, *, patience: float = _PATIENCE_S) -> Door:
    """Be lent the port.

    Args:
        path: the keeper's Unix socket.
        patience: seconds to wait for a keeper that is not there yet, as after a restart of the machine.

    Raises:
        UsageError: this system has no such sockets.
        ServiceLoadError: there is no keeper, or it may not be asked.
    """
    if sys.platform == "win32":
        raise UsageError(f"{VARIABLE} is set, and this system lends no sockets", hint=f"unset {VARIABLE}")
    deadline = time.monotonic() + patience
    while True:
        line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            line.settimeout(max(1.0, deadline - time.monotonic()))
            line.connect(path)
            _, numbers, _, _ = socket.recv_fds(line, 1, 1)
            if numbers:
                line.setblocking(False)
                listener = socket.socket(fileno=numbers[0])
                listener.setblocking(False)
                return Door(listener, line)
            reason = "it lent nothing"
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            if isinstance(error, PermissionError):
                deadline = 0.0  # waiting does not help
        line.close()
        if time.monotonic() >= deadline:
            raise ServiceLoadError(
                f"the port cannot be taken over at {path}: {reason}",
                hint="see whether the process that keeps the port runs, and whether its socket may be opened",
            )
        time.sleep(0.1)


def open_door(path: Path) -> socket.socket:
    """The Unix socket that servers ask at; one that an earlier keeper left is replaced.

    Raises:
        UsageError: this system has no such sockets.
    """
    if sys.platform == "win32":
        raise UsageError("this system lends no sockets")
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    asked.bind(str(path))
    path.chmod(0o666)  # the folder decides who comes near; servers may run as another user
    asked.listen(_BACKLOG)
    return asked


def keep(listener: socket.socket, asked: socket.socket, stopping: Callable[[], bool], wakeup: socket.socket) -> None:
    """Lend the socket to whoever asks, until told to stop; connections stay open until the other side goes."""
    with selectors.DefaultSelector() as selector:
        selector.register(asked, selectors.EVENT_READ)
        selector.register(wakeup, selectors.EVENT_READ)
        while not stopping():
            for key, _events in selector.select():
                if key.fileobj is asked:
                    with contextlib.suppress(OSError):
                        line, _ = asked.accept()
                        socket.send_fds(line, [b"\0"], [listener.fileno()])
                        selector.register(line, selectors.EVENT_READ)
                elif isinstance(key.fileobj, socket.socket) and key.fileobj is not wakeup:
                    selector.unregister(key.fileobj)  # it has nothing to say: it has gone
                    key.fileobj.close()


def main(argv: list[str] | None = None) -> int:
    """Keep a port until a signal comes; give the exit status."""
    from bentotool.runtime.listening import bind, report

    parser = argparse.ArgumentParser(prog="python -m bentotool.runtime.door", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - inside a container; what is published decides
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--socket", required=True, type=Path)
    options = parser.parse_args(argv)
    received: list[int] = []
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    try:
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):  # as process 1 of a container it would ignore both
            signal.signal(number, lambda caught, _frame: received.append(caught))
        with bind(options.host, options.port) as listener, open_door(options.socket) as asked:
            keep(listener, asked, lambda: bool(received), ours)
    except BentotoolError as error:
        report(error, "text")
        return error.exit_status
    except OSError as error:
        report(ServiceLoadError(f"{options.socket}: {(error.strerror or str(error)).lower()}"), "text")
        return 1
    finally:
        signal.set_wakeup_fd(-1)
        ours.close()
        theirs.close()
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)
