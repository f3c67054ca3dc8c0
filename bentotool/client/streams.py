"""Taking a stream apart into the items that the service sent: JSON Lines, server-sent events, plain pieces.

Nothing here waits or reads: pieces of bytes go in as they come, items come out.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any

from bentotool.client.errors import call_error
from bentotool.client.results import decode_item
from bentotool.client.routes import Route
from bentotool.errors import RemoteError

__all__ = ["ACCEPT", "Splitter", "make_splitter"]

_EVENTS, _LINES = "text/event-stream", ("application/jsonl", "application/x-ndjson")
_LONGEST_ITEM = 256 * 1024 * 1024
_ENVELOPE = {"code", "message", "hint", "path"}


def ACCEPT(route: Route) -> str:  # noqa: N802 - reads as the header it is
    """What to ask for: texts as events, whose borders nothing on the way can move; objects as lines."""
    if not route.native or route.output.get("format") == "binary":
        return "*/*"
    if route.output.get("type") == "string" and str(route.output.get("media_type", "")).startswith("text/plain"):
        return f"{_EVENTS}, */*;q=0.1"
    return "*/*"


class Splitter:
    """Plain pieces: bytes as they come, texts at the borders of characters."""

    def __init__(self, route: Route) -> None:
        self._route = route
        binary = route.output.get("format") == "binary"
        self._decoder = None if binary else codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The items that are complete now."""
        if self._decoder is None:
            if piece:
                yield piece
        elif text := self._decoder.decode(piece):
            yield text

    def end(self) -> Iterator[Any]:
        """What is left when the stream has ended."""
        if self._decoder is not None and (text := self._decoder.decode(b"", final=True)):
            yield text


class _Lines(Splitter):
    """One JSON value in each line; the last may be the error that the stream broke with."""

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._rest = bytearray()

    def feed(self, piece: bytes) -> Iterator[Any]:
        self._rest += piece
        while (at := self._rest.find(b"\n")) >= 0:
            line = bytes(self._rest[:at])
            del self._rest[: at + 1]
            if line.strip():
                yield self._item(line)
        _check_length(self._rest)

    def end(self) -> Iterator[Any]:
        if self._rest.strip():
            yield self._item(bytes(self._rest))

    def _item(self, line: bytes) -> Any:
        value = _decode(line, self._route)
        if isinstance(value, dict) and set(value) == {"error"}:
            error = value["error"]
            if isinstance(error, dict) and {"code", "message"} <= set(error) <= _ENVELOPE:
                raise call_error(self._route.name, 500, value)
        return decode_item(self._route, value)


class _Events(Splitter):
    """Server-sent events: the data of each, decoded where the items are no texts."""

    def __init__(self, route: Route) -> None:
        super().__init__(route)
        self._rest = bytearray()
        self._text = route.output.get("type") == "string"

    def feed(self, piece: bytes) -> Iterator[Any]:
        self._rest += piece
        while (at := self._rest.find(b"\n\n")) >= 0:
            block = bytes(self._rest[:at])
            del self._rest[: at + 2]
            yield from self._event(block)
        _check_length(self._rest)

    def end(self) -> Iterator[Any]:
        if self._rest.strip():
            yield from self._event(bytes(self._rest))

    def _event(self, block: bytes) -> Iterator[Any]:
        kind, data = "", []
        for line in block.decode("utf-8", "replace").split("\n"):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "event":
                kind = value.strip()
        if not data:
            return
        text = "\n".join(data)
        if kind == "error":
            raise call_error(self._route.name, 500, _decode(text.encode(), self._route, strict=False))
        yield text if self._text else decode_item(self._route, _decode(text.encode(), self._route))


def _check_length(rest: bytearray) -> None:
    if len(rest) > _LONGEST_ITEM:
        raise RemoteError(f"an item of the stream has more than {_LONGEST_ITEM} bytes")


def _decode(text: bytes, route: Route, *, strict: bool = True) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if not strict:
            return None
        raise RemoteError(f"{route.name}: an item of the stream is not JSON: {error}") from error


def make_splitter(route: Route, content_type: str) -> Splitter:
    """What takes a stream of this type apart. BentoML's streams are plain pieces, whatever they are labelled."""
    media = content_type.partition(";")[0].strip().lower()
    if media in _LINES:
        return _Lines(route)
    return _Events(route) if media == _EVENTS and route.native else Splitter(route)
