"""Real servers, and callers that speak to them byte by byte."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

LIMIT = 30.0
_ENTRY = "import sys\nfrom bentotool.runtime.__main__ import main\nsys.exit(main())"


class Server:
    """A server in a process of its own, serving ``service.py`` of a folder.

    Args:
        prelude: statements that its first process runs before all else, such as to shorten a wait.

    Attributes:
        url: where it answers; ``https`` where the options make it speak TLS.
        port: of it.
    """

    def __init__(
        self, folder: Path, *options: str, environment: dict[str, str] | None = None, prelude: str | None = None
    ) -> None:
        program = ["-m", "bentotool.runtime"] if prelude is None else ["-c", f"{prelude}\n{_ENTRY}"]
        command = [sys.executable, *program, str(folder), "--port", "0", *options]
        self.folder, self._log = folder, folder / "log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **(environment or {})}
            )
        assert self.process.stdout is not None
        found = re.fullmatch(r"serving on (https?://\S+)\n", self.process.stdout.readline())
        assert found, self.log
        self.url, self.port = found[1], int(found[1].rpartition(":")[2])

    @property
    def log(self) -> str:
        """What it has written to standard error."""
        return self._log.read_text()

    def said(self, name: str) -> list[str]:
        """What the service has noted in the file of that name beside it, line by line."""
        path = self.folder / name
        return path.read_text().split() if path.exists() else []

    def raw(self, request: bytes = b"") -> socket.socket:
        """A connection on which these bytes were sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=LIMIT)
        connection.sendall(request)
        return connection

    def stop(self) -> int:
        """End it in order; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(LIMIT)
        finally:
            self.process.kill()
            if self.process.stdout is not None:
                self.process.stdout.close()


def _wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + LIMIT
    while not (found := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
    return found


def _read_all(connection: socket.socket) -> bytes:
    """Everything until the other side closes; then this side does."""
    parts = []
    with connection, contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


@pytest.fixture(scope="session")
def wire() -> Any:
    """``wait_for(condition)``, ``read_all(connection)``."""
    return SimpleNamespace(wait_for=_wait_for, read_all=_read_all, limit=LIMIT)


@pytest.fixture(scope="session")
def serving() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    """``with serving(folder, source, *options, environment={...}, prelude="...") as server``."""

    @contextlib.contextmanager
    def serve(folder: Path, source: str, *options: str, **further: Any) -> Iterator[Server]:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "service.py").write_text(source)
        server = Server(folder, *options, **further)
        try:
            yield server
        finally:
            server.stop()

    return serve


@pytest.fixture(scope="session")
def together() -> Callable[..., list[Any]]:
    """``together(f, g, …)`` calls all at once and gives their results in order."""

    def run(*calls: Callable[[], Any]) -> list[Any]:
        found: list[Any] = [None] * len(calls)

        def call(position: int) -> None:
            found[position] = calls[position]()

        threads = [threading.Thread(target=call, args=(position,)) for position in range(len(calls))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT)
        return found

    return run
