"""One worker process: the service, a uvicorn server on the inherited socket, a line to the supervisor.

The line is a socket with one JSON object per line. To the supervisor: ``{"type": "ready", "workers": 2}``, ``{"type":
"failed", "error": {...}}``. From it: ``{"type": "arguments", "values": {...}}`` first of all, where the worker was
started with ``--arguments``; ``{"type": "drain"}``, ``{"type": "problem", "message": ...}``. When it closes,
the supervisor is gone and the worker ends too: no worker outlives its supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.errors import BentotoolError, ServiceLoadError

if TYPE_CHECKING:
    import uvicorn

    from bentotool.runtime.app import Application

__all__ = ["FAILED", "main"]

FAILED = 3
"""Exit status of a worker whose service did not start; the reason went over the line."""
_JOIN_S = 0.1


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from bentotool.runtime.app import json_log_record

        return json_log_record(record)


class _Handler(logging.StreamHandler):  # type: ignore[type-arg]  # not subscriptable in Python 3.10
    """To standard error, without the secrets that the service was given."""

    def format(self, record: logging.LogRecord) -> str:
        from bentotool.sdk.arguments import redacted

        return redacted(super().format(record))


def _set_up_logging(form: str, quiet: bool) -> None:
    if form == "json":  # standard output is the supervisor's alone, whatever the service prints
        sys.stdout.flush()
        os.dup2(2, 1)
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        _JSONFormatter() if form == "json" else logging.Formatter("%(levelname)s %(name)s: %(message)s")
    )
    logger = logging.getLogger("bentotool")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
    logging.getLogger("uvicorn").addHandler(handler)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _failure(error: BaseException, folder: Path, form: str) -> dict[str, object]:
    from bentotool.runtime.loading import place, users_part
    from bentotool.sdk.arguments import redacted

    if isinstance(error, BentotoolError):
        error.message = redacted(error.message)
        return error.to_dict()
    text = str(error).partition("\n")[0]
    message = redacted(f"{place(error, folder)}: {type(error).__name__}: {text}")
    part = users_part(error, folder)
    if form == "json":
        logging.getLogger("bentotool.service").error("the service did not start", exc_info=(type(error), error, part))
    else:
        sys.stderr.write(redacted("".join(traceback.format_exception(type(error), error, part))))
    return ServiceLoadError(message, hint="the traceback is above").to_dict()


class Worker:
    """Serves until told to stop.

    Args:
        app: the service.
        asgi: what is served: the service, inside its middleware.
        listeners: bound sockets. What comes after the first is lent: others accept from it too, and this worker does so
            from when its service says that it is ready.
        line: to the supervisor.
        drain_delay: seconds in which requests are still accepted after readiness went away.
        grace: seconds for requests in flight.
    """

    def __init__(
        self,
        app: Application,
        asgi: Any,
        listeners: list[socket.socket],
        line: socket.socket,
        drain_delay: float,
        grace: float,
    ) -> None:
        self.app, self.asgi, self.listeners, self.line = app, asgi, listeners, line
        self.drain_delay, self.grace = drain_delay, grace
        self._server: uvicorn.Server | None = None
        self._draining = False
        self._orphaned = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def tell(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError):
            self.line.sendall(json.dumps(message).encode() + b"\n")

    def _tell_ready(self) -> None:
        service = self.app.service
        self.tell({"type": "ready", "workers": service.config.workers, "name": service.name})
        if self.listeners[1:]:
            self._spawn(self._join())

    async def _join(self) -> None:
        """Accept on the lent ports once the service is ready: until then, whoever else holds them answers."""
        while not (self.app.ready and self.app.problem is None and await self.app.probe("__is_ready__")):
            await asyncio.sleep(_JOIN_S)
        if self._server is not None and self.accepting():
            accepting = [await _accept(self._server, listener) for listener in self.listeners[1:]]
            for server in () if self.accepting() else accepting:  # it was told to end meanwhile
                server.close()

    def accepting(self) -> bool:
        """Whether new connections are for this worker."""
        return not self._draining

    async def serve(self) -> None:
        """Start the service, answer requests, stop in order."""
        import uvicorn

        loop = asyncio.get_running_loop()
        await self.app.start()
        config = uvicorn.Config(
            self.asgi,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(self.grace)),
            ws="none",
        )
        server = self._server = _make_server(config, self._tell_ready)
        self._spawn(self._listen_to_supervisor())
        with contextlib.suppress(NotImplementedError, ValueError):  # Windows has no such handlers
            loop.add_signal_handler(signal.SIGTERM, self.drain)
        try:
            await server.serve(sockets=self.listeners[:1])
        finally:
            await self.app.stop()
            if self._orphaned:  # the supervisor cannot remove its folder any more
                shutil.rmtree(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""), ignore_errors=True)

    def drain(self) -> None:
        """Stop in order; the second call stops at once."""
        if self._draining:
            self._stop()
            return
        self._draining = True
        self.app.ready = False
        self.app.drain_by = time.monotonic() + self.drain_delay + self.grace
        self._send_clients_away()
        self._spawn(self._stop_after_delay())

    def _send_clients_away(self) -> None:
        """From now on every answer is the last of its connection; those that are new on a lent port are for others.

        A connection that is merely cut loses the request that is on its way just then.
        """
        if self._server is None:
            return
        self._server.config.encoded_headers.append((b"connection", b"close"))
        self._server.server_state.default_headers = [
            *self._server.server_state.default_headers, (b"connection", b"close"),
        ]  # fmt: skip
        for server in self._server.servers[1:] if self._server.started else ():
            server.close()

    async def _stop_after_delay(self) -> None:
        await asyncio.sleep(self.drain_delay)
        self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.should_exit = True

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen_to_supervisor(self) -> None:
        reader, _writer = await asyncio.open_connection(sock=self.line.dup())
        while line := await reader.readline():
            message = json.loads(line)
            if message["type"] == "drain":
                self.drain()
            elif message["type"] == "problem":
                self.app.problem = message["message"]
        if not self._draining:  # the supervisor died: nobody restarts us and nobody stops us
            self.drain_delay = 0.0
            self._orphaned = True
            self.drain()


def _make_server(config: uvicorn.Config, on_started: Callable[[], None]) -> uvicorn.Server:
    """A uvicorn server without its signal handlers, and telling when it has started."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                on_started()

    return Server(config)


