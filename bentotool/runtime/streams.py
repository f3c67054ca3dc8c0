"""Answers in pieces: plain text, bytes, JSON Lines, server-sent events."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec

from bentotool.sdk.codecs import Codec, to_plain
from bentotool.sdk.context import Context

__all__ = ["frame_event", "send_stream"]

_log = logging.getLogger("bentotool.service")
_EVENTS = "text/event-stream"
_LINES = "application/jsonl"
_FIELDS = ("data:", "event:", "id:", "retry:", ":")
_ENCODER = msgspec.json.Encoder(enc_hook=to_plain)


def frame_event(item: Any) -> bytes:
    """One server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    A text that already is an event, as BentoML services write it, is sent as it is; any other becomes ``data:`` lines,
    and what is not a text becomes one line of JSON.
    """
    if isinstance(item, str):
        if item.startswith(_FIELDS) and item.endswith("\n\n"):
            return item.encode()
        return "".join(f"data: {line}\n" for line in item.split("\n")).encode() + b"\n"
    return b"data: " + _ENCODER.encode(item) + b"\n\n"


def _piece(item: Any, media: str, codec: Codec) -> bytes:
    if codec.dump is not None:
        item = codec.dump(item)
    if media.startswith(_EVENTS):
        return frame_event(item)
    if isinstance(item, bytes):
        return item
    if isinstance(item, str) and media != _LINES:
        return item.encode()
    return _ENCODER.encode(item) + b"\n"


def _failure(media: str) -> bytes | None:
    """The last piece of a stream that broke: the error in the stream's own form, where it has one."""
    error = {"error": {"code": "internal", "message": "the stream ended with an error"}}
    if media.startswith(_EVENTS):
        return b"event: error\n" + frame_event(error)
    return _ENCODER.encode(error) + b"\n" if media == _LINES else None


async def send_stream(
    codec: Codec,
    media: str,
    items: AsyncIterator[Any],
    send: Callable[[dict[str, Any]], Awaitable[None]],
    headers: Mapping[bytes, bytes],
    request_id: bytes,
    gone: Callable[[], bool],
    context: Context | None,
) -> int:
    """Send each item as soon as it is there; give the HTTP status.

    Server-sent events when the client accepts them or the API's annotation says so. An error before the first item is
    answered like that of any API; a later one ends the stream with an error event, or without its proper end.
    """
    if _EVENTS.encode() in headers.get(b"accept", b""):
        media = _EVENTS
    end = object()
    try:
        item = await anext(items, end)
        status = context.response.status_code if context else 200
        start = [(b"content-type", media.encode()), (b"x-request-id", request_id), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": status, "headers": start})
        try:
            while item is not end and not gone():
                await send({"type": "http.response.body", "body": _piece(item, media, codec), "more_body": True})
                item = await anext(items, end)
        except Exception:
            _log.exception("a stream failed after its first item")
            last = _failure(media)
            if last is None:
                raise ConnectionAbortedError("the stream failed") from None
            await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return status
    finally:
        await items.aclose()  # type: ignore[attr-defined]
