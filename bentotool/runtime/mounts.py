"""Mounted applications: which one a path belongs to, their lifespan, and limits around them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bentotool.errors import ServiceLoadError
from bentotool.runtime.body import check_size
from bentotool.runtime.deadlines import Receive, Scope, Send, disconnect_probe
from bentotool.sdk.exceptions import DeadlineExceeded, PayloadTooLarge
from bentotool.sdk.mounting import Mount

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["Mounted"]

_log = logging.getLogger("bentotool.service")
_LIFESPAN_SECONDS = 60.0


class Mounted:
    """One mounted application.

    Args:
        mount: what, and where.
        app: the application it is mounted on.
    """

    def __init__(self, mount: Mount, app: Application) -> None:
        self.mount, self._app = mount, app
        self.path = app.service.path_prefix + mount.path
        self._timeout, self._limit = app.service.config.timeout, app.service.config.max_body_bytes
        self._metrics = app.metrics.route(f"{mount.path}/{{path}}") if app.metrics else None
        self._state: dict[str, Any] = {}
        self._lifespan: _Lifespan | None = None
        self._inner = mount.app
        if mount.wsgi:
            from bentotool.runtime.wsgi import Wsgi

            self._inner = Wsgi(mount.app)

    def holds(self, path: str) -> bool:
        """Whether a path is inside."""
        return path.startswith(self.path + "/") or path == self.path

    def has(self, scope: Scope) -> bool:
        """Whether the application has a route for a request, as far as it says: Starlette's does."""
        routes = getattr(self.mount.app, "routes", None)
        if not isinstance(routes, (list, tuple)) or not all(hasattr(route, "matches") for route in routes):
            return True
        inner = {**scope, "root_path": self.path}
        return any(getattr(route.matches(inner)[0], "value", 0) for route in routes)

    async def start(self) -> None:
        """Raises: ServiceLoadError: the application says that it cannot start."""
        if not self.mount.wsgi:
            self._lifespan = _Lifespan(self._inner, self._state)
            problem = await self._lifespan.start()
            if problem is not None:
                raise ServiceLoadError(f"the application mounted at {self.mount.path or '/'} did not start: {problem}")

    async def stop(self) -> None:
        if self._lifespan is not None:
            await self._lifespan.stop()
            self._lifespan = None
        if self.mount.wsgi:
            self._inner.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, "root_path": self.path, "state": {**scope.get("state", {}), **self._state}, "app": None}
        del scope["app"]  # of whoever stands above
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        if scope["path"] == self.path and self.mount.path and scope["method"] in ("GET", "HEAD"):
            await _redirect(scope, send)
            return
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, started, status = self._app, time.monotonic(), 499
        headers = dict(scope["headers"])
        request_id = app.request_id(headers)
        begun = late = False

        async def noticing(message: dict[str, Any]) -> None:
            nonlocal begun, status
            if late:
                raise DeadlineExceeded("the answer was given up")
            if message["type"] == "http.response.start":
                begun, status = True, message["status"]
            await send(message)

        def give_up() -> bool:
            nonlocal late
            late = not begun
            return late

        app.in_flight += 1
        if self._metrics is not None:
            self._metrics.in_progress.inc()
        try:
            app.admit()
            check_size(headers, self._limit, compressed=True)
            bounded = _Bounded(receive, self._limit)
            await _first_within(self._inner(scope, bounded.receive, noticing), self._timeout, give_up)
            if not begun and not bounded.disconnected:
                raise RuntimeError("the application answered nothing")
        except Exception as error:
            if begun:
                raise  # the server cuts the connection: the caller sees that the answer is not whole
            status = await app.send_failure(error, send, request_id, self.mount.path or "/")
        finally:
            app.in_flight -= 1
            if self._metrics is not None:
                self._metrics.in_progress.dec()
                self._metrics.done(status, time.monotonic() - started)


async def _redirect(scope: Scope, send: Send) -> None:
    """From ``/ui`` to ``/ui/``, so that the links of a page there are right."""
    query = scope.get("query_string", b"")
    place = scope["path"].rpartition("/")[2].encode() + b"/" + (b"?" + query if query else b"")
    headers = [(b"location", place), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class _Bounded:
    """The body of a request, up to a number of bytes. It is what `receive` is bound to, so it has uvicorn's flag too.

    Args:
        receive: ASGI's.
        limit: bytes.
    """

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._size = receive, limit, 0
        self._gone = disconnect_probe(receive)

    @property
    def disconnected(self) -> bool:
        return self._gone()

    async def receive(self) -> dict[str, Any]:
        """Raises: PayloadTooLarge."""
        message = await self._receive()
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise PayloadTooLarge(f"the body is larger than {self._limit} bytes")
        return message


async def _first_within(work: Any, seconds: float, give_up: Callable[[], bool]) -> None:
    """Await an application that has to start its answer in time; what it then sends may take as long as it likes.

    Args:
        give_up: called when the time is over; False where the answer has begun.

    Raises:
        DeadlineExceeded: it did not start.
    """
    task = asyncio.ensure_future(work)
    try:
        done, _ = await asyncio.wait((task,), timeout=seconds)
        if not done and give_up():
            raise DeadlineExceeded(f"no answer within {seconds:g} seconds")
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=1)


class _Lifespan:
    """The lifespan of one application (https://asgi.readthedocs.io/en/latest/specs/lifespan.html)."""

    def __init__(self, app: Any, state: dict[str, Any]) -> None:
        self._app, self._state = app, state
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answer: asyncio.Future[str | None] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str | None:
        """Why the application does not start; None where it does, or has no lifespan."""
        self._task = asyncio.get_running_loop().create_task(self._run())
        return await self._say("lifespan.startup")

    async def stop(self) -> None:
        if self._task is None or self._task.done():
            return
        try:
            problem = await self._say("lifespan.shutdown")
            if problem is not None:
                _log.error("a mounted application did not stop in order: %s", problem)
        finally:
            self._task.cancel()

    async def _say(self, kind: str) -> str | None:
        self._answer = asyncio.get_running_loop().create_future()
        self._inbox.put_nowait({"type": kind})
        done, _ = await asyncio.wait((self._answer,), timeout=_LIFESPAN_SECONDS)
        return self._answer.result() if done else f"no answer to {kind} within {_LIFESPAN_SECONDS:g} seconds"

    def _settle(self, problem: str | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(problem)

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}

        async def send(message: dict[str, Any]) -> None:
            failed = message["type"].endswith(".failed")
            text = str(message.get("message", "")).strip().rpartition("\n")[2] or "it does not say why"
            self._settle(text if failed else None)

        try:
            await self._app(scope, self._inbox.get, send)
        except Exception as error:  # one without a lifespan raises at the scope it does not know
            _log.debug("a mounted application has no lifespan: %r", error)
        self._settle(None)
