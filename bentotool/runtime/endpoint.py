"""One API behind HTTP: admission, input, execution under a deadline, output."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from bentotool.runtime.batcher import Batcher, Observer
from bentotool.runtime.body import Disconnected, check_headers, read_body
from bentotool.runtime.streams import send_stream
from bentotool.sdk.calling import CURRENT, Call
from bentotool.sdk.codecs import Batching, codec_for
from bentotool.sdk.context import Context, Request
from bentotool.sdk.exceptions import (
    DeadlineExceeded,
    InvalidArgument,
    InvalidOutput,
    PayloadTooLarge,
    TooManyRequests,
)
from bentotool.sdk.schema import stream_media_type
from bentotool.sdk.signature import MethodSpec

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["Endpoint"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_TIMEOUT_HEADER = b"x-request-timeout-ms"


def _never() -> bool:
    return False


def disconnect_probe(receive: Receive) -> Callable[[], bool]:
    """A cheap question whether the client is still there.

    The request cycle of uvicorn, whose bound method `receive` is, has a flag; asking it costs nothing, where ASGI's own
    way needs a task per request that waits for ``http.disconnect``. Other servers have no such flag: nobody leaves.
    """
    cycle: Any = getattr(receive, "__self__", None)
    if not hasattr(cycle, "disconnected"):
        return _never
    return lambda: bool(cycle.disconnected)


class _Rest:
    """What is left of a coroutine after its first step, as something to await."""

    __slots__ = ("_coroutine", "_first")

    def __init__(self, coroutine: Coroutine[Any, Any, Any], first: Any) -> None:
        self._coroutine, self._first = coroutine, first

    def __await__(self) -> Generator[Any, Any, Any]:
        waiting_for = self._first
        try:
            while True:
                try:
                    sent = yield waiting_for
                except BaseException as error:
                    waiting_for = self._coroutine.throw(error)
                else:
                    waiting_for = self._coroutine.send(sent)
        except StopIteration as end:
            return end.value


async def under_deadline(work: Coroutine[Any, Any, Any], deadline: float, seconds: float) -> Any:
    """Await something until `deadline` (monotonic). It runs in the caller's own task, so that no task is made for it.

    Work that never has to wait is done after its first step: then no timer is made either.

    Raises:
        DeadlineExceeded: the deadline passed first; `work` was cancelled.
    """
    try:
        first = work.send(None)
    except StopIteration as end:
        return end.value
    loop, task, fired = asyncio.get_running_loop(), asyncio.current_task(), False

    def expire() -> None:
        nonlocal fired
        fired = True
        if task is not None:
            task.cancel()

    timer = loop.call_later(max(0.0, deadline - time.monotonic()), expire)
    try:
        return await _Rest(work, first)
    except asyncio.CancelledError:
        if not fired:
            raise
        if sys.version_info >= (3, 11) and task is not None:
            task.uncancel()
        raise DeadlineExceeded(f"no answer within {seconds:g} seconds") from None
    finally:
        timer.cancel()


def _batching_of(value: Any, dimension: int) -> Batching:
    """How a result without a declared array or list type is taken apart."""
    made = codec_for(list if isinstance(value, (list, tuple)) else type(value)).batching
    if made is None:
        raise InvalidOutput(f"a batchable API returns an array or a list, not a {type(value).__qualname__}")
    return made(dimension)


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
        self.batcher: Batcher | None = None
        self._bound: Callable[..., Any] = spec.func
        self._limit = app.service.config.max_body_bytes
        self._waiting = 0
        media = spec.output.media_type
        self._content_type = media.encode()
        self._invoke: Callable[..., Coroutine[Any, Any, Any]] = (
            self._call_async if spec.kind == "async" else self._call_sync
        )

    def bind(self, instance: object) -> None:
        """Take the service's instance; start the batcher."""
        self._bound = self.spec.func.__get__(instance)
        if self.spec.options.batchable:
            function = self._batch_async if self.spec.kind == "async" else self._batch_sync
            observer = self.app.metrics.batch(self.spec.route) if self.app.metrics else Observer()
            self.batcher = Batcher(
                function,
                name=self.spec.name,
                max_units=self.spec.options.max_batch_size,
                max_items=self.app.service.config.max_queue,
                observer=observer,
            )
            self.batcher.start()
            self._invoke = self._call_batched

    def close(self) -> None:
        if self.batcher is not None:
            self.batcher.close()

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

    async def _call_batched(
        self, args: tuple[Any, ...], named: dict[str, Any], deadline: float, receive: Receive
    ) -> Any:
        assert self.batcher is not None
        value = args[0] if args else next(iter(named.values()))
        options, gone = self.spec.options, disconnect_probe(receive)
        batching = self._input_batching
        try:
            rows = batching.count(value)
        except ValueError as error:
            raise InvalidArgument(f"$.{self.spec.parameters[0].name}: {error}") from None
        deadline = min(deadline, time.monotonic() + options.max_latency_ms / 1000)
        key, size = batching.key(value), options.max_batch_size
        if rows <= size:
            return await self.batcher.submit(value, units=max(1, rows), key=key, deadline=deadline, gone=gone)
        # a request with more rows than a batch may have takes several batches, and gets one answer
        counts = [min(size, rows - start) for start in range(0, rows, size)]
        if len(counts) > self.batcher.queue.max_items:
            most = size * self.batcher.queue.max_items
            raise PayloadTooLarge(f"the body has {rows} rows, at most {most} are taken")
        pieces = batching.split(value, counts)
        submitted = [
            self.batcher.submit(piece, units=count, key=key, deadline=deadline, gone=gone)
            for piece, count in zip(pieces, counts, strict=True)
        ]
        results = await asyncio.gather(*submitted)
        return self._output_batching(results[0]).merge(results)

    @property
    def _input_batching(self) -> Batching:
        make = self.spec.parameters[0].codec.batching
        assert make is not None
        return make(self.spec.options.batch_dim[0])

    def _output_batching(self, value: Any) -> Batching:
        make, dimension = self.spec.output.batching, self.spec.options.batch_dim[1]
        return make(dimension) if make is not None else _batching_of(value, dimension)

    def _split(self, merged: Any, counts: Sequence[int]) -> list[Any]:
        batching = self._output_batching(merged)
        rows = batching.count(merged)
        if rows != sum(counts):
            raise InvalidOutput(f"{self.spec.name} returned {rows} rows for {sum(counts)}")
        return batching.split(merged, counts)

    def _arguments(self, merged: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        parameter = self.spec.parameters[0]
        return ((), {parameter.name: merged}) if parameter.keyword_only else ((merged,), {})

    def _batch_sync(self, values: Sequence[Any]) -> list[Any]:
        batching = self._input_batching
        args, named = self._arguments(batching.merge(values))
        return self._split(self._bound(*args, **named), [batching.count(value) for value in values])

    async def _batch_async(self, values: Sequence[Any]) -> list[Any]:
        batching = self._input_batching
        args, named = self._arguments(batching.merge(values))
        return self._split(await self._bound(*args, **named), [batching.count(value) for value in values])

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


class Admission:
    """Refuses requests above a number in flight.

    Args:
        limit: of this worker; None for none.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit

    def check(self, in_flight: int) -> None:
        """Raises: TooManyRequests."""
        if self.limit is not None and in_flight > self.limit:
            raise TooManyRequests("too many requests at the same time", retry_after=1.0)
