"""Sending blobs: request bodies of known length, and the upload in one piece (distribution-spec, "Pushing blobs")."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote

from bentotool.errors import NotFoundError, RemoteError, UsageError
from bentotool.oci.auth import Scope
from bentotool.oci.retry import TransientError
from bentotool.oci.transport import Transport

__all__ = ["OCTETS", "Advance", "BodySource", "UploadSizes", "begin", "put_whole", "with_digest"]

Advance = Callable[[int], None]
"""Told how many bytes went over the wire; a negative number takes back those of a try that failed."""
_READ = 1 << 20
_CHUNK = "BENTOTOOL_UPLOAD_CHUNK"
OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class UploadSizes:
    """Bytes per request of a chunked upload, and the blob size above which uploads are chunked."""

    chunk: int = 256 << 20
    chunked_above: int = 256 << 20  # no more than a chunk, so that no fault costs more than one

    @classmethod
    def configured(cls) -> UploadSizes:
        """As ``$BENTOTOOL_UPLOAD_CHUNK`` says, in bytes, where something before a registry limits a request.

        Raises:
            UsageError: when the variable is not a number above 0.
        """
        text = os.environ.get(_CHUNK, "").strip()
        if not text:
            return cls()
        if not text.isascii() or not text.isdigit() or not int(text[:19]):
            raise UsageError(f"{_CHUNK}={text!r} is not a number of bytes")
        return cls(int(text[:19]), int(text[:19]))


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
            headers={"Content-Type": OCTETS},
            body=source,
            accept=(201,),
            retry=False,
        )
    except TransientError:
        source.take_back()
        raise
    except NotFoundError as error:
        source.take_back()
        if "status" not in error.details:  # it is the source that is not there
            raise
        raise TransientError(
            RemoteError(f"the registry dropped an upload: {error.message}", hint="try again")
        ) from None
    response.close()


def begin(transport: Transport, url: str, scope: Scope) -> tuple[str, int]:
    """Open an upload.

    Returns:
        where it takes content, and the fewest bytes it takes at once, but for the last piece.

    Raises:
        TransientError: when another try may succeed.
        RemoteError: when the answer names no place.
    """
    with transport.request("POST", url, scope, headers={"Content-Length": "0"}, accept=(202,), retry=False) as response:
        location = response.headers.get("Location")
        if not location:
            raise RemoteError(f"{url} opened an upload without a Location")
        minimum = response.headers.get("OCI-Chunk-Min-Length", "")
        known = minimum.isascii() and minimum.isdigit() and len(minimum) < 19
        return transport.resolve(location, response.url), int(minimum) if known else 0
