"""Starting a child process that inherits sockets, on POSIX and on Windows."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence

from bentotool.runtime.endings import held, ignore_terminal

__all__ = ["receive_sockets", "spawn"]

_WINDOWS = sys.platform == "win32"


def spawn(
    module: str, arguments: Sequence[str], sockets: Sequence[socket.socket], env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Run ``python -m module arguments`` with the sockets.

    POSIX: descriptors are inherited and named by number. Windows: the sockets are shared with the new process
    (``WSADuplicateSocket``) through its standard input.
    """
    base = [sys.executable, "-m", module]
    if not _WINDOWS:
        numbers = [sock.fileno() for sock in sockets]
        command = [*base, "--sockets", ",".join(map(str, numbers)), *arguments]
        with held():
            return subprocess.Popen(command, pass_fds=numbers, stdin=subprocess.DEVNULL, env=dict(env))
    process = subprocess.Popen([*base, "--sockets", "stdin", *arguments], stdin=subprocess.PIPE, env=dict(env))
    assert process.stdin is not None
    for sock in sockets:
        process.stdin.write(base64.b64encode(sock.share(process.pid)) + b"\n")  # type: ignore[attr-defined,unused-ignore]
    process.stdin.close()
    return process


def receive_sockets(where: str) -> list[socket.socket]:
    """The sockets that `spawn` handed to this process, which begins here; its own children do not inherit them."""
    ignore_terminal()
    if where == "stdin":
        shared = [base64.b64decode(line) for line in sys.stdin.buffer.read().splitlines()]
        return [socket.fromshare(data) for data in shared]  # type: ignore[attr-defined,unused-ignore]
    found = []
    for number in where.split(","):
        os.set_inheritable(int(number), False)
        found.append(socket.socket(fileno=int(number)))
    return found
