"""Sending blobs: request bodies of known length, and the two ways to upload (distribution-spec, "Pushing blobs")."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote

import requests

from bentotool.errors import NotFoundError, RemoteError
from bentotool.oci.auth import Scope
from bentotool.oci.retry import TransientError
from bentotool.oci.transport import Transport

__all__ = ["Advance", "BodySource", "ChunkedUpload", "UploadSizes", "put_whole", "with_digest"]

Advance = Callable[[int], None]
"""Told how many bytes went over the wire; a negative number takes back those of a try that failed."""
_READ = 1 << 20
_OCTETS = "application/octet-stream"
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})", re.ASCII)


@dataclass(frozen=True)
class UploadSizes:
    """Bytes per request of a chunked upload, and the blob size above which uploads are chunked."""

    chunk: int = 256 << 20
    chunked_above: int = 512 << 20


class _Body:
    """The bytes ``start`` to ``start + length`` of a seekable stream, as a request body.

    requests needs ``__len__`` to send a Content-Length, and ``__iter__`` to see a stream; urllib3 then calls ``read``.
    It asks for 16 KiB, which costs a third of the speed, so pieces of our own size are given.
    """

    def __init__(self, stream: BinaryIO, start: int, length: int, advance: Advance, stop: threading.Event) -> None:
        stream.seek(start)
        self._stream = stream
        self._length = length
        self._advance = advance
        self._stop = stop
        self._buffer = memoryview(bytearray(min(_READ, length)))
        self.sent = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[memoryview]:
        while piece := self.read():
            yield piece

    def read(self, size: int = -1) -> memoryview:
        """The next piece; its memory is used again by the next call."""
        if self._stop.is_set():
            raise RemoteError("the transfer was stopped")
        wanted = min(len(self._buffer), self._length - self.sent)
        if not wanted:  # a raw stream asked for nothing cannot be told from one that has ended
            return self._buffer[:0]
        count: int = self._stream.readinto(self._buffer[:wanted])  # type: ignore[attr-defined]
        self.sent += count
        self._advance(count)
        return self._buffer[:count]


class BodySource:
    """Makes a fresh body over the same bytes for every try, and keeps the progress right.

    Args:
        stream: seekable; the caller closes it.
        start: first byte.
        length: number of bytes.
    """

    def __init__(self, stream: BinaryIO, start: int, length: int, advance: Advance, stop: threading.Event) -> None:
        self._stream, self._start, self._length, self._stop = stream, start, length, stop
        self._advance = advance
        self._last: _Body | None = None

    def __call__(self) -> _Body | bytes:
        self.take_back()
        # requests would send an empty stream with chunked encoding, which registries refuse.
        if not self._length:
            return b""
        self._last = _Body(self._stream, self._start, self._length, self._advance, self._stop)
        return self._last

    def take_back(self) -> None:
        """The bytes of the last body did not arrive."""
        if self._last is not None:
            self._advance(-self._last.sent)
            self._last = None


def with_digest(location: str, digest: str) -> str:
    """An upload's closing URL. The rest of the query is the registry's own state and stays as it is."""
    return f"{location}{'&' if '?' in location else '?'}digest={quote(digest, safe='')}"


def put_whole(transport: Transport, location: str, scope: Scope, digest: str, source: BodySource) -> None:
    """Send a blob in one request.

    Raises:
        TransientError: when another upload session may succeed; this one cannot be used again.
    """
    try:
        response = transport.request(
            "PUT",
            with_digest(location, digest),
            scope,
            headers={"Content-Type": _OCTETS},
            body=source,
            accept=(201,),
            retry=False,
        )
    except TransientError:
        source.take_back()
        raise
    response.close()


class ChunkedUpload:
    """One upload session that takes a blob in pieces and survives a broken connection.

    After a failed piece the registry is asked how far it got, and the next piece starts there.
    """

    def __init__(self, transport: Transport, scope: Scope, started: requests.Response, sizes: UploadSizes) -> None:
        self._transport = transport
        self._scope = scope
        self._location = transport.resolve(started.headers.get("Location", ""), started.url)
        minimum = started.headers.get("OCI-Chunk-Min-Length", "")
        self._chunk = max(sizes.chunk, int(minimum) if minimum.isascii() and minimum.isdigit() else 0)
        self._offset = 0
        self._unsure = False

    def send(self, stream: BinaryIO, digest: str, size: int, advance: Advance) -> None:
        """Send the whole blob and close the session.

        Raises:
            TransientError: when the session is lost, and a new one may succeed.
        """
        while self._offset < size:
            self._transport.retry.run(lambda: self._step(stream, size, advance), self._transport.stop)
        self._transport.request(
            "PUT", with_digest(self._location, digest), self._scope, headers={"Content-Length": "0"}, accept=(201,)
        ).close()

    def _step(self, stream: BinaryIO, size: int, advance: Advance) -> None:
        if self._unsure:
            self._ask_offset(size, advance)
        length = min(self._chunk, size - self._offset)
        if not length:
            return
        source = BodySource(stream, self._offset, length, advance, self._transport.stop)
        headers = {"Content-Type": _OCTETS, "Content-Range": f"{self._offset}-{self._offset + length - 1}"}
        self._unsure = True
        try:
            # 416: the registry has another idea of where we are.
            response = self._transport.request(
                "PATCH", self._location, self._scope, headers=headers, body=source, accept=(202, 416), retry=False
            )
        except TransientError:
            source.take_back()
            raise
        with response:
            if response.status_code != requests.codes.accepted:
                source.take_back()
                raise TransientError(RemoteError("the registry lost its place in an upload", hint="try again"))
            self._unsure = False
            self._follow(response, self._offset + length)

    def _follow(self, response: requests.Response, sent: int) -> None:
        if location := response.headers.get("Location"):
            self._location = self._transport.resolve(location, response.url)
        self._offset = sent

    def _ask_offset(self, size: int, advance: Advance) -> None:
        try:
            response = self._transport.request("GET", self._location, self._scope, accept=(204,), retry=False)
        except NotFoundError as error:
            raise TransientError(RemoteError("the registry dropped an upload", hint="try again")) from error
        with response:
            known = _RANGE.fullmatch(response.headers.get("Range", ""))
            # A registry that has nothing yet answers 0-0, as one with a single byte does: start again then.
            reached = int(known[1]) + 1 if known and int(known[1]) else 0
            if reached > size:
                raise RemoteError("the registry has more bytes of an upload than were sent")
            advance(reached - self._offset)
            self._unsure = False
            self._follow(response, reached)
