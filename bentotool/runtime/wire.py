"""Messages between the services of one server: a typed binary form; every length is checked before it is believed.

A frame is ``kind:u8, 3 zero bytes, head:u32, body:u64`` (big endian), then the head, then the body. The head is one of
the records below, in msgpack. Large values (arrays, tensors, images) are not in it: they lie in the body one after the
other, each at a multiple of 64 bytes from its start, and the head has an extension in their place which says what they
are. So an array is neither copied nor converted on its way in, and cannot reach outside the message that brought it.

What is known: everything msgspec writes as msgpack, numpy arrays and scalars, torch tensors, pandas frames and series,
PIL images, paths, complex numbers, sets and tuples by the receiver's annotation. Nothing is ever unpickled.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bentotool.runtime.wirevalues import Buffers, WireError, dump_foreign, load_extension
from bentotool.sdk.carried_errors import CarriedError

__all__ = [
    "CALL",
    "END",
    "ERROR",
    "HELLO",
    "ITEM",
    "MAX_MESSAGE",
    "READY",
    "RESULT",
    "WELCOME",
    "CallHead",
    "Frame",
    "FrameReader",
    "Hello",
    "WireError",
    "frame",
    "pack",
    "unpack",
    "unpack_error",
]

HELLO, WELCOME, CALL, RESULT, ITEM, END, ERROR = range(1, 8)
READY = "/readyz"
"""In the place of an API's name: the question whether the service is ready, answered with why not, or null."""
MAX_MESSAGE = 4 << 30
"""Bytes of one message at most."""
MAX_HEAD = 256 << 20
_FIRST_LIMIT = 4096  # of a peer that has not shown the token yet
_HEAD = struct.Struct("!B3xIQ")
_SCRATCH = 65536
_ALIGN = 64


class Hello(msgspec.Struct):
    """What a caller shows first."""

    token: str
    service: str


class CallHead(msgspec.Struct):
    """One call.

    Attributes:
        api: its name.
        seconds: until the deadline; None for the API's own timeout.
        headers: request id and trace context.
        value: ``[positional, named]``.
    """

    api: str
    seconds: float | None
    headers: dict[str, str]
    sizes: list[int]
    value: msgspec.Raw


class _ValueHead(msgspec.Struct):
    sizes: list[int]
    value: msgspec.Raw


@dataclass(frozen=True)
class Frame:
    """One message as it came; `data` owns the memory."""

    kind: int
    data: bytearray
    head_length: int

    @property
    def head(self) -> memoryview:
        return memoryview(self.data)[_HEAD.size : _HEAD.size + self.head_length]

    @property
    def body(self) -> memoryview:
        return memoryview(self.data)[_HEAD.size + self.head_length :]


def _lengths(data: bytes | bytearray | memoryview, limit: int) -> tuple[int, int, int]:
    kind, head, body = _HEAD.unpack_from(data)
    if not HELLO <= kind <= ERROR or head > MAX_HEAD or _HEAD.size + head + body > limit:
        raise WireError(f"a message of kind {kind} with {head} and {body} bytes is not taken")
    return kind, head, body


class FrameReader:
    """Puts frames together from what a socket gives, without a copy of large ones.

    Args:
        limit: bytes of a message at most; `trust` raises it.
    """

    def __init__(self, limit: int = _FIRST_LIMIT) -> None:
        self.limit = limit
        self._scratch = bytearray(_SCRATCH)
        self._have = 0
        self._large: bytearray | None = None

    def buffer(self) -> memoryview:
        """Where the next bytes go."""
        return memoryview(self._scratch if self._large is None else self._large)[self._have :]

    def received(self, count: int) -> list[Frame]:
        """Frames that are whole after `count` more bytes. Raises: WireError: a length that is not taken."""
        self._have += count
        if self._large is not None:
            if self._have < len(self._large):
                return []
            data, self._large, self._have = self._large, None, 0
            kind, head, _ = _lengths(data, self.limit)
            return [Frame(kind, data, head)]
        found: list[Frame] = []
        start = 0
        while self._have - start >= _HEAD.size:
            kind, head, body = _lengths(memoryview(self._scratch)[start:], self.limit)
            total = _HEAD.size + head + body
            if self._have - start < total:
                if total > _SCRATCH:
                    self._large = bytearray(total)
                    self._large[: self._have - start] = self._scratch[start : self._have]
                    self._have -= start
                    return found
                break
            found.append(Frame(kind, self._scratch[start : start + total], head))
            start += total
        if start:
            rest = self._scratch[start : self._have]
            self._scratch[: len(rest)] = rest
            self._have = len(rest)
        return found


def frame(kind: int, head: bytes = b"", buffers: Sequence[memoryview] = ()) -> list[bytes | memoryview]:
    """The pieces of one message, to be written one after the other. Raises: WireError: it is too large."""
    pieces: list[bytes | memoryview] = []
    length = 0
    for buffer in buffers:
        gap = -length % _ALIGN
        if gap:
            pieces.append(bytes(gap))
        pieces.append(buffer)
        length += gap + buffer.nbytes
    if len(head) > MAX_HEAD or len(head) + length + _HEAD.size > MAX_MESSAGE:
        raise WireError(f"a value of {len(head) + length} bytes is too large to be sent to another service")
    start = _HEAD.pack(kind, len(head), length) + head
    return [start, *pieces]


def pack(kind: int, value: Any, call: tuple[str, float | None, dict[str, str]] | None = None) -> list[Any]:
    """A message with a value.

    Args:
        value: for a call ``[positional, named]``.
        call: API, seconds left and headers.

    Raises:
        WireError: a value of a type that cannot be sent, or too much of it.
    """
    buffers = Buffers()
    try:
        raw = msgspec.Raw(msgspec.msgpack.encode(value, enc_hook=lambda item: dump_foreign(item, buffers)))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise WireError(f"{error or type(error).__name__}") from error
    sizes = [piece.nbytes for piece in buffers.pieces]
    head: Any = _ValueHead(sizes, raw) if call is None else CallHead(*call, sizes, raw)
    return frame(kind, msgspec.msgpack.encode(head), buffers.pieces)


def _views(frame: Frame, sizes: list[int]) -> list[memoryview]:
    found, offset, body = [], 0, frame.body
    for size in sizes:
        offset += -offset % _ALIGN
        if size < 0 or offset + size > body.nbytes:
            raise WireError("a message names bytes that it does not have")
        found.append(body[offset : offset + size])
        offset += size
    if offset != body.nbytes:
        raise WireError("a message has bytes that it does not name")
    return found


def unpack(received: Frame) -> tuple[CallHead | None, Any]:
    """The call, if it is one, and the value of a message. Raises: WireError: it is not in order."""
    try:
        if received.kind == CALL:
            head: Any = msgspec.msgpack.decode(received.head, type=CallHead)
        else:
            head = msgspec.msgpack.decode(received.head, type=_ValueHead)
        views = _views(received, head.sizes)
        value = msgspec.msgpack.decode(head.value, ext_hook=lambda code, data: load_extension(code, data, views))
    except WireError:
        raise
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError, TypeError, OverflowError) as error:
        raise WireError(f"a message is not in order: {error}") from error
    return (head if received.kind == CALL else None), value


def unpack_error(received: Frame) -> CarriedError:
    """What went wrong on the other side. Raises: WireError."""
    try:
        return msgspec.msgpack.decode(received.head, type=CarriedError)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"a message is not in order: {error}") from error
