"""The called side of calls between services: one connection carries one call after the other.

A connection that ends while a call runs cancels it. A stream is sent as fast as its reader takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec

from bentotool.runtime.deadlines import under_deadline
from bentotool.runtime.endpoint import Endpoint
from bentotool.runtime.failing import ENDING, harmless, status_of
from bentotool.runtime.readiness import why_not_ready
from bentotool.runtime.typedcalls import TypedCall
from bentotool.runtime.wire import (
    CALL,
    END,
    ERROR,
    HELLO,
    ITEM,
    MAX_MESSAGE,
    READY,
    RESULT,
    WELCOME,
    CallHead,
    Frame,
    FrameReader,
    Hello,
    WireError,
    frame,
    pack,
    unpack,
)
from bentotool.sdk.carried_errors import carry
from bentotool.sdk.context import Context, Request
from bentotool.sdk.exceptions import NotFound, ServiceError

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["Answers"]

_log = logging.getLogger("bentotool.service")
_GREETING_S = 5.0
"""Whoever connects has shown the token by then, or goes."""


class _Asked:
    """One call, in the form in which an endpoint asks whether its caller is still there."""

    def __init__(self) -> None:
        self.disconnected = False

    async def receive(self) -> dict[str, Any]:
        return {"type": "http.disconnect"}


class Answers:
    """Answers the calls of other services of the same server.

    Args:
        app: the service.
        token: what a caller has to show.
    """

    def __init__(self, app: Application, token: str) -> None:
        self.app, self.token = app, token
        self.connections: set[_Connection] = set()
        self._typed: dict[str, TypedCall] = {}
        self._server: asyncio.AbstractServer | None = None

    async def listen(self, listener: Any) -> None:
        """Accept on a bound socket."""
        loop = asyncio.get_running_loop()
        listener.setblocking(False)
        self._server = await loop.create_server(lambda: _Connection(self), sock=listener, backlog=2048)

    async def close(self, grace: float) -> None:
        """Accept nothing more, let calls end within `grace` seconds, close."""
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.leave()
        running = [connection.task for connection in self.connections if connection.task is not None]
        if running:
            await asyncio.wait(running, timeout=grace)
        for connection in list(self.connections):
            connection.abort()

    def typed(self, endpoint: Endpoint) -> TypedCall:
        """The signature of an API."""
        found = self._typed.get(endpoint.spec.name)
        if found is None:
            found = self._typed[endpoint.spec.name] = TypedCall(self.app.service.name, endpoint.spec)
        return found


class _Connection(asyncio.BufferedProtocol):
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._reader = FrameReader()
        self._transport: Any = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._known = False
        self._greeting: asyncio.TimerHandle | None = None
        self._leaving = False
        self._asked: _Asked | None = None
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._answers.connections.add(self)
        self._greeting = asyncio.get_running_loop().call_later(_GREETING_S, transport.abort)  # type: ignore[attr-defined]

    def connection_lost(self, _error: Exception | None) -> None:
        self._answers.connections.discard(self)
        if self._greeting is not None:
            self._greeting.cancel()
        self._writable.set()
        if self._asked is not None:
            self._asked.disconnected = True
        if self.task is not None:
            self.task.cancel()

    def get_buffer(self, _hint: int) -> memoryview:
        return self._reader.buffer()

    def buffer_updated(self, count: int) -> None:
        try:
            for received in self._reader.received(count):
                self._take(received)
        except WireError as error:
            _log.warning("a connection between services was closed: %s", error.message)
            self._transport.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def leave(self) -> None:
        """Close as soon as nothing runs."""
        self._leaving = True
        if self.task is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _take(self, received: Frame) -> None:
        if not self._known:
            self._greet(received)
        elif received.kind == CALL and self.task is None:
            self._asked = _Asked()
            self.task = asyncio.get_running_loop().create_task(self._answer(received, self._asked))
        else:
            raise WireError("a call came before the last one was answered")

    def _greet(self, received: Frame) -> None:
        if received.kind != HELLO:
            raise WireError("the first message is no greeting")
        try:
            hello = msgspec.msgpack.decode(received.head, type=Hello)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise WireError("the first message is no greeting") from error
        ours = self._answers.app.service.name
        if not hmac.compare_digest(hello.token.encode(), self._answers.token.encode()) or hello.service != ours:
            raise WireError("a caller without the right token")
        self._known = True
        if self._greeting is not None:
            self._greeting.cancel()
        self._reader.limit = MAX_MESSAGE
        self._write(frame(WELCOME))

    def _write(self, pieces: list[Any]) -> None:
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    async def _answer(self, received: Frame, asked: _Asked) -> None:
        try:
            call = _Answer(self._answers, received, asked)
            try:
                async for pieces in call.messages():
                    self._write(pieces)
                    if not self._writable.is_set():
                        await self._writable.wait()
            except ENDING:
                self._transport.abort()  # who waits for this call, if anybody still does, waits for nothing
                raise
            except BaseException as error:
                self._write(frame(ERROR, _failure(harmless(error), call.where)))
        except ENDING:
            raise
        except BaseException:  # a fault of ours
            _log.exception("a call could not be answered")
            self._transport.abort()
        finally:
            self.task = self._asked = None
            if self._leaving:
                self._transport.close()


def _failure(error: Exception, where: str) -> bytes:
    if not isinstance(error, ServiceError):
        _log.error("%s failed", where, exc_info=error)
    return msgspec.msgpack.encode(carry(error))


class _Answer:
    """One call, from its message to those that answer it."""

    def __init__(self, answers: Answers, received: Frame, asked: _Asked) -> None:
        self._answers, self._received, self._asked = answers, received, asked
        self.where = answers.app.service.name

    async def messages(self) -> AsyncIterator[list[Any]]:
        """The messages to send. Raises: Exception: what the API raised, or why it was not called."""
        app = self._answers.app
        head, value = unpack(self._received)
        assert head is not None
        if head.api == READY:
            yield pack(RESULT, await why_not_ready(app))
            return
        endpoint = app.endpoint(head.api)
        self.where = f"{app.service.name}.{head.api[:100]}"
        if endpoint is None:
            raise NotFound(f"service {app.service.name} has no API {head.api[:100]!r}")
        started, status = time.monotonic(), 499
        endpoint.enter()
        try:
            headers = {
                name.encode("latin-1", "replace"): text.encode("latin-1", "replace")
                for name, text in head.headers.items()
            }
            with app.tracing.call(self.where, head.headers) if app.tracing is not None else contextlib.nullcontext():
                async for pieces in self._run(endpoint, head, value, started, headers):
                    yield pieces
            status = 200
        except ENDING:
            raise
        except BaseException as error:
            status = status_of(error) if isinstance(error, ServiceError) else 500
            raise
        finally:
            endpoint.leave(status, started)

    async def _run(
        self, endpoint: Endpoint, head: CallHead, value: Any, started: float, headers: dict[bytes, bytes]
    ) -> AsyncIterator[list[Any]]:
        request_id = self._answers.app.request_id(headers)
        asked = self._asked
        seconds = endpoint.timeout if head.seconds is None else min(head.seconds, endpoint.timeout)
        if seconds <= 0:
            raise ServiceError(f"{self.where}: its deadline has passed", 504)
        deadline = endpoint.admit(headers, request_id, started, seconds)
        args, named = self._answers.typed(endpoint).incoming(value)
        context = self._context(endpoint, headers)
        if context is not None and endpoint.spec.context is not None:
            named[endpoint.spec.context] = context
        try:
            if endpoint.spec.stream:
                async for item in endpoint.items(args, named, deadline, lambda: asked.disconnected):
                    yield pack(ITEM, item)
                yield frame(END)
            else:
                work = endpoint.run(args, named, deadline, asked.receive)
                result = await under_deadline(work, deadline, deadline - started)  # type: ignore[arg-type]
                yield pack(RESULT, result)
        finally:
            if context is not None:
                context.close()

    def _context(self, endpoint: Endpoint, headers: dict[bytes, bytes]) -> Context | None:
        if endpoint.spec.context is None:
            return None
        scope = {
            "type": "http",
            "method": endpoint.spec.options.method,
            "path": endpoint.spec.route,
            "headers": list(headers.items()),
            "query_string": b"",
            "client": None,
        }
        return Context(Request(scope), self._answers.app.state)
