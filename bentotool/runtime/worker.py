"""One worker process: the service, a uvicorn server on the inherited socket, a line to the supervisor.

The line is a socket with one JSON object per line. To the supervisor: ``{"type": "parts", ...}`` (see `joining`),
``{"type": "ready", ...}``, ``{"type": "failed", "error": {...}}``, ``{"type": "pong", ...}`` (see `pulse`). From it:
``{"type": "setup", ...}`` first of all, ``{"type": "peers", ...}``, ``{"type": "ping"}``, ``{"type": "drain"}``,
``{"type": "problem", "message": ...}``. When it closes, the supervisor is gone and the worker ends too: no worker
outlives its supervisor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.errors import BentotoolError, ServiceLoadError
from bentotool.runtime.handover import receive_sockets
from bentotool.runtime.logs import set_up_logging, take_loggers
from bentotool.runtime.loops import run
from bentotool.runtime.monitoring import remember_folder
from bentotool.runtime.parent import end_with_parent
from bentotool.runtime.pulse import Pulse, patience
from bentotool.sdk.dependency import use_loop

if TYPE_CHECKING:
    import uvicorn

    from bentotool.runtime.accepting import Shares
    from bentotool.runtime.answering import Answers
    from bentotool.runtime.app import Application

__all__ = ["FAILED", "main"]

FAILED = 3
"""Exit status of a worker whose service did not start; the reason went over the line."""
_JOIN_S = 0.1
_LAST_S = 5.0
"""How much longer than it may a worker takes to end, before it is ended: the supervisor gives it as much."""


def _failure(error: BaseException, folder: Path, form: str) -> dict[str, object]:
    from bentotool.runtime.loading import hiding, place, users_part
    from bentotool.sdk.arguments import redacted

    error = hiding(error, folder) or error
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
        folder: of the project.
        answers: of a service that others call: what answers them, and the socket where.
        shares: with which other workers the first listener is shared.
    """

    def __init__(
        self,
        app: Application,
        asgi: Any,
        listeners: list[socket.socket],
        line: socket.socket,
        drain_delay: float,
        grace: float,
        folder: Path,
        answers: tuple[Answers, socket.socket] | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.app, self.asgi, self.listeners, self.line = app, asgi, listeners, line
        self.drain_delay, self.grace, self.folder = drain_delay, grace, folder
        self.answers, self.shares = answers, shares
        self._writing = threading.Lock()
        self._ended = asyncio.Event()
        self._server: uvicorn.Server | None = None
        self._draining = False
        self._orphaned = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: BentotoolError | None = None

    def tell(self, message: dict[str, object]) -> None:
        with contextlib.suppress(OSError), self._writing:
            self.line.sendall(json.dumps(message).encode() + b"\n")

    def _tell_ready(self) -> None:
        # what is there now stays: without it, a full collection would stop all requests for tens of milliseconds
        gc.collect()
        gc.freeze()
        service = self.app.service
        waiting = self.app.command is not None
        scheme = "https" if self._server is not None and self._server.config.is_ssl else "http"
        said = {"workers": service.config.workers, "name": service.name, "waiting": waiting, "scheme": scheme}
        self.tell({"type": "ready", "patience": patience(self.app.service), **said})
        if waiting:
            self._spawn(self._settle())
        if self.listeners[1:]:
            self._spawn(self._join())

    async def _settle(self) -> None:
        """Say that the service's command is ready, or why it never will be."""
        assert self.app.command is not None
        try:
            await self.app.command.first_ready()
        except ServiceLoadError as error:
            self._failure = error
            self._stop()
        else:
            self.tell({"type": "settled"})

    async def _join(self) -> None:
        """Accept on the lent ports once the service is ready: until then, whoever else holds them answers."""
        from bentotool.runtime.accepting import accept_on
        from bentotool.runtime.readiness import why_not_ready

        while await why_not_ready(self.app) is not None:
            await asyncio.sleep(_JOIN_S)
        if self._server is not None and self.accepting():
            accepting = [await accept_on(self._server, listener, None) for listener in self.listeners[1:]]
            for server in () if self.accepting() else accepting:  # it was told to end meanwhile
                server.close()

    def accepting(self) -> bool:
        """Whether new connections are for this worker."""
        return not self._draining

    async def serve(self, hears: threading.Event) -> None:
        """Start the service, answer requests, stop in order. `hears` is set once this worker hears its supervisor."""
        loop = asyncio.get_running_loop()
        use_loop(loop)
        await self.app.start()
        if self.answers is not None:
            await self.answers[0].listen(self.answers[1])
        pulse = Pulse(self.app.service, loop, self.folder)
        threading.Thread(target=self._hear_supervisor, args=(loop, pulse), name="supervisor", daemon=True).start()
        hears.set()
        with contextlib.suppress(NotImplementedError, ValueError):  # Windows has no such handlers
            loop.add_signal_handler(signal.SIGTERM, self._drain_once)
        try:
            if self.listeners:
                await self._serve_http()
            else:
                self._tell_ready()
                await self._ended.wait()
        finally:
            if self.answers is not None:
                await self.answers[0].close(self.grace)
            await self.app.stop()
            if self._orphaned:  # the supervisor cannot remove its folder any more
                shutil.rmtree(os.environ.get("PROMETHEUS_MULTIPROC_DIR", ""), ignore_errors=True)
        if self._failure is not None:
            raise self._failure

    async def _serve_http(self) -> None:
        import uvicorn

        from bentotool.runtime.accepting import make_server
        from bentotool.runtime.server_options import server_options

        options = server_options(self.app.service, public=self.answers is None)
        if self.app.command is not None:
            from bentotool.runtime.tunnel import make_tunnel

            options["ws"] = make_tunnel(self.app, options["ws"])
        config = uvicorn.Config(
            self.asgi,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=max(1, round(self.grace)),
            **options,
        )
        server = self._server = make_server(config, self._tell_ready, self.shares)
        await server.serve(sockets=self.listeners[:1])

    def _leave(self, seconds: float) -> None:
        """Others accept on the same socket from now on; whoever is connected has a while to go there."""
        self.drain_delay = max(self.drain_delay, seconds)
        for server in self._server.servers if self._server is not None and self._server.started else ():
            server.close()

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

    def _drain_once(self) -> None:
        """A signal to the whole group comes here too, before the supervisor's word or after it: it is no second one."""
        if not self._draining or self._orphaned:
            self.drain()

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
        self._ended.set()
        if self._server is not None:
            self._server.should_exit = True

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hear_supervisor(self, loop: asyncio.AbstractEventLoop, pulse: Pulse) -> None:
        """In a thread of its own, so that a ping is answered whatever the service does on the event loop."""
        with self.line.makefile("rb", buffering=0) as lines, contextlib.suppress(OSError, RuntimeError):
            for line in lines:
                message = json.loads(line)
                if message["type"] == "ping":
                    self.tell(pulse.answer())
                else:
                    loop.call_soon_threadsafe(self._take, message)
        most = self.drain_delay + self.grace + _LAST_S
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(self._lose_supervisor)
        time.sleep(most)
        os._exit(1)  # the service blocks the event loop, and nobody else is left to end this process

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "drain":
            if message.get("leave"):
                self._leave(message["leave"])
            self._drain_once()
        elif message["type"] == "problem":
            self.app.problem = message["message"]

    def _lose_supervisor(self) -> None:
        if not self._draining:  # the supervisor died: nobody restarts us and nobody stops us
            self.drain_delay = 0.0
            self._orphaned = True
            self.drain()


def _parser() -> argparse.ArgumentParser:
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
    parser.add_argument("--setup", action="store_true", help="the first line of the supervisor says more")
    parser.add_argument("--tell", action="store_true", help="tell the supervisor what services there are")
    parser.add_argument("--inside", action="store_true", help="dependencies live in this process")
    parser.add_argument("--part", help="serve this service, which the one named depends on")
    parser.add_argument("--called", action="store_true", help="the last socket is where other services call")
    parser.add_argument("--index", type=int, default=0, help="among the workers of its service, from 0")
    parser.add_argument("--middleware", action="append", default=[], help="module:attribute; outermost first")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Entry point of the worker process."""
    options = _parser().parse_args(argv)
    *listeners, line = receive_sockets(options.sockets)
    set_up_logging(options.log_format, options.quiet)
    remember_folder()
    hears = end_with_parent()
    try:
        make = _prepare(options, listeners, line)

        async def serve() -> None:
            await make().serve(hears)

        run(serve())
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # the latter two are of the service's own making: SIGINT is ignored here
        failure = _failure(error, options.app_dir, options.log_format)
        with contextlib.suppress(OSError):
            line.sendall(json.dumps({"type": "failed", **failure}).encode() + b"\n")
        return FAILED
    return 0


def _prepare(options: argparse.Namespace, listeners: list[socket.socket], line: socket.socket) -> Callable[[], Worker]:
    """Import the service and find its place; give what makes its worker, inside the event loop."""
    from bentotool.runtime.joining import find_part, read_line, take_peers, tell_parts
    from bentotool.runtime.loading import load_service
    from bentotool.runtime.metricfiles import DIRECTORY, SLOT, use_slot
    from bentotool.runtime.tls import check_tls
    from bentotool.sdk.arguments import provide

    if os.environ.get(DIRECTORY):
        use_slot(os.environ.get(SLOT, "0"))
    setup = read_line(line) if options.setup else {}
    if setup.get("values"):
        provide(setup["values"])
    entry, _name = load_service(options.app_dir, options.service)
    service = find_part(entry, options.part) if options.part else entry
    if not options.called:
        check_tls(service)
    if options.tell:  # the first of all workers, and the others have not begun
        entry.prepare()
    peers = tell_parts(entry, line, inside=options.inside) if options.tell else setup.get("peers", {})
    take_loggers(service, options.log_format, options.quiet)
    take_peers(entry, service, peers)
    from bentotool.runtime.app import Application
    from bentotool.runtime.middleware import with_middleware
    from bentotool.runtime.otherpaths import with_other_paths

    app = Application(service, workers=options.workers or service.config.workers, loopback=options.loopback)
    asgi = with_middleware(app, () if options.part else options.middleware)
    public = asgi if options.part else with_other_paths(app, asgi)
    answers = None
    if options.called:
        from bentotool.runtime.answering import Answers

        answers = Answers(app, peers["token"]), listeners.pop()
    shares = _shares(options, app.workers)
    folder, delay, grace = options.app_dir.resolve(), options.drain_delay, options.grace
    return lambda: Worker(app, public, listeners, line, delay, grace, folder, answers, shares)


def _shares(options: argparse.Namespace, workers: int) -> Shares | None:
    """Of a socket that several workers of one service accept from."""
    from bentotool.runtime.accepting import Shares
    from bentotool.runtime.metricfiles import DIRECTORY

    folder = os.environ.get(DIRECTORY)
    if folder is None or workers < 2:
        return None
    try:
        return Shares(Path(folder, f"connections-{options.part or 'entry'}"), options.index, workers)
    except OSError:  # the disk is full: then the system shares connections out
        return None


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # a synchronous call that never ends must not hold the process back
