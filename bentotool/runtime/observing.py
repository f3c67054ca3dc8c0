"""What stands around the application while its requests are logged or traced; nothing at all where neither is asked."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from bentotool.runtime.accesslog import AccessLog, Exchange
from bentotool.runtime.deadlines import Receive, Scope, Send
from bentotool.sdk.observation import override_access_log
from bentotool.sdk.requested import REQUEST

if TYPE_CHECKING:
    from bentotool.runtime.app import Application
    from bentotool.runtime.tracing import Tracing

__all__ = ["OBSERVED", "REACHED", "Observing", "count_unanswered", "observing"]

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
_KEPT = ("http", "websocket")
_ID = b"x-request-id"
_SWITCHED = 101
OBSERVED = "bentotool.observed"
"""In the scope of a request that is logged or traced already."""
REACHED = "bentotool.reached"
"""A list in the scope: a route that counts its requests itself puts something in."""


def observing(app: Application) -> Observing | None:
    """What logs and traces the requests of an application; None where it shall do neither.

    Raises:
        ConfigError: ``BENTOTOOL_ACCESS_LOG`` is no number.
        MissingDependencyError: the service asks for tracing, which is not installed.
    """
    options = override_access_log(app.service.config.access_log, os.environ.get("BENTOTOOL_ACCESS_LOG"))
    log = AccessLog(options, app.answer.template) if options.enabled else None
    return None if log is None and app.tracing is None else Observing(app, log, app.tracing)


class Observing:
    """Around an application, which gives what is marked as observed to its routes.

    Args:
        app: the application.
        log: is told of each request, or None.
        tracing: makes a span of each request, or None.
    """

    def __init__(self, app: Application, log: AccessLog | None, tracing: Tracing | None) -> None:
        self._app, self._log, self._tracing = app, log, tracing
        answer = app.service.config.options.get("http", {}).get("response", {})
        self._tell_trace = bool(answer.get("trace_id", False))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope = {**scope, OBSERVED: True}
        if scope["type"] not in _KEPT:
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(self._app.service.path_prefix)
        tracing = self._tracing if self._tracing is not None and self._tracing.traces(path) else None
        log = self._log if self._log is not None and not self._log.skips(path) else None
        if tracing is None and log is None:
            await self._app(scope, receive, send)
            return
        exchange = Exchange(scope)
        started = time.monotonic()
        try:
            if tracing is None:
                REQUEST.set(None)  # of a request before, on the same connection
                await self._app(scope, receive, self._noticing(exchange, send))
            else:
                scope = exchange.scope = self._named(exchange)
                with tracing.request(exchange, self._app.answer.template(scope)) as exchange.trace:
                    await self._app(scope, receive, self._noticing(exchange, send))
        finally:
            if log is not None:
                exchange.request_id = (REQUEST.get() or (b"",))[0]
                log.write(exchange, time.monotonic() - started)

    def _named(self, exchange: Exchange) -> Scope:
        """The request with the id that all of it goes by, which its span tells too."""
        headers = exchange.headers
        request_id = exchange.request_id = self._app.request_id(headers)
        if headers.get(_ID) == request_id:
            return exchange.scope
        others = [(name, value) for name, value in exchange.scope["headers"] if name != _ID]
        return {**exchange.scope, "headers": [*others, (_ID, request_id)]}

    def _noticing(self, exchange: Exchange, send: Send) -> Send:
        tell = self._tell_trace

        async def noticing(message: dict[str, Any]) -> None:
            kind = message["type"]
            if kind == "http.response.body":
                exchange.size += len(message.get("body", b""))
            elif kind in ("http.response.start", "websocket.http.response.start"):
                exchange.status, exchange.answer = message["status"], message.get("headers", ())
                if tell and exchange.trace is not None:
                    told = (b"x-bentoml-trace-id", b"%032x" % exchange.trace[0])
                    message = {**message, "headers": [*exchange.answer, told]}
            elif kind == "websocket.accept":
                exchange.status = _SWITCHED
            elif kind == "websocket.close" and exchange.status != _SWITCHED:
                exchange.status = 403
            await send(message)

        return noticing


async def count_unanswered(app: Application, inner: ASGI, scope: Scope, receive: Receive, send: Send) -> None:
    """Let a request be answered, and count it where no route does so itself: unknown paths, refused callers."""
    started, reached, status = time.monotonic(), [], 499  # type: ignore[var-annotated]
    scope[REACHED] = reached

    async def noticing(message: dict[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    try:
        await inner(scope, receive, noticing)
    finally:
        if not reached and app.metrics is not None:
            app.metrics.unanswered(app.answer.template(scope), status, time.monotonic() - started)
