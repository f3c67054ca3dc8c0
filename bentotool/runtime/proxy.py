"""Passing requests on to the program behind a service, and its answers back, as they are.

A body is neither decoded nor held: what came compressed goes on compressed, what comes in pieces goes on in pieces.
Headers stay but for those that belong to one connection (RFC 9110, 7.6.1).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import h11

from bentotool.runtime.body import Disconnected
from bentotool.runtime.deadlines import Receive, Scope, Send
from bentotool.sdk.exceptions import (
    DeadlineExceeded,
    InvalidArgument,
    PayloadTooLarge,
    ServiceError,
    ServiceUnavailable,
)

if TYPE_CHECKING:
    from bentotool.runtime.app import Application
    from bentotool.runtime.command import Command

__all__ = ["Proxy", "forwarded", "target_of"]

_log = logging.getLogger("bentotool.service")
_READ = 65536
_LONGEST_HEAD = 1 << 18
_OF_ONE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"expect")
)
Headers = list[tuple[bytes, bytes]]


class _BadGateway(ServiceError):
    code = "bad_gateway"
    http_status = 502


def _of_one_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """Names of the headers that go no further than one connection."""
    lists = [value for name, value in headers if name == b"connection"]
    return {*_OF_ONE_CONNECTION, *(token.strip().lower() for value in lists for token in value.split(b","))}


def target_of(scope: Scope, prefix: str) -> bytes:
    """Path and query as they came, without the service's prefix."""
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    path = path.removeprefix(prefix.encode()) or b"/"
    query: bytes = scope.get("query_string", b"")
    return path + b"?" + query if query else path


def forwarded(scope: Scope, request_id: bytes, prefix: str) -> Headers:
    """The headers of a request as the program gets them, and who asked."""
    given: Headers = scope["headers"]
    dropped = {*_of_one_connection(given), b"x-request-id", b"x-forwarded-proto", b"x-forwarded-prefix"}
    found = [(name, value) for name, value in given if name not in dropped and name != b"x-forwarded-for"]
    if not any(name == b"host" for name, _ in found):
        found.append((b"host", b"localhost"))
    hops = [value for name, value in given if name == b"x-forwarded-for"]
    client = scope.get("client")
    hops += [str(client[0]).encode()] if client else []
    found += [(b"x-forwarded-for", b", ".join(hops))] if hops else []
    secure = scope.get("scheme") in ("https", "wss")
    found += [(b"x-forwarded-proto", b"https" if secure else b"http"), (b"x-request-id", request_id)]
    found += [(b"x-forwarded-prefix", prefix.encode())] if prefix else []
    return found


class Proxy:
    """Answers whatever the service itself has no answer for.

    Args:
        app: the application.
        command: the program.
    """

    def __init__(self, app: Application, command: Command) -> None:
        self._app, self._command = app, command
        self._prefix = app.service.path_prefix
        self._metrics = app.metrics.route("/{path}") if app.metrics else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, started, status = self._app, time.monotonic(), 499
        request_id = app.request_id(dict(scope["headers"]))
        app.in_flight += 1
        if self._metrics is not None:
            self._metrics.in_progress.inc()
        try:
            status = await self._answer(scope, receive, send, request_id)
        except Disconnected:
            pass
        finally:
            app.in_flight -= 1
            if self._metrics is not None:
                self._metrics.in_progress.dec()
                self._metrics.done(status, time.monotonic() - started)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: bytes) -> int:
        """Give the status. Raises: Disconnected."""
        exchange = _Exchange(self._command.port, self._app.service.config.max_body_bytes, send)
        try:
            self._app.admit()
            if self._command.problem is not None and (problem := await self._command.asked()) is not None:
                raise ServiceUnavailable(problem, retry_after=1.0)
            if scope["type"] == "websocket":
                await self._tunnel(scope, request_id)
                return 101
            await exchange.run(self._request(scope, request_id), receive, self._seconds(scope))
        except Disconnected:
            raise
        except Exception as error:
            if isinstance(error, (OSError, h11.RemoteProtocolError)):
                self._command.doubt()
            if not exchange.status:
                return await self._fail(error, scope, send, request_id)
            # the connection is cut without an end, so that the caller sees that the answer is not whole
            _log.warning("the command of %s did not finish its answer: %r", self._app.service.name, error)
        return exchange.status

    async def _fail(self, error: Exception, scope: Scope, send: Send, request_id: bytes) -> int:
        if isinstance(error, (OSError, h11.RemoteProtocolError)):
            what = "went away" if isinstance(error, OSError) else "sent no answer that can be read"
            error = _BadGateway(f"the command of {self._app.service.name} {what}", retry_after=1.0)
        elif isinstance(error, h11.LocalProtocolError):
            error = InvalidArgument("the request cannot be passed on")
        if scope["type"] == "websocket":
            from bentotool.runtime.gate import refuse_websocket

            await refuse_websocket(self._app, error, scope, send)
            return getattr(error, "http_status", 500)
        return await self._app.send_failure(error, send, request_id, scope["path"])

    async def _tunnel(self, scope: Scope, request_id: bytes) -> None:
        open_tunnel = scope.get("extensions", {}).get("bentotool.tunnel")
        if open_tunnel is None:
            raise ServiceError("this server passes no websockets on", 501)
        headers = forwarded(scope, request_id, self._prefix)
        await open_tunnel(self._command.port, target_of(scope, self._prefix), headers, self._seconds(scope))

    def _seconds(self, scope: Scope) -> float:
        """How long the program may take to begin its answer; what it then sends may take as long as it likes."""
        timeout = self._app.service.config.timeout
        asked = dict(scope["headers"]).get(b"x-request-timeout-ms")
        with contextlib.suppress(ValueError):
            if asked is not None and float(asked) > 0:
                return min(timeout, float(asked) / 1000)
        return timeout

    def _request(self, scope: Scope, request_id: bytes) -> h11.Request:
        headers = forwarded(scope, request_id, self._prefix)
        if any(name == b"transfer-encoding" for name, _ in scope["headers"]):
            headers = [item for item in headers if item[0] != b"content-length"]
            headers.append((b"transfer-encoding", b"chunked"))
        headers.append((b"connection", b"close"))
        return h11.Request(method=scope["method"], target=target_of(scope, self._prefix), headers=headers)


