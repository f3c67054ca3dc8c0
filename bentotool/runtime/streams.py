"""Answers in pieces: plain text, bytes, JSON Lines, server-sent events."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bentotool.runtime.deadlines import Receive, Send, disconnect_probe, is_cancelled, under_deadline
from bentotool.runtime.failing import ENDING, envelope, harmless
from bentotool.runtime.headers import merged
from bentotool.runtime.lane import Lane
from bentotool.sdk.answers import WRONG, checked
from bentotool.sdk.codecs import Codec, to_plain
from bentotool.sdk.context import Context
from bentotool.sdk.exceptions import InvalidOutput, ServiceError
from bentotool.sdk.places import locate
from bentotool.sdk.response import ServerSentEvent

__all__ = ["frame_event", "iterate", "send_stream"]

_log = logging.getLogger("bentotool.service")
_EVENTS = "text/event-stream"
_LINES = "application/jsonl"
_TEXT = "text/plain; charset=utf-8"
_FIELDS = ("data:", "event:", "id:", "retry:", ":")
_ENCODER = msgspec.json.Encoder(enc_hook=to_plain)
_CLIENT_LEFT = 499
_SILENCE_S = 15.0
"""After so long without an event a comment is sent: many proxies cut a connection that is silent for a minute."""
_TURN_S = 0.01
"""A generator that never waits, for a reader that never lets it, gives way to everybody else after so long."""
_END: Any = object()


def _lines(text: str) -> bytes:
    """A text as ``data:`` lines. All three line ends of the format end one: otherwise a text could add fields."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "".join(f"data: {line}\n" for line in lines).encode() + b"\n"


def frame_event(item: Any) -> bytes:
    """One server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    A text that already is an event, as BentoML services write it, is sent as it is; any other becomes ``data:`` lines,
    and what is not a text becomes one line of JSON.
    """
    if isinstance(item, ServerSentEvent):
        data = item.data if isinstance(item.data, str) else _ENCODER.encode(item.data).decode()
        return "".join(item.lines()).encode() + _lines(data)
    if isinstance(item, str):
        if item.startswith(_FIELDS) and item.endswith("\n\n"):
            return item.encode()
        return _lines(item)
    if isinstance(item, bytes):
        return _lines(item.decode("utf-8", "replace"))
    return b"data: " + _ENCODER.encode(item) + b"\n\n"


def _is_event(item: Any) -> bool:
    """Whether a text begins as services of BentoML write events: a field and the end of a line.

    A data URL, or a text that happens to begin with a colon, is none.
    """
    return isinstance(item, str) and item.startswith(_FIELDS) and item.endswith("\n\n" if item[0] == ":" else "\n")


@dataclass(frozen=True)
class _Form:
    """How the items of a stream are sent.

    Attributes:
        ready: the service writes events itself, be it piece by piece.
    """

    codec: Codec
    media: str
    ready: bool = False

    def piece(self, item: Any) -> bytes:
        """What is sent for an item. Raises: InvalidOutput: it is not of the declared type."""
        if self.ready and isinstance(item, str):
            return item.encode()
        if type(item) is not self.codec.wire and not isinstance(item, ServerSentEvent):
            item = self._declared(item)
        if self.media.startswith(_EVENTS):
            return frame_event(item)
        if isinstance(item, bytes):
            return item
        if isinstance(item, str) and self.media != _LINES:
            return item.encode()
        return _ENCODER.encode(item) + b"\n"

    def _declared(self, item: Any) -> Any:
        codec = self.codec
        try:
            if codec.dump is not None:
                return codec.dump(item)
            # a service may write some of its events itself
            return item if codec.load is not None or codec.wire is ServerSentEvent else checked(codec, item)
        except WRONG as error:
            what, path = locate(str(error))
            raise InvalidOutput(f"the stream gave something it does not declare at {path}: {what}") from error

    def failure(self, failed: Exception) -> bytes | None:
        """The last piece of a stream that broke: the error in the stream's own form, where it has one."""
        masked = {"error": {"code": "internal", "message": "the stream ended with an error", "hint": None}}
        error = envelope(failed) if isinstance(failed, ServiceError) else _ENCODER.encode(masked)
        if self.media.startswith(_EVENTS):
            begun = b"\n\n" if self.ready else b""  # the service may have stopped within an event of its own
            return begun + b"event: error\n" + frame_event(error)
        return error + b"\n" if self.media == _LINES else None


class _Steps:
    """A synchronous generator that is run in threads, and closed in one: never while a step is running."""

    def __init__(self, produced: Generator[Any, Any, Any]) -> None:
        self._produced, self._lock, self._closed = produced, threading.Lock(), False

    def step(self) -> Any:
        with self._lock:
            return _END if self._closed else next(self._produced, _END)

    @property
    def over(self) -> bool:
        return getattr(self._produced, "gi_frame", self._produced) is None

    def close(self) -> None:
        self._closed = True
        with self._lock:
            try:
                self._produced.close()
            except BaseException:
                _log.exception("a stream failed while it was closed")


def _is_ending(error: BaseException) -> bool:
    """Whether it ends the task, and is not only called like what does."""
    if isinstance(error, asyncio.CancelledError):
        return is_cancelled(asyncio.current_task())
    return isinstance(error, GeneratorExit)


