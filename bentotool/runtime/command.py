"""A service whose requests a program answers (``cmd=`` or ``__command__``): vLLM, llama.cpp, any HTTP server.

The program is started by a worker, asked whether it is ready, and started again with backoff when it ends. The
requests go to it through `proxy` and `tunnel`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
import string
import sys
import time
from typing import TYPE_CHECKING, Any

from bentotool.errors import ServiceLoadError

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["PORT", "Command"]

PORT = "BENTOTOOL_PROXY_PORT"
"""The port that the program is to listen on; a command that names it gets a free one."""

_log = logging.getLogger("bentotool.service")
_DEFAULT_PORT = 8000  # BentoML's
_DEFAULT_HEALTH = "/health"  # BentoML's too
_HEALTH_S = 3.0
_FRESH_S = 0.25
_LONGEST_BACKOFF = 30.0
_START_ATTEMPTS = 3
_GRACE_S = 30.0
# prometheus_client in the program would write its metrics among ours
_NOT_INHERITED = ("PROMETHEUS_MULTIPROC_DIR", "BENTOTOOL_WORKER_SLOT", "BENTOTOOL_DOOR")


class Command:
    """The program behind a service, as one worker sees it.

    Args:
        service: has the command.
        workers: of the service. The first worker runs the program for all of them; with ``replicate_process`` each
            runs one, on ports that follow each other.

    Attributes:
        port: on 127.0.0.1, where the program listens.
        problem: why it is not ready; None where it is, or was when it was last asked.
    """

    def __init__(self, service: Service[Any], workers: int) -> None:
        options = service.config.options
        number = os.environ.get("BENTOTOOL_WORKER_INDEX", "1")
        self._index = int(number) if number.isdecimal() else 1
        each = bool(options.get("replicate_process"))
        self._runs = each or self._index == 1
        self._alone = each or workers == 1
        self._service = service
        self._fixed = options.get("http", {}).get("proxy_port")
        self.port: int = (self._fixed or _DEFAULT_PORT) + (self._index - 1 if each else 0)
        endpoints = service.config.endpoints
        self._health = endpoints.get("readyz") or endpoints.get("livez") or _DEFAULT_HEALTH
        self.problem: str | None = f"the command of {service.name} is starting"
        self._asked_at = -1.0
        self._words: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._failed: ServiceLoadError | None = None
        self._noted = False

    # starting and stopping

    async def start(self, instance: Any) -> None:
        """Start the program, and look after it from now on.

        Raises:
            ServiceLoadError: the command is none, there is no such program, or its port is in use.
        """
        self._words = self._command(instance)
        if self._runs:
            program = shutil.which(self._words[0])
            if program is None:
                raise ServiceLoadError(
                    f"the command of {self._service.name} names no program: {self._words[0]!r}",
                    hint="install it, or write its path",
                )
            if await self._listens():
                raise ServiceLoadError(
                    f"port {self.port}, on which the command of {self._service.name} is to listen, is in use",
                    hint=f"set http.proxy_port, or let the command use ${PORT}",
                )
            self._words[0] = program
        self._task = asyncio.get_running_loop().create_task(self._look_after())

    async def first_ready(self) -> None:
        """Wait until the program has been ready once. Raises: ServiceLoadError: it ends again and again before."""
        await self._ready.wait()
        if self._failed is not None:
            raise self._failed

    async def stop(self, grace: float = _GRACE_S) -> None:
        """Ask the program to end; its keeper kills it after `grace` seconds at most."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
        process = self._process
        if process is not None and process.returncode is None:
            if process.stdin is not None:
                process.stdin.close()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(process.wait(), grace + 5.0)

    def _command(self, instance: Any) -> list[str]:
        given = instance.__command__() if hasattr(instance, "__command__") else self._service.cmd
        where = f"the command of {self._service.name}"
        if (
            not isinstance(given, (list, tuple))
            or not given
            or not all(isinstance(word, (str, os.PathLike)) for word in given)
        ):
            raise ServiceLoadError(f"{where} is no list of texts: {given!r}", hint='as ["vllm", "serve", "..."]')
        words = [os.fspath(word) for word in given]
        if self._fixed is None and self._alone and any(PORT in word for word in words):
            self.port = _free_port()
        return [string.Template(word).safe_substitute(self._environment()) for word in words]

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
        # PORT is our own where a platform sets it: the program must not listen there
        return {**kept, "PORT": str(self.port), PORT: str(self.port)}

    # looking after it

    async def _look_after(self) -> None:
        failures = 0
        while True:
            started = time.monotonic()
            if self._runs:
                grace = min(_GRACE_S, max(1.0, self._service.config.timeout))
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "bentotool.runtime.keeper", str(grace), *self._words,
                    stdin=asyncio.subprocess.PIPE, stdout=sys.stderr.fileno(), env=self._environment(),
                )  # fmt: skip
            was_ready = await self._run()
            failures = 1 if was_ready else failures + 1
            status = _why(self._process.returncode) if self._process is not None else "it does not answer"
            delay = 0.0 if failures == 1 else min(_LONGEST_BACKOFF, 0.25 * 2.0 ** (failures - 2))
            self.problem = f"the command of {self._service.name} ended ({status})"
            if not self._ready.is_set() and failures >= _START_ATTEMPTS:
                self._failed = ServiceLoadError(self.problem, hint=f"run it by hand: {' '.join(self._words)}")
                self._ready.set()
                return
            _log.warning("%s after %.1f s; starting again in %g s", self.problem, time.monotonic() - started, delay)
            await asyncio.sleep(delay)

    async def _run(self) -> bool:
        """One life of the program; whether it was ready in it."""
        ended = asyncio.ensure_future(self._process.wait()) if self._process is not None else None
        wait, ready = 0.05, False
        try:
            while ended is None or not ended.done():
                if not ready and await self.is_ready():
                    ready = True
                    self._ready.set()
                pause = asyncio.ensure_future(asyncio.sleep(3600.0 if ready else wait))
                await asyncio.wait([task for task in (ended, pause) if task], return_when=asyncio.FIRST_COMPLETED)
                pause.cancel()
                wait = min(0.5, wait * 1.5)
            return ready
        finally:
            if ended is not None:
                ended.cancel()

    # asking it

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def is_ready(self) -> bool:
        """What the program says at its health path, asked anew where the last answer is older than a moment.

        Its path is ``endpoints.readyz``, else ``endpoints.livez``, else ``/health``. A program that has no such path is
        ready when it answers at all.
        """
        now = time.monotonic()
        if now - self._asked_at < _FRESH_S and self._ready.is_set():
            return self.problem is None
        if self._process is not None and self._process.returncode is not None:
            return False
        name = self._service.name
        try:
            status = await asyncio.wait_for(self._ask(), _HEALTH_S)
        except asyncio.TimeoutError:
            self.problem = f"the command of {name} does not answer"
        except (OSError, ValueError):
            self.problem = f"the command of {name} is starting"
        else:
            unknown = status in (404, 405, 501)
            self.problem = None if status < 400 or unknown else f"the command of {name} is not ready: {status}"
            if unknown and not self._noted:
                self._noted = True
                _log.info("the command of %s has no %s; set endpoints.readyz", name, self._health)
        self._asked_at = time.monotonic()
        return self.problem is None

    def doubt(self) -> None:
        """A request found the program gone: what it said of itself holds no more."""
        self.problem, self._asked_at = f"the command of {self._service.name} went away", -1.0

    async def asked(self) -> str | None:
        """Why the program is not ready, asked anew as by `is_ready`; None where it is."""
        return None if await self.is_ready() else self.problem or f"the command of {self._service.name} is starting"

    async def _ask(self) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(f"GET {self._health} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
            line = await reader.readline()
            kind, _, rest = line.partition(b" ")
            if not kind.startswith(b"HTTP/"):
                raise ValueError("not an answer")
            return int(rest[:3])
        finally:
            writer.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _why(status: int | None) -> str:
    if status is not None and status > 128:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(status - 128).name}"
    return f"exit status {status}"