class _Exchange:
    """One request and its answer, on a connection of its own.

    Attributes:
        status: of the answer; 0 until it has begun.
    """

    def __init__(self, port: int, limit: int, send: Send) -> None:
        self._port, self._limit, self._send = port, limit, send
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
        self._reader: Any = None
        self._writer: Any = None
        self.status = 0

    async def run(self, request: h11.Request, receive: Receive, seconds: float) -> None:
        """Raises: DeadlineExceeded; Disconnected; PayloadTooLarge; OSError; h11.RemoteProtocolError."""
        length = dict(request.headers).get(b"content-length")
        if length is not None and int(length) > self._limit:
            raise PayloadTooLarge(f"the body has {int(length)} bytes, at most {self._limit} are taken")
        first = self._http.send(request)
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(first)
        upload = asyncio.ensure_future(self._upload(receive))
        answer = asyncio.ensure_future(self._answer())
        tasks = {upload, answer}
        end = time.monotonic() + seconds
        try:
            while not answer.done():
                left = None if self.status else max(0.0, end - time.monotonic())
                done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not done and not self.status:
                    raise DeadlineExceeded(f"the command did not answer within {seconds:g} seconds")
                if upload in done and not answer.done():
                    tasks.discard(upload)
                    error = upload.exception()
                    if error is not None and not isinstance(error, OSError):  # else it may have answered already
                        raise error
            answer.result()
        finally:
            for task in (upload, answer):
                task.cancel()
            await asyncio.wait((upload, answer))
            for task in (upload, answer):
                if not task.cancelled():
                    task.exception()
            self._writer.close()

    async def _upload(self, receive: Receive) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            body = message.get("body", b"")
            size += len(body)
            if size > self._limit:
                raise PayloadTooLarge(f"the body is larger than {self._limit} bytes")
            if body:
                self._writer.write(self._http.send(h11.Data(data=body)))
                await self._writer.drain()
            more = message.get("more_body", False)
        self._writer.write(self._http.send(h11.EndOfMessage()))
        while (await receive())["type"] != "http.disconnect":
            pass
        raise Disconnected

    async def _answer(self) -> None:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(_READ))
            elif isinstance(event, h11.Response):
                await self._begin(event)
            elif isinstance(event, h11.Data):
                await self._send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                await self._send({"type": "http.response.body", "body": b""})
                return
            elif isinstance(event, h11.ConnectionClosed):
                raise ConnectionResetError("the program closed the connection")

    async def _begin(self, response: h11.Response) -> None:
        dropped = {*_of_one_connection(response.headers), b"date"}  # the server in front sets its own date
        headers = [(name, value) for name, value in response.headers if name not in dropped]
        self.status = response.status_code
        await self._send({"type": "http.response.start", "status": response.status_code, "headers": headers})
