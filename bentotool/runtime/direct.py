"""The short way of small requests to a batchable API: from the connection into the queue and back, without a task.

A JSON body that came whole with its head needs no waiting but the batcher's, whose executor calls back. So nothing of
ASGI is needed: no task, no coroutines, no messages. Whatever is out of the common (another type of body, an answer that
is streamed, a client that reads slowly) goes the way of all requests, which gives the same answers.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from bentotool.runtime.batchqueue import Entry
from bentotool.runtime.failing import ENDING, failure, harmless
from bentotool.runtime.outputs import is_binary
from bentotool.runtime.responses import is_response

if TYPE_CHECKING:
    from bentotool.runtime.endpoint import Endpoint

__all__ = ["Direct", "Exchange"]

_log = logging.getLogger("bentotool.service")
_LARGEST = 64 * 1024
"""Bytes of a body; larger ones come in several pieces anyway."""
_GONE = 499
"""The status that is counted where the client left."""
_REST_S = 0.001
"""A loop that waited for less between two turns was busy all the time."""
_GATHERED_S = 0.001
"""For so long an executor that sleeps is left asleep while requests are put into its queue."""
_JSON = b"application/json"
_CLOSE = b"connection", b"close"
_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}


class Direct:
    """The short way to one endpoint, which has to be bound.

    Attributes:
        method: of the requests.
        open: False once the application has ended.
        limit: bytes of a body.
        closing: the headers that all answers have say that each is the last of its connection.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.method = endpoint.spec.options.method
        self.open = True
        self.closing = False
        self._arrived: list[Exchange] = []
        self._changes: list[int] = []
        self._ready: list[tuple[Exchange, bytes, bytes]] = []
        self._preset: tuple[Any, bytes] = (None, b"")
        self._turned = self._taken = self._waited = 0.0
        self.limit = min(_LARGEST, endpoint.app.service.config.max_body_bytes)
        media = endpoint.spec.output.media_type.encode().replace(b"%", b"%%")
        self.ok = b"HTTP/1.1 200 OK\r\n%scontent-type: " + media + b"\r\ncontent-length: %d\r\nx-request-id: %s\r\n"

    @staticmethod
    def suits(endpoint: Endpoint) -> bool:
        """Whether an API can be called so: its answers come from a batcher, and are JSON or text."""
        return endpoint.batched is not None and endpoint.takes_json_only and endpoint.spec.output.render is None

    def takes(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request is of the common kind."""
        length = headers.get(b"content-length")
        return (
            headers.get(b"content-type") == _JSON
            and length is not None
            and int(length) <= self.limit
            and b"content-encoding" not in headers
            and b"expect" not in headers
            and not is_binary(headers)
        )

    def preset(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """Lines of the headers that all answers have, without what closes the connection; the server replaces the
        list when they change.
        """
        if headers is not self._preset[0]:
            kept = [header for header in headers if header != _CLOSE]
            self._preset = headers, b"".join([b"%s: %s\r\n" % header for header in kept])
            self.closing = len(kept) < len(headers)
        return self._preset[1]

    def gauge(self, difference: int) -> None:
        """Requests came or were answered. It shows after this turn of the loop: one change for them all."""
        if self.endpoint.metrics is not None:
            if not self._changes:
                asyncio.get_running_loop().call_soon(self._show)
            self._changes.append(difference)

    def _show(self) -> None:
        difference, self._changes = sum(self._changes), []
        assert self.endpoint.metrics is not None
        if difference:
            self.endpoint.metrics.add_in_progress(difference)

    def send(self, exchange: Exchange, head: bytes, body: bytes) -> None:
        """Send an answer, with all that come in the same turn."""
        if not self._ready:
            exchange.loop.call_soon(self.flush)
        self._ready.append((exchange, head, body))

    def flush(self) -> None:
        """Send what is ready. It is counted before: who has an answer finds it counted, even if we are killed now."""
        ready, self._ready = self._ready, []
        if not ready:
            return
        if self.endpoint.metrics is not None:
            now = time.monotonic()
            self.endpoint.metrics.done_all(200, [now - exchange.started for exchange, _, _ in ready])
        self.endpoint.count(-len(ready))
        self.gauge(-len(ready))
        for exchange, head, body in ready:
            try:
                exchange.write(head, body)
            except BaseException:  # the others get theirs
                _log.exception("an answer could not be sent")
                exchange.cut()

    def put(self, exchange: Exchange) -> None:
        """A request came whole. What a turn of the event loop brings is taken in one piece: between the readings of
        two connections other threads run, and the batcher's would take each request for itself.
        """
        if not self._arrived:
            exchange.loop.call_soon(self._take)
            now = time.monotonic()
            # a loop that did not rest since the last turn may have let these requests wait for as long as that took
            self._waited = now - self._turned if now - self._taken < _REST_S else 0.0
            self._turned = now
        self._arrived.append(exchange)

    def _take(self) -> None:
        arrived, self._arrived = self._arrived, []
        batched = self.endpoint.batched
        assert batched is not None
        self.gauge(len(arrived))
        wake_at = self._turned + _GATHERED_S
        for exchange in arrived:
            try:
                batched.deliver()  # who has an answer comes before those who ask
                self.flush()
            except BaseException:
                _log.exception("answers could not be sent")
            try:
                exchange.begin(self._waited)
            except BaseException:  # a fault of ours; the others are answered
                _log.exception("a request could not be taken")
                exchange.cut()
            if exchange.started > wake_at:
                batched.wake()
                wake_at = exchange.started + _GATHERED_S
        batched.wake()  # once for all: while this thread runs, the executor's could only contend with it
        self._taken = time.monotonic()


class Exchange:
    """One request on the short way, and its answer.

    Args:
        direct: to where.
        cycle: of uvicorn.
        headers: of the request.
        loop: of the connection.
        tasks: where the server keeps what still runs when it ends.
        turn: makes the request go the long way.
    """

    __slots__ = (
        "_context", "_cycle", "_done", "_endpoint", "_entry", "_request_id", "_tasks", "_turn", "direct", "headers",
        "loop", "started",
    )  # fmt: skip

    def __init__(
        self,
        direct: Direct,
        cycle: Any,
        headers: dict[bytes, bytes],
        loop: asyncio.AbstractEventLoop,
        tasks: set[Any],
        turn: Callable[[Any], None],
    ) -> None:
        self.direct, self._endpoint, self._cycle, self.headers = direct, direct.endpoint, cycle, headers
        self.loop, self._tasks, self._turn = loop, tasks, turn
        self._context = contextvars.Context()
        self._entry: Entry | None = None
        self._request_id, self.started, self._done = b"", 0.0, False

    def begin(self, waited: float) -> None:
        """Put the request, whose body is there, into the queue, or refuse it.

        Args:
            waited: seconds for which it may have lain unread.
        """
        self._context.run(self._begin, waited)

    def cut(self) -> None:
        """Close the connection of a request that cannot be answered."""
        if not self._done:
            self._leave(500)
        self._cycle.transport.close()

    def _begin(self, waited: float) -> None:
        endpoint, headers = self._endpoint, self.headers
        self.started = started = time.monotonic()
        endpoint.count(1)
        if self._cycle.disconnected:
            self._leave(_GONE)
            return
        request_id = self._request_id = endpoint.app.request_id(headers)
        try:
            deadline = endpoint.admit(headers, request_id, started - waited)
            args, named = endpoint.spec.decode(bytes(self._cycle.body))
            assert endpoint.batched is not None
            self._entry = endpoint.batched.put(args, named, deadline, self._gone, self._settled)
        except BaseException as error:  # decoding and the options of batching run code of the service
            self._fail(harmless(error))
            return
        if self._entry is None:  # it takes more than one batch
            self._leave(0)
            self._turn(self._cycle)

    def _gone(self) -> bool:
        return self._done or self._cycle.disconnected

    def _settled(self, result: Any, error: BaseException | None) -> None:
        if self._done:
            return
        endpoint, entry = self._endpoint, self._entry
        assert endpoint.batched is not None
        assert entry is not None
        endpoint.batched.forget(entry)
        try:
            self._context.run(self._answer, result, error)
        except BaseException:  # a fault of ours: nobody waits for what will not come
            _log.exception("an answer could not be given")
            self.cut()

    def _answer(self, result: Any, error: BaseException | None) -> None:
        cycle, endpoint = self._cycle, self._endpoint
        if error is not None:
            self._fail(harmless(error))
            return
        if cycle.flow.write_paused or is_response(result):
            self._run(self._send(result))  # the client does not read, or there is more to do
            self._done = True
            return
        try:
            payload = endpoint.spec.encode(result)
        except BaseException as failed:
            self._fail(harmless(failed))
            return
        self.direct.send(self, self.direct.ok % (self._preset(), len(payload), self._request_id), payload)
        self._done = True

    def _run(self, answering: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(answering)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, result: Any) -> None:
        cycle, endpoint, status = self._cycle, self._endpoint, _GONE
        send = endpoint.send
        # the protocol has one scope for all requests with the same head
        state = dict(cycle.scope.get("state", ()))
        scope = {**cycle.scope, "headers": list(self.headers.items()), "state": state}
        try:
            try:
                status = await send(
                    result, scope, cycle.receive, cycle.send, self.headers, self._request_id, self.started, None
                )
            except ENDING:
                raise
            except BaseException as error:
                name = endpoint.spec.name
                status = await endpoint.app.send_failure(harmless(error), cycle.send, self._request_id, name)
        except ENDING:
            cycle.transport.close()
            raise
        except BaseException:  # the answer had begun
            cycle.transport.close()
            _log.exception("an answer broke off")
        finally:
            self._leave(status)

    def _fail(self, error: Exception) -> None:
        status, headers, body = failure(error, self._request_id, self._endpoint.spec.name)
        self._leave(status)
        if self._cycle.flow.write_paused:  # else the refusals of who does not read would pile up
            self._run(self._send_refusal(status, headers, body))
            return
        if _CLOSE in headers:
            self._cycle.keep_alive = False
        lines = [b"%s: %s\r\n" % header for header in headers if header != _CLOSE]
        self.write(b"".join([_LINES.get(status, b"HTTP/1.1 %d \r\n" % status), self._preset(), *lines]), body)

    async def _send_refusal(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        await self._cycle.send({"type": "http.response.start", "status": status, "headers": headers})
        await self._cycle.send({"type": "http.response.body", "body": body})

    def _leave(self, status: int) -> None:
        self._done = True
        self._endpoint.count(-1)
        self.direct.gauge(-1)
        if status and self._endpoint.metrics is not None:
            self._endpoint.metrics.done(status, time.monotonic() - self.started)

    def _preset(self) -> bytes:
        """The headers of all answers of this server. `write` adds the one that says that this is the last."""
        lines = self.direct.preset(self._cycle.default_headers)
        if self.direct.closing:
            self._cycle.keep_alive = False
        return lines

    def write(self, head: bytes, body: bytes) -> None:
        """Send an answer; `head` without its end."""
        cycle = self._cycle
        if cycle.disconnected:
            return
        cycle.response_started = cycle.response_complete = True
        cycle.transport.write(head + (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n") + body)
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        cycle.on_response = _nothing


def _nothing() -> None: ...
