"""One API behind HTTP: admission, input, execution under a deadline, output."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from bentotool.runtime.batched import BatchedCall
from bentotool.runtime.batcher import Observer
from bentotool.runtime.body import Disconnected, check_headers, read_body
from bentotool.runtime.deadlines import Receive, Scope, Send, disconnect_probe, under_deadline
from bentotool.runtime.streams import send_stream
from bentotool.sdk.calling import CURRENT, Call
from bentotool.sdk.context import Context, Request
from bentotool.sdk.exceptions import InvalidArgument
from bentotool.sdk.schema import stream_media_type
from bentotool.sdk.signature import MethodSpec

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["Endpoint"]

_TIMEOUT_HEADER = b"x-request-timeout-ms"


class Endpoint:
    """Serves one API.

    Args:
        spec: the API.
        app: the application it belongs to.
    """

    def __init__(self, spec: MethodSpec, app: Application) -> None:
        self.spec = spec
        self.app = app
        self.timeout = spec.options.timeout or app.service.config.timeout
        self.metrics = app.metrics.route(spec.route) if app.metrics else None
        self.batched: BatchedCall | None = None
        self._bound: Callable[..., Any] = spec.func
        self._limit = app.service.config.max_body_bytes
        media = spec.output.media_type
        self._content_type = media.encode()
        self._invoke: Callable[..., Coroutine[Any, Any, Any]] = (
            self._call_async if spec.kind == "async" else self._call_sync
        )

    def bind(self, instance: object) -> None:
        """Take the service's instance; start the batcher."""
        self._bound = self.spec.func.__get__(instance)
        if self.spec.options.batchable:
            observer = self.app.metrics.batch(self.spec.route) if self.app.metrics else Observer()
            self.batched = BatchedCall(self.spec, self._bound, self.app.service.config.max_queue, observer)
            self._invoke = self.batched

    def close(self) -> None:
        if self.batched is not None:
            self.batched.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        app, metrics, status = self.app, self.metrics, 499
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = app.request_id(headers)
        if metrics is not None:
            metrics.in_progress.inc()
        app.in_flight += 1
        try:
            try:
                app.admit()
                deadline = started + self._timeout(headers)
                if app.composed:
                    CURRENT.set(Call(deadline, request_id, headers))
                if self.spec.options.method == "GET":
                    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
                    args, named = self.spec.decode_query(query)
                else:
                    check_headers(headers, self._limit)
                    args, named = self.spec.decode(await read_body(receive, headers, self._limit))
                status = await self._answer(args, named, deadline, scope, receive, send, headers, request_id, started)
            except Disconnected:
                return
            except Exception as error:
                status = await app.send_failure(error, send, request_id, self.spec.name)
        finally:
            app.in_flight -= 1
            if metrics is not None:
                metrics.in_progress.dec()
                metrics.done(status, time.monotonic() - started)
            if app.access_log is not None:
                app.access_log(scope, status, time.monotonic() - started, request_id)

    def _timeout(self, headers: Mapping[bytes, bytes]) -> float:
        asked = headers.get(_TIMEOUT_HEADER)
        if asked is None:
            return self.timeout
        try:
            seconds = float(asked) / 1000
        except ValueError:
            seconds = math.nan
        if not seconds > 0:
            raise InvalidArgument("X-Request-Timeout-Ms is not a number of milliseconds above 0")
        return min(seconds, self.timeout)

    async def _answer(
        self,
        args: tuple[Any, ...],
        named: dict[str, Any],
        deadline: float,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
        request_id: bytes,
        started: float,
    ) -> int:
        context: Context | None = None
        if self.spec.context is not None:
            context = Context(Request(scope), self.app.state)
            named[self.spec.context] = context
        try:
            if self.spec.stream:
                gone = disconnect_probe(receive)
                items = self._iterate(args, named, deadline, gone)
                return await send_stream(
                    self.spec.output, stream_media_type(self.spec), items, send, headers, request_id, gone, context
                )
            seconds = deadline - started
            result = await under_deadline(self._invoke(args, named, deadline, receive), deadline, seconds)
            payload = self.spec.encode(result)
            start: list[tuple[bytes, bytes]] = [
                (b"content-type", self._content_type),
                (b"content-length", b"%d" % len(payload)),
                (b"x-request-id", request_id),
            ]
            status = 200
            if context is not None:
                status = context.response.status_code
                start += [
                    (k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in context.response.headers.items()
                ]
            await send({"type": "http.response.start", "status": status, "headers": start})
            await send({"type": "http.response.body", "body": payload})
            return status
        finally:
            if context is not None:
                context.close()

    def run(self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, receive: Receive) -> Awaitable[Any]:
        """The result for another service of the same graph: the same lanes and batches, without HTTP."""
        return self._invoke(args, named, deadline, receive)

    def items(
        self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, gone: Callable[[], bool]
    ) -> AsyncIterator[Any]:
        """The stream for another service of the same graph."""
        return self._iterate(args, named, deadline, gone)

    async def _call_async(self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, receive: Receive) -> Any:
        return await self._bound(*args, **named)

    async def _call_sync(self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, receive: Receive) -> Any:
        return await self.app.lane.run(
            partial(self._bound, *args, **named), deadline=deadline, gone=disconnect_probe(receive)
        )

    async def _iterate(
        self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, gone: Callable[[], bool]
    ) -> AsyncIterator[Any]:
        """The items of a stream. The deadline holds for the first one; after that the stream lives while it is read."""
        produced = self._bound(*args, **named)
        first = True
        end = object()
        try:
            while True:
                step = self._next(produced, end, gone)
                item = await (under_deadline(step, deadline, self.timeout) if first else step)
                first = False
                if item is end:
                    return
                yield item
        finally:
            if self.spec.kind == "async_generator":
                await produced.aclose()
            else:
                produced.close()

    async def _next(self, produced: Any, end: object, gone: Callable[[], bool]) -> Any:
        if self.spec.kind == "async_generator":
            return await anext(produced, end)
        return await self.app.lane.run(partial(next, produced, end), gone=gone)