async def _accept(server: uvicorn.Server, listener: socket.socket) -> asyncio.Server:
    """Let a server that has started accept on one more socket, as its own ``startup`` does."""

    def create_protocol() -> asyncio.Protocol:
        return server.config.http_protocol_class(  # type: ignore[call-arg]
            config=server.config, server_state=server.server_state, app_state=server.lifespan.state
        )

    loop = asyncio.get_running_loop()
    accepting = await loop.create_server(create_protocol, sock=listener, backlog=server.config.backlog)
    server.servers.append(accepting)
    return accepting


def _run(work: Any) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


def main(argv: list[str] | None = None) -> int:
    """Entry point of the worker process."""
    parser = argparse.ArgumentParser(prog="python -m bentotool.runtime.worker")
    parser.add_argument("--sockets", required=True)
    parser.add_argument("--app-dir", required=True, type=Path)
    parser.add_argument("--service")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--loopback", action="store_true")
    parser.add_argument("--drain-delay", type=float, default=0.0)
    parser.add_argument("--grace", type=float, default=30.0)
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--quiet", action="store_true")
    parser.add_argument("--arguments", action="store_true", help="the first line of the supervisor has them")
    parser.add_argument("--middleware", action="append", default=[], help="module:attribute; outermost first")
    options = parser.parse_args(argv)
    *listeners, line = receive_sockets_of(options.sockets)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches the whole group; the supervisor decides
    _set_up_logging(options.log_format, options.quiet)
    worker: Worker | None = None
    try:
        from bentotool.runtime.loading import load_service
        from bentotool.runtime.metrics import DIRECTORY, SLOT, use_slot
        from bentotool.sdk.arguments import provide

        if os.environ.get(DIRECTORY):
            use_slot(os.environ.get(SLOT, "0"))
        if options.arguments:
            provide(_arguments(line))
        service, _name = load_service(options.app_dir, options.service)
        from bentotool.runtime.app import Application

        app = Application(service, workers=options.workers or service.config.workers, loopback=options.loopback)
        from bentotool.runtime.middleware import with_middleware

        asgi = with_middleware(app, options.middleware)
        worker = Worker(app, asgi, listeners, line, options.drain_delay, options.grace)
        _run(worker.serve())
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # the latter two are of the service's own making: SIGINT is ignored here
        failure = _failure(error, options.app_dir, options.log_format)
        with contextlib.suppress(OSError):
            line.sendall(json.dumps({"type": "failed", **failure}).encode() + b"\n")
        return FAILED
    return 0


def _arguments(line: socket.socket) -> dict[str, Any]:
    """The arguments of the service. They come over the line: argv and the environment are seen by others."""
    with line.makefile("rb", buffering=0) as stream:  # unbuffered: what follows is read elsewhere
        document: dict[str, Any] = json.loads(stream.readline())
    return document["values"]  # type: ignore[no-any-return]


def receive_sockets_of(where: str) -> list[socket.socket]:
    """The listeners and, last, the line, in the order in which the supervisor hands them over."""
    from bentotool.runtime.handover import receive_sockets

    return receive_sockets(where)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a synchronous call that never ends must not hold the process back
