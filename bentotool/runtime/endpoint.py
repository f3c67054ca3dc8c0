"""One API behind HTTP: admission, input, execution under a deadline, output."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, get_origin
from urllib.parse import parse_qsl

from bentotool.runtime.batched import BatchedCall
from bentotool.runtime.batchwatch import watch_batches
from bentotool.runtime.body import Disconnected, check_headers, in_time, read_body
from bentotool.runtime.deadlines import Receive, Scope, Send, disconnect_probe, under_deadline
from bentotool.runtime.failing import ENDING, harmless
from bentotool.runtime.headers import BODILESS, merged, without_length
from bentotool.runtime.inputs import Inputs
from bentotool.runtime.outputs import is_binary, render, send_rendered
from bentotool.runtime.responses import is_response, send_response
from bentotool.runtime.streams import iterate, send_stream
from bentotool.sdk.calling import CURRENT, Call
from bentotool.sdk.context import Context, Request
from bentotool.sdk.exceptions import InvalidArgument
from bentotool.sdk.files import RequestFolder
from bentotool.sdk.schema import stream_media_type
from bentotool.sdk.signature import MethodSpec

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["Endpoint"]

_TYPE, _JSON = b"content-type", b"application/json"
_TIMEOUT_HEADER = b"x-request-timeout-ms"
_IN_QUERY = ("GET", "DELETE")
_SEVERAL = (list, tuple, set, frozenset)
_COUNTED = 0
"""In place of the status of an answer that is in the metrics already."""
_SMALL_DIGITS = 5
"""Digits of a length that is not counted: even the longest queue of such bodies is small."""


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
        self._in_flight = 0
        self._admission = app.share_of(spec.options.concurrency)
        self._in_query = spec.options.method in _IN_QUERY
        self._surrounded = spec.in_route is not None or spec.context is not None
        self._listed = [p.name for p in spec.parameters if self._in_query and get_origin(p.codec.wire) in _SEVERAL]
        self._inputs = Inputs(spec, self._limit, app.service.config.cors)
        self._plain = not (self._inputs.files or self._inputs.always)
        self._rendered = spec.output.render is not None
        media = spec.output.media_type
        self._content_type = media.encode()
        self._invoke: Callable[..., Coroutine[Any, Any, Any]] = (
            self._call_async if spec.kind == "async" else self._call_sync
        )

    def bind(self, instance: object) -> None:
        """Take the service's instance; start the batcher."""
        self._bound = self.spec.func.__get__(instance)
        if self.spec.options.batchable:
            observer = watch_batches(self.app, self.spec)
            self.batched = BatchedCall(self.spec, self._bound, self.app.service.config.max_queue, observer)
            self._invoke = self.batched

    @property
    def takes_json_only(self) -> bool:
        """There is nothing to read but a JSON body: no query, no route parameters, no files, no context."""
        return self._plain and not self._in_query and not self._surrounded

    def close(self) -> None:
        if self.batched is not None:
            self.batched.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        app, status = self.app, 499
        headers: dict[bytes, bytes] = dict(scope["headers"])
        request_id = app.request_id(headers)
        held, context, folder = 0, None, None
        self.enter()
        try:
            try:
                deadline = self.admit(headers, request_id, started)
                if self._in_query:
                    body = b""
                    args, named = self.spec.decode_query(self._query(scope))
                elif self._plain and headers.get(_TYPE) == _JSON:
                    check_headers(headers, self._limit)
                    held = self._hold(headers)
                    body = await in_time(read_body(receive, headers, self._limit), receive, deadline)
                    args, named = self.spec.decode(body)
                else:
                    form, folder = self._inputs.form_of(headers), self._inputs.folder()
                    held = self._hold(headers) if self._inputs.in_memory(form, headers) else 0
                    reading = self._inputs.read(form, receive, headers, folder)
                    body, (args, named) = await in_time(reading, receive, deadline)
                if self._surrounded:
                    context = self._surround(scope, body, named)
                del body  # nothing holds a large body longer than its arguments do
                status = await self._answer(
                    args, named, deadline, scope, receive, send, headers, request_id, started, context
                )
            except Disconnected:
                return
            except ENDING:
                raise
            except BaseException as error:
                status = await app.send_failure(harmless(error), send, request_id, self.spec.name)
        finally:
            self.leave(status, started, held)
            if context is not None or folder is not None:
                await self._finish(context, folder)

    def enter(self) -> None:
        """A request is here; `leave` comes when it has its answer."""
        if self.metrics is not None:
            self.metrics.add_in_progress(1)
        self.count(1)

    def count(self, difference: int) -> None:
        """Change the number of requests that count against the limits."""
        self.app.in_flight += difference
        self._in_flight += difference

    def admit(
        self, headers: Mapping[bytes, bytes], request_id: bytes, started: float, seconds: float | None = None
    ) -> float:
        """The deadline of a request that is taken.

        Args:
            seconds: that it may take; None where the headers say it.

        Raises:
            ServiceError: it is not taken.
        """
        self.app.admit()
        if self._admission is not None:
            self._admission.check(self._in_flight)
        deadline = started + (self._timeout(headers) if seconds is None else seconds)
        if self.batched is not None:
            deadline = self.batched.admit(deadline, started)
        if self.app.composed:
            CURRENT.set(Call(deadline, request_id, headers))
        return deadline

    def _hold(self, headers: Mapping[bytes, bytes]) -> int:
        """The bytes that are counted for a body, by what its headers say."""
        length = headers.get(b"content-length")
        if len(length) > _SMALL_DIGITS if length is not None else b"transfer-encoding" in headers:
            return self.app.bodies.take(length)
        return 0

    def _surround(self, scope: Scope, body: bytes, named: dict[str, Any]) -> Context | None:
        """Add what a call gets beside its input: parameters of the route, the context."""
        if self.spec.in_route is not None:
            named.update(self.spec.in_route.load(scope["path_params"]))
        if self.spec.context is None:
            return None
        context = Context(Request(scope, body, scope.get("path_params")), self.app.state)
        named[self.spec.context] = context
        return context

    def leave(self, status: int, started: float, held: int = 0) -> None:
        """A request has its answer, and is counted unless its status is 0."""
        metrics = self.metrics
        self.count(-1)
        if held:
            self.app.bodies.give_back(held)
        if metrics is not None:
            metrics.add_in_progress(-1)
            if status:
                metrics.done(status, time.monotonic() - started)

    async def _finish(self, context: Context | None, folder: RequestFolder | None) -> None:
        """What comes after the answer."""
        try:
            if context is not None and context.response.later is not None:
                await context.response.later.run(self.app.lane.run)
        finally:
            if context is not None:
                context.close()
            if folder is not None:
                folder.close()

    def _query(self, scope: Scope) -> dict[str, Any]:
        """The query by name; a list for a parameter that takes several."""
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        found: dict[str, Any] = dict(pairs)
        for name in self._listed:
            if name in found:
                found[name] = [value for key, value in pairs if key == name]
        return found

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
        context: Context | None,
    ) -> int:
        if self.spec.stream:
            items = self.items(args, named, deadline, disconnect_probe(receive))
            media = stream_media_type(self.spec)
            return await send_stream(self.spec.output, media, items, receive, send, headers, request_id, context)
        work = self._invoke(args, named, deadline, receive)
        if self.batched is not None:  # whose batcher minds deadlines and callers by itself
            result = await work
        else:
            result = await under_deadline(work, deadline, deadline - started, disconnect_probe(receive))
        return await self.send(result, scope, receive, send, headers, request_id, started, context)

    async def send(
        self,
        result: Any,
        scope: Scope,
        receive: Receive,
        send: Send,
        headers: Mapping[bytes, bytes],
        request_id: bytes,
        started: float,
        context: Context | None,
    ) -> int:
        """Send what the API gave; give the status to count, 0 where it is counted already."""
        if is_response(result):
            return await send_response(result, scope, receive, send, request_id, context)
        if self._rendered or is_binary(headers):
            rendered = await render(self.spec, result, headers)
            if rendered is not None:
                gone = disconnect_probe(receive)
                return await send_rendered(self.spec.name, rendered, send, request_id, context, gone)
        payload = self.spec.encode(result)
        start: list[tuple[bytes, bytes]] = [
            (b"content-type", self._content_type),
            (b"content-length", b"%d" % len(payload)),
            (b"x-request-id", request_id),
        ]
        status = 200
        if context is not None:
            status = context.response.status_code
            start = merged(start, context.response.raw_headers())
            if status in BODILESS:
                start, payload = without_length(start), b""
        if self.metrics is not None:  # before it is sent: who has an answer finds it counted, even if we are killed now
            self.metrics.done(status, time.monotonic() - started)
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": payload})
        return _COUNTED

    def run(self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, receive: Receive) -> Awaitable[Any]:
        """The result for another service of the same graph: the same lanes and batches, without HTTP."""
        return self._invoke(args, named, deadline, receive)

    def items(
        self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, gone: Callable[[], bool]
    ) -> AsyncIterator[Any]:
        """The stream, for HTTP and for another service of the same graph."""
        return iterate(self._bound(*args, **named), self.app.lane, deadline, self.timeout, gone, self._keep_place)

    async def _call_async(self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, receive: Receive) -> Any:
        return await self._bound(*args, **named)

    async def _call_sync(self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, receive: Receive) -> Any:
        return await self.app.lane.run(
            partial(self._bound, *args, **named),
            deadline=deadline,
            gone=disconnect_probe(receive),
            left_running=self._keep_place,
        )

    def _keep_place(self, difference: int) -> None:
        """A call that cannot be stopped counts as a request in flight until it ends, although that was answered."""
        self.count(difference)
