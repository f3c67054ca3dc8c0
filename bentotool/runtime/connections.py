"""What a connection may do before there is a request: who sends headers too slowly, or without end, is let go.

uvicorn limits the time between two requests of a connection, and neither the time nor the room for the head of one. A
body is under the deadline of its request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from bentotool.runtime.direct import Direct, Exchange

__all__ = ["Guarded"]

_ANSWER = b"HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"


class Guarded(HttpToolsProtocol):
    """The protocol of one connection.

    Attributes:
        head_seconds: from the first byte of a request (of a new connection: from its start) until its head is there.
        head_bytes: what the request line and the headers may have together.
        linger_seconds: for which a connection is kept, while the server ends, that nobody was told to leave.
    """

    head_seconds = 20.0
    linger_seconds = 1
    head_bytes = 64 * 1024
    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _parsing = False
    _short: Exchange | None = None
    """What answers the request whose body is not there yet; in its place it may have a task of its own."""

    _taken: Exchange | None = None
    """What answers the request that was put last."""

    def __init__(self, config: Any, *args: Any, **named: Any) -> None:
        super().__init__(config, *args, **named)
        self._direct: Callable[[Any, dict[bytes, bytes]], Direct | None] | None = getattr(config.app, "direct", None)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._complete()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends. An answer whose head is out, such as a long stream, did not say that it is the last of its
        connection: a request that was sent right after it is answered, and that answer says so.
        """
        cycle: Any = self.cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete and cycle.keep_alive:
            self.timeout_keep_alive = self.linger_seconds
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        self._parsing = True
        before: Any = self.cycle
        super().data_received(data)
        self._parsing = False
        cycle: Any = self.cycle  # of the last request whose head was complete
        if self._short is not None:  # there is more of it to come, and to wait for
            self._short = None
            if not self.transport.is_closing():
                self._start_task(cycle)
        if cycle is not None and cycle.scope is self.scope:
            if self._timer is not None or self._head:
                self._complete()
        else:
            # whole requests that came in the same piece are not counted, nor is what came with them of the next one
            self._incomplete(len(data) if cycle is before else 1)

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._unset_keepalive_if_required()  # the request before may have been answered while this one was parsed
        if self._parsing and self._direct is not None and cycle is self.cycle and cycle.more_body and app is self.app:
            headers = dict(self.headers)
            direct = self._direct(cycle.scope, headers)
            if direct is not None and len(headers) == len(self.headers):  # none is there twice
                self._short = Exchange(direct, cycle, headers, self.loop, self.tasks, self._start_task)
                return
        super()._start_asgi_task(cycle, app)

    def _start_task(self, cycle: Any) -> None:
        super()._start_asgi_task(cycle, self.app)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        short, self._short = self._short, None
        if short is not None:
            self._taken = short
            short.direct.put(short)

    def _complete(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _incomplete(self, received: int) -> None:
        if self not in self.connections or self.transport.is_closing():  # a websocket by now, or refused
            self._complete()
            return
        self._head += received
        if self._head > self.head_bytes:
            self._refuse(b"431 Request Header Fields Too Large", b"The head of the request is too large.")
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def _too_slow(self) -> None:
        self._timer = None
        if self._head:
            self._refuse(b"408 Request Timeout", b"The request did not come in time.")
        elif not self.transport.is_closing():
            self.transport.close()  # it never said a word: nor do we

    def _refuse(self, status: bytes, text: bytes) -> None:
        cycle: Any = self.cycle
        if self.transport.is_closing():
            return
        if cycle is None or cycle.response_complete:  # nothing else is being written
            self.transport.write(_ANSWER % (status, len(text), text))
        self._complete()
        self.transport.close()
