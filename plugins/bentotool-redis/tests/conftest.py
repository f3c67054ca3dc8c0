"""A real Redis server for the length of the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

LIMIT = 20.0


def _absent(what: str, *, on_purpose: bool) -> None:
    if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1" and not on_purpose:
        pytest.fail(f"needs {what}, which is not here", pytrace=False)
    pytest.skip(f"needs {what}")


class RedisServer:
    """A server that writes each change to disk before it answers, and may be stopped and started."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program, self._folder = program, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *options: str) -> None:
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + LIMIT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                    return
            assert time.monotonic() < end, (self._folder / "log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        _absent(
            "the program redis-server",
            on_purpose="redis-server" in os.environ.get("BENTOTOOL_TEST_WITHOUT_TOOLS", "").split(),
        )
    folder = tmp_path / "redis"
    folder.mkdir()
    made = RedisServer(str(program), folder)
    made.start()
    yield made
    made.kill()
