"""What a connection may do before there is a request, and between two: who sends headers too slowly, or without end, or
nothing at all, is let go.

uvicorn limits the time between two requests of a connection, and neither the time nor the room for the head of one. A
body is under the deadline of its request. What is refused before it is a request is refused in its turn: uvicorn would
say so in the midst of the answer to the request before it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from bentotool.runtime.direct import Direct, Exchange
from bentotool.runtime.readers import Watched

__all__ = ["Guarded"]

_WAITING = 64
"""Requests of one connection that wait for their turn, at which nothing more is read from it."""
_MALFORMED = b"400 Bad Request", b"Invalid HTTP request received."
_LARGE = b"431 Request Header Fields Too Large", b"The head of the request is too large."


class _Flow(FlowControl):
    """Reading and writing of one connection. With each answer uvicorn would read on, whatever is waiting already.

    Args:
        waiting: the requests that wait for their turn.
    """

    def __init__(self, transport: Any, waiting: Any) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if self.read_paused and len(self._waiting) < _WAITING:
            super().resume_reading()


class Guarded(Watched):
    """The protocol of one connection.

    Attributes:
        head_seconds: from the first byte of a request (of a new connection: from its start) until its head is there.
        head_bytes: what the request line and the headers may have together, more or less.
        linger_seconds: for which a connection is kept, while the server ends, that nobody was told to leave.
    """

    head_seconds = 20.0
    linger_seconds = 1
    head_bytes = 64 * 1024
    _timer: asyncio.TimerHandle | None = None
    _head = 0
    _parsing = False
    _ending = False
    """Nothing that comes is looked at any more: it follows what was refused."""

    _answered_at = 0.0
    _running: Any = None
    """The cycle of the request whose turn it is; ``cycle`` is that of the last one whose head is there."""

    _expecting: Any = None
    """The cycle of a request whose caller may wait for ``100 Continue`` before it sends a body."""

    _short: Exchange | None = None
    """What answers the request whose body is not there yet; in its place it may have a task of its own."""

    _taken: Exchange | None = None
    """What answers the request that was put last."""

    def __init__(self, config: Any, *args: Any, **named: Any) -> None:
        super().__init__(config, *args, **named)
        self._direct: Callable[[Any, dict[bytes, bytes]], Direct | None] | None = getattr(config.app, "direct", None)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self._timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._complete()
        self._unset_keepalive_if_required()
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends. An answer whose head is out, such as a long stream, did not say that it is the last of its
        connection: a request that was sent right after it is answered, and that answer says so.
        """
        cycle: Any = self.cycle
        self._expecting = None
        if cycle is not None and cycle.response_started and not cycle.response_complete and cycle.keep_alive:
            self.timeout_keep_alive = self.linger_seconds
            self._unset_keepalive_if_required()  # the answer sets it anew
        else:
            super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self._ending:
            return
        if len(data) > self.head_bytes:  # a head is measured where it does not come as a whole
            self._receive_much(memoryview(data))
            return
        before: Any = self.cycle
        self._parsing = True
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._hear_offer(data[offer.args[0] :])
        except httptools.HttpParserError:
            self._refuse_malformed()
        self._parsing = False
        cycle: Any = self.cycle  # of the last request whose head was complete
        if self._short is not None:  # there is more of it to come, and to wait for
            self._short = None
            if not self.transport.is_closing():
                self._start_task(cycle)
        if cycle is not None and cycle.scope is self.scope:
            if self._timer is not None or self._head:
                self._complete()
        elif cycle is before:
            self._incomplete(len(data))
        else:  # a head of its own time; what came with whole requests is not counted
            self._complete()
            self._incomplete(1)

    def _receive_much(self, data: memoryview) -> None:
        for start in range(0, len(data), self.head_bytes):
            if not self.transport.is_closing() and self in self.connections:
                Guarded.data_received(self, bytes(data[start : start + self.head_bytes]))

    def _should_upgrade(self) -> bool:
        """Whether a request that offers to go on in another protocol is none of ours as yet; see `_hear_offer`."""
        return True

    def _hear_offer(self, rest: bytes) -> None:
        """A request offers to go on in another protocol: ``Upgrade: h2c``, as Java's client does with each call.

        The parser takes it for one without a body. A server need not take an offer
        (https://www.rfc-editor.org/rfc/rfc9110#section-7.8): but for websockets, the request is parsed again without.

        Args:
            rest: what came after its head.
        """
        while True:
            if self.scope["method"] == "CONNECT":
                self._refuse_malformed()
                return
            if self._wants_websocket():
                self._become_websocket()
                return
            data = self._without_offer() + rest
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                rest = data[offer.args[0] :]
            except httptools.HttpParserError:
                self._refuse_malformed()
                return

    def _wants_websocket(self) -> bool:
        offers = [value.strip().lower() for name, value in self.headers if name == b"upgrade"]
        return offers[-1:] == [b"websocket"] and self.ws_protocol_class is not None

    def _without_offer(self) -> bytes:
        """The head of the last request again, but for its offers."""
        kept = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        version = self.parser.get_http_version().encode()
        return b"\r\n".join([b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version), *kept, b"", b""])

    def _become_websocket(self) -> None:
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._refuse(b"400 Bad Request", b"A websocket begins after all answers.")
            return
        self._complete()
        self._unset_keepalive_if_required()
        self._forget_reader()
        self.handle_websocket_upgrade()

    def on_chunk_header(self) -> None:
        """What may follow the last chunk is not of the head, and is not taken for it."""
        if self.headers is self.scope["headers"]:
            self.headers = self.headers.copy()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        if self._head and self._parsing and self._is_large():
            cycle.disconnected = True
            self._end(*_LARGE)
            return
        if cycle.waiting_for_100_continue and cycle.more_body and cycle.keep_alive:
            # answered before there was a body, nobody knows whether one comes: what follows could be it, or a request
            cycle.keep_alive, self._expecting = False, cycle
        if self._parsing and self._direct is not None and cycle is self.cycle and cycle.more_body and app is self.app:
            headers = dict(self.headers)
            direct = self._direct(cycle.scope, headers)
            if direct is not None and len(headers) == len(self.headers):  # none is there twice
                if b"connection" in headers and not self.parser.should_keep_alive():
                    cycle.keep_alive = False  # older versions of uvicorn look when they answer
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
        elif self._expecting is not None:
            expecting, self._expecting = self._expecting, None
            if not expecting.response_started:
                expecting.keep_alive = True

    def on_response_complete(self) -> None:
        """What uvicorn does when a request has its answer; but the timer that ends a silent connection runs on, and
        looks when it is due whether there was silence. So nothing that is no request puts it off.
        """
        if self.pipeline or self.timeout_keep_alive_task is None or self.transport.is_closing():
            super().on_response_complete()
            if self.transport.is_closing():
                self._watch_reader()
        else:
            self.server_state.total_requests += 1
            self.flow.resume_reading()
        self._answered_at = self.loop.time()

    def timeout_keep_alive_handler(self) -> None:
        self.timeout_keep_alive_task = None
        cycle: Any = self.cycle
        if self._head or (cycle is not None and not cycle.response_complete):
            return  # its answer sets the timer anew
        left = self._answered_at + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()
            self._watch_reader()

    def _complete(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _incomplete(self, received: int) -> None:
        if (
            self._ending or self not in self.connections or self.transport.is_closing()
        ):  # a websocket by now, or refused
            self._complete()
            return
        self._head += received
        if self._head > self.head_bytes:
            self._refuse(*_LARGE)
        elif self._timer is None:
            self._timer = self.loop.call_later(self.head_seconds, self._too_slow)

    def _is_large(self) -> bool:
        """Of a head that came in pieces, the last of which may have brought more than its end."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self.head_bytes

    def _too_slow(self) -> None:
        self._timer = None
        if self._head:
            self._refuse(b"408 Request Timeout", b"The request did not come in time.")
        elif not self.transport.is_closing():
            self.transport.close()  # it never said a word: nor do we

    def _refuse_malformed(self) -> None:
        cycle: Any = self.cycle
        self.logger.warning("Invalid HTTP request received.")
        if cycle is None or not cycle.more_body or cycle.scope is not self.scope:
            self._refuse(*_MALFORMED)
            return
        self._ending = True  # its body is malformed
        if self.pipeline:
            cycle.more_body = False
            self.pipeline[0] = cycle, _refusal(*_MALFORMED)
            return
        cycle.disconnected = True
        if cycle.response_started:
            self.transport.close()
        else:
            self._end(*_MALFORMED)

    def _refuse(self, status: bytes, text: bytes) -> None:
        """Answer what has not become a request, after all that were there before it, and close the connection."""
        cycle: Any = self.cycle
        self._complete()
        if self.transport.is_closing():
            return
        if cycle is None or cycle.response_complete:
            self._end(status, text)
            return
        self._ending = True
        scope: Any = {**cycle.scope, "method": "GET", "headers": []}
        self.cycle = self._whole_cycle(scope, keep_alive=False)
        self.pipeline.appendleft((self.cycle, _refusal(status, text)))

    def _whole_cycle(self, scope: Any, *, keep_alive: bool) -> RequestResponseCycle:
        """What the server makes of a request, for one that was not parsed and of which nothing more comes."""
        cycle = RequestResponseCycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        cycle.more_body = False
        return cycle

    def _end(self, status: bytes, text: bytes) -> None:
        self._ending = True
        kept = [header for header in self.server_state.default_headers if header[0] != b"connection"]
        headers = [*kept, *_headers(text)]
        lines = [b"HTTP/1.1 %s" % status, *(b"%s: %s" % header for header in headers), b"", text]
        self.transport.write(b"\r\n".join(lines))
        self.transport.close()


def _headers(text: bytes) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
        (b"connection", b"close"),
    ]


def _refusal(status: bytes, text: bytes) -> Any:
    """An ASGI application that says so, and ends the connection."""

    async def answer(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": int(status[:3]), "headers": _headers(text)})
        await send({"type": "http.response.body", "body": text})

    return answer
