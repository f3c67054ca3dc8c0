"""``bentotool.serve(...)``: a real server for the length of a block, as tests want it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bentotool.client.asynchronous import AsyncHTTPClient
from bentotool.client.blocking import SyncHTTPClient
from bentotool.errors import ServiceLoadError, UsageError

__all__ = ["Server", "serve"]

_START_TIMEOUT = 120.0
_POLL = 0.02


def _target(target: Any, working_dir: str | Path | None) -> tuple[Path, str | None]:
    """Folder and import string of what is to be served."""
    folder = Path(working_dir) if working_dir is not None else None
    if isinstance(target, (str, Path)):
        path = (folder or Path()) / target
        if path.is_dir():
            return path.absolute(), None
        module, colon, name = str(target).partition(":")
        if path.is_file() and path.suffix == ".py":
            return path.absolute().parent, path.stem
        if colon or module.isidentifier():
            module = module.removesuffix(".py").replace("/", ".")
            return (folder or Path()).absolute(), f"{module}:{name}" if colon else module
        raise UsageError(f"{str(target)!r} is no folder and no module:Service", hint="bentotool.serve('service:Name')")
    inner = getattr(target, "inner", None)
    module_file = getattr(sys.modules.get(getattr(inner, "__module__", "")), "__file__", None)
    if inner is None or module_file is None:
        raise UsageError(f"{target!r} cannot be served", hint="give a folder, 'module:Service', or a service of a file")
    found = next((name for name, value in vars(sys.modules[inner.__module__]).items() if value is target), None)
    if found is None:
        raise UsageError(f"service {target.name} is no attribute of its module, so no other process can find it")
    file = Path(module_file)
    return (folder or file.parent).absolute(), f"{file.stem}:{found}"


class Server:
    """A running server: the supervisor and its workers, as in production.

    Attributes:
        url: where it answers.
        process: the supervisor.
    """

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], host: str) -> None:
        self._command, self._cwd, self._environment, self._host = command, folder, environment, host
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._clients: list[SyncHTTPClient] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        if self._scratch is None:
            return ""
        return (Path(self._scratch.name) / "log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> Server:
        """Start it, and wait until it answers.

        Raises:
            ServiceLoadError: it did not; the message is its last line.
        """
        if self.running:
            return self
        self._scratch = tempfile.TemporaryDirectory(prefix="bentotool-serve-")
        place = Path(self._scratch.name)
        command = [*self._command, "--port-file", str(place / "port")]
        with (place / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self._cwd, env=dict(self._environment), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        try:
            self.url = f"http://{self._host}:{self._port(place / 'port')}"
        except BaseException:
            self.stop()
            raise
        return self

    def _port(self, file: Path) -> int:
        end = time.monotonic() + _START_TIMEOUT
        while self.running and time.monotonic() < end:
            with contextlib.suppress(FileNotFoundError, ValueError):
                return int(file.read_text(encoding="ascii"))
            time.sleep(_POLL)
        lines = [line for line in self.log.splitlines() if line.strip()]
        reason = next(
            (line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "silence"
        )
        raise ServiceLoadError(f"the server did not start: {reason.removeprefix('error: ')}")

    def client(self, **options: Any) -> SyncHTTPClient:
        """A client of it, closed when the server stops. Options: those of `SyncHTTPClient`."""
        client = SyncHTTPClient(self.url, **options)
        self._clients.append(client)
        return client

    def async_client(self, **options: Any) -> AsyncHTTPClient:
        """A client of it, to be used as an async context manager."""
        return AsyncHTTPClient(self.url, **options)

    def stop(self, timeout: float = 40.0) -> int | None:
        """Stop it in order: what is in flight is finished. Give its exit status.

        Args:
            timeout: seconds, after which it is killed.
        """
        for client in self._clients:
            client.close()
        self._clients.clear()
        status = None
        if self.process is not None:
            if self.running:
                self.process.terminate()
            try:
                status = self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.process.kill()
                status = self.process.wait()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None
        return status

    def __enter__(self) -> Server:
        return self.start()

    def __exit__(self, *_exc: object) -> None:
        self.stop()


def serve(
    target: Any = ".",
    *,
    working_dir: str | Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    workers: int | None = None,
    grace: float = 30.0,
    environment: Mapping[str, str] | None = None,
    options: Sequence[str] = (),
) -> Server:
    """Serve something in processes of its own, on a free port.

    Args:
        target: a folder (a project, or a Bento on disk), ``module:Service``, or a service that a file declares.
        working_dir: folder of the module; by default the present one, or that of the service's file.
        port: 0 for a free one.
        workers: processes; None for what the service says.
        grace: seconds for what is in flight when it is stopped.
        environment: variables set beside those of this process.
        options: further options of ``python -m bentotool.runtime``.

    Raises:
        UsageError: the target is none of these.
        ServiceLoadError: the server did not start.

    Example::

        with bentotool.serve("service:Iris") as server:
            server.client().predict(x=[[5.1, 3.5, 1.4, 0.2]])
    """
    folder, service = _target(target, working_dir)
    command = [sys.executable, "-m", "bentotool.runtime", str(folder), "--host", host, "--port", str(port)]
    command += ["--grace", str(grace), *(["--service", service] if service else [])]
    command += ["--workers", str(workers)] if workers is not None else []
    return Server([*command, *options], folder, {**os.environ, **(environment or {})}, host).start()
