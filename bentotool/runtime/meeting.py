"""Where the services of one server meet: a socket for each worker, which only this user may reach.

A Unix socket in a private folder; loopback TCP where there is none. Both ask for a token, which workers are told over
their lines.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import tempfile
from pathlib import Path

__all__ = ["Meeting"]

_TCP = "BENTOTOOL_NO_UDS"
_LONGEST_PATH = 100  # of the 104 or 108 bytes that a Unix socket's path may have


class Meeting:
    """The addresses of one generation of workers."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self._folder: Path | None = None
        self._number = 0

    def place(self) -> tuple[socket.socket, str]:
        """A listening socket and its address, ``unix:PATH`` or ``tcp:HOST:PORT``."""
        self._number += 1
        if sys.platform != "win32" and not os.environ.get(_TCP):
            path = self._private(f"{self._number}.sock")
            if path is not None:
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                listener.bind(path)
                listener.listen(2048)
                return listener, f"unix:{path}"
        return loopback_listener("tcp:{}:{}")

    def _private(self, name: str) -> str | None:
        """A path in our folder; None where there is no room for one, or it would be too long."""
        if self._folder is None:
            try:
                self._folder = Path(tempfile.mkdtemp(prefix="bentotool-calls-"))  # made with mode 0700
            except OSError:
                return None
        path = str(self._folder / name)
        return path if len(os.fsencode(path)) <= _LONGEST_PATH else None

    def close(self) -> None:
        """Remove the folder."""
        if self._folder is not None:
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
            self._folder = None


def loopback_listener(form: str) -> tuple[socket.socket, str]:
    """A listening socket on a free port of 127.0.0.1, and its address in a form."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    return listener, form.format(*listener.getsockname())