async def iterate(
    produced: Any,
    lane: Lane,
    deadline: float,
    seconds: float,
    gone: Callable[[], bool],
    left_running: Callable[[int], None],
) -> AsyncIterator[Any]:
    """The items of a generator, synchronous or not.

    The deadline holds for the first one; after that the stream lives while it is read. When the iteration ends early
    the generator is closed: an asynchronous one at once, a synchronous one when its step has ended. Such a step is told
    to `left_running`, as by `Lane.run`.

    Raises:
        RuntimeError: the generator raised what ends tasks or processes: a cancellation of its own making, `SystemExit`.
    """
    steps = None if hasattr(produced, "__anext__") else _Steps(produced)

    async def following() -> Any:
        try:
            if steps is None:
                return await anext(produced, _END)
            return await lane.run(steps.step, gone=gone, left_running=left_running)
        except BaseException as error:
            if isinstance(error, Exception) or _is_ending(error):
                raise
            raise harmless(error) from error

    try:
        item, turn = await under_deadline(following(), deadline, seconds), time.monotonic()
        while item is not _END:
            yield item
            if gone():
                return
            if time.monotonic() - turn > _TURN_S:
                await asyncio.sleep(0)
                turn = time.monotonic()
            item = await following()
    finally:
        if steps is None:
            await produced.aclose()
        elif not steps.over:
            _close_in_thread(steps, lane)


_closing: set[asyncio.Task[None]] = set()


def _close_in_thread(steps: _Steps, lane: Lane) -> None:
    """Close without waiting: a step may run for long, and nobody waits for the stream any more."""

    async def close() -> None:
        try:
            await lane.run(steps.close)
        except ServiceError:  # every place in the lane is taken
            threading.Thread(target=steps.close, name="close-stream", daemon=True).start()

    task = asyncio.get_running_loop().create_task(close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


class _Watch:
    """Cancels the task it was made in when the client goes away, however long the next item takes."""

    def __init__(self, receive: Receive) -> None:
        self.left = self._done = False
        self._task = asyncio.current_task()
        self._watching = asyncio.get_running_loop().create_task(self._wait(receive))

    async def _wait(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self._done:
            self.left = True
            if self._task is not None:
                self._task.cancel()

    def done(self) -> None:
        """The answer is whole: what follows is no concern of it."""
        self._done = True

    def end(self) -> None:
        self._done = True
        self._watching.cancel()

    def forgive(self) -> None:
        """The cancellation was our own."""
        if sys.version_info >= (3, 11) and self._task is not None:
            self._task.uncancel()


class _Voice:
    """Sends the events of a stream, and a comment, which readers skip, where none comes for long."""

    def __init__(self, send: Send) -> None:
        self._send, self._spoken, self._between = send, False, True
        self._speaking = asyncio.get_running_loop().create_task(self._speak())

    async def __call__(self, message: dict[str, Any]) -> None:
        self._spoken, self._between = True, message["body"].endswith(b"\n\n")
        await self._send(message)

    async def _speak(self) -> None:
        while True:
            await asyncio.sleep(_SILENCE_S)
            if not self._spoken and self._between:  # within an event that a service writes in pieces it would do harm
                await self._send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
            self._spoken = False

    def end(self) -> None:
        self._speaking.cancel()


async def send_stream(
    codec: Codec,
    media: str,
    items: AsyncIterator[Any],
    receive: Receive,
    send: Send,
    headers: Mapping[bytes, bytes],
    request_id: bytes,
    context: Context | None,
) -> int:
    """Send each item as soon as it is there; give the HTTP status.

    Server-sent events when the client accepts them, the API's annotation says so, or the first text is one already. An
    error before the first item is answered like that of any API; a later one ends the stream with an error event, or
    without its proper end.
    """
    if _EVENTS.encode() in headers.get(b"accept", b""):
        media = _EVENTS
    watch, voice = _Watch(receive), None
    try:
        item = await anext(items, _END)
        form = _Form(codec, media)
        if media == _TEXT and _is_event(item):
            form = _Form(codec, _EVENTS, ready=True)
        first = b"" if item is _END else form.piece(item)  # what is wrong at once is answered as any error is
        start = _head(form.media, request_id, context)
        await send(start)
        voice = _Voice(send) if form.media.startswith(_EVENTS) else None
        whole = item is _END or await _send_items(form, first, items, voice or send)
        watch.done()
        if voice is not None:
            voice.end()
        if watch.left:
            await asyncio.sleep(0)  # the cancellation is on its way: here is where it is to arrive
        if disconnect_probe(receive)():
            return _CLIENT_LEFT
        if whole:
            await send({"type": "http.response.body", "body": b""})
        return int(start["status"])
    except asyncio.CancelledError:
        if not watch.left:
            raise
        watch.forgive()
        return _CLIENT_LEFT
    finally:
        watch.end()
        if voice is not None:
            voice.end()
        await items.aclose()  # type: ignore[attr-defined]


def _head(media: str, request_id: bytes, context: Context | None) -> dict[str, Any]:
    headers = [(b"content-type", media.encode()), (b"x-request-id", request_id), (b"cache-control", b"no-cache")]
    if media.startswith(_EVENTS):
        headers.append((b"x-accel-buffering", b"no"))  # nginx would gather the events
    if context is not None:
        headers = merged(headers, context.response.raw_headers())
    status = context.response.status_code if context else 200
    return {"type": "http.response.start", "status": status, "headers": headers}


async def _send_items(form: _Form, piece: bytes, items: AsyncIterator[Any], send: Send) -> bool:
    """Send the first piece and those of the other items; whether the answer may end as whole answers do.

    If not, the server cuts the connection.
    """
    try:
        while True:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            item = await anext(items, _END)
            if item is _END:
                return True
            piece = form.piece(item)
    except ENDING:
        raise
    except BaseException as error:
        _log.error("a stream failed after its first item", exc_info=error)
        last = form.failure(harmless(error))
        if last is None:
            return False
        await send({"type": "http.response.body", "body": last, "more_body": True})
        return True
