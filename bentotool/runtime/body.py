"""The body of a request: what kinds are read, how much of it, and reading it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from email.message import Message
from functools import lru_cache
from typing import Any

from bentotool.runtime.deadlines import under_deadline
from bentotool.sdk.exceptions import DeadlineExceeded, PayloadTooLarge, ServiceError, UnsupportedMediaType

__all__ = ["Disconnected", "check_headers", "check_size", "in_time", "media_type", "pieces", "read_binary", "read_body"]

_JSON = b"application/json"
_ASK = "send content-type: application/json"
Receive = Callable[[], Awaitable[dict[str, Any]]]


class Disconnected(Exception):
    """The client went away while it was sending; there is nobody to answer."""


class RequestTimeout(ServiceError):
    """The body did not come in time (408)."""

    code = "request_timeout"
    http_status = 408


async def in_time(reading: Coroutine[Any, Any, Any], receive: Receive, deadline: float) -> Any:
    """Await what reads a body until `deadline` (monotonic): who sends slowly must not hold a place for ever.

    Raises:
        RequestTimeout: a part of the body is still missing.
        DeadlineExceeded: it is there, and reading it took too long.
    """
    try:
        return await under_deadline(reading, deadline, 0)
    except DeadlineExceeded:
        # uvicorn's cycle knows whether there is more to come
        if getattr(getattr(receive, "__self__", None), "more_body", True):
            raise RequestTimeout("the body did not come in time") from None
        raise DeadlineExceeded("the deadline passed while the body was read") from None


@lru_cache(maxsize=256)
def _objection(content_type: bytes) -> str | None:
    """Why a body of this type is not read; None where it is."""
    message = Message()
    message["content-type"] = text = content_type.decode("latin-1")
    media, charset = message.get_content_type(), message.get_param("charset", "utf-8")
    # get_content_type answers text/plain for what it cannot read, so it is no way around this
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        return f"content type {text!r} is not read here: {_ASK}"
    if str(charset).lower() not in ("utf-8", "utf8"):
        return f"charset {str(charset)!r} is not read here: {_ASK}, in UTF-8"
    return None


@lru_cache(maxsize=256)
def media_type(content_type: bytes) -> tuple[str, str | None]:
    """The media type in lower case, and its boundary, of a ``Content-Type``."""
    message = Message()
    message["content-type"] = content_type.decode("latin-1")
    boundary = message.get_param("boundary")
    return message.get_content_type(), boundary if isinstance(boundary, str) else None


def check_size(headers: Mapping[bytes, bytes], limit: int, *, compressed: bool = False) -> None:
    """Refuse a body by its length, or because it is compressed, before any of it is read.

    Args:
        compressed: whoever reads it knows what to do with a compressed one.

    Raises:
        PayloadTooLarge: longer than `limit` bytes.
        UnsupportedMediaType: compressed.
    """
    length = headers.get(b"content-length")
    if length is not None and int(length) > limit:
        raise PayloadTooLarge(f"the body has {int(length)} bytes, at most {limit} are taken")
    encoding = headers.get(b"content-encoding")
    if encoding is not None and not compressed and (text := encoding.decode("latin-1")).strip().lower() != "identity":
        raise UnsupportedMediaType(f"content encoding {text!r} is not read here: send the body uncompressed")


def check_headers(headers: Mapping[bytes, bytes], limit: int) -> None:
    """Refuse a body that is to be JSON by its headers, before any of it is read.

    A page in a browser may send text/plain or a form to any server without asking it first; JSON it may not. So the
    type is checked, and not only the content.

    Raises:
        PayloadTooLarge: longer than `limit` bytes.
        UnsupportedMediaType: not JSON in UTF-8, or compressed.
    """
    check_size(headers, limit)
    content_type = headers.get(b"content-type", _JSON)
    if content_type != _JSON and (objection := _objection(content_type)):
        raise UnsupportedMediaType(objection)


async def pieces(receive: Receive, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes.

    Raises:
        Disconnected: the client left.
        PayloadTooLarge: longer than `limit` bytes.
    """
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise PayloadTooLarge(f"the body is larger than {limit} bytes")
        if piece:
            yield piece
        more = message.get("more_body", False)


async def read_binary(receive: Receive, limit: int) -> bytearray:
    """The whole body, in memory that arrays can be made over and written to. Raises as `pieces` does."""
    body = bytearray()
    async for piece in pieces(receive, limit):
        body += piece
    return body


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """The whole body.

    Raises:
        Disconnected: the client left.
        PayloadTooLarge: longer than `limit` bytes.
        UnsupportedMediaType: there is a body, and nothing says of what type.
    """
    message = await receive()
    if message["type"] == "http.disconnect":
        raise Disconnected
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body"):
            if size > limit:
                break
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        body = b"".join(parts)
    if len(body) > limit:
        raise PayloadTooLarge(f"the body is larger than {limit} bytes")
    if body and b"content-type" not in headers:
        raise UnsupportedMediaType(f"the body has no content type: {_ASK}")
    return body
