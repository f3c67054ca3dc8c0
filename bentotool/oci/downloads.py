"""Receiving blobs: streamed, bounded by their descriptor, and continued where a broken connection left them."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import requests

from bentotool.errors import BentotoolError, NotFoundError, RemoteError, VerificationError
from bentotool.oci.auth import Scope
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.retry import TransientError
from bentotool.oci.transport import Transport

__all__ = ["Buffer", "Download", "RemoteBlob", "Sink"]

_PROGRESS = 1 << 20  # bytes that make a broken try count as a step forward rather than as a failure
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(?:\d{1,18}|\*)", re.ASCII)


class Sink(Protocol):
    """Takes the bytes of a blob in order; verifies them."""

    def resume(self) -> int:
        """How many bytes an earlier try left, which are not asked for again."""
        ...

    def write(self, data: bytes) -> None: ...


class Download:
    """One blob on its way into a sink.

    Args:
        sink: gets every byte once, in order, over however many connections.
        advance: told the number of new bytes.
    """

    def __init__(
        self,
        transport: Transport,
        url: str,
        scope: Scope,
        descriptor: Descriptor,
        sink: Sink,
        *,
        advance: Callable[[int], None],
    ) -> None:
        self._transport = transport
        self._url = url
        self._scope = scope
        self._descriptor = descriptor
        self._sink = sink
        self._advance = advance
        self._received = 0
        self._ranges = True

    def run(self) -> None:
        """Receive the blob whole, or what is missing of it.

        Raises:
            NotFoundError: when the registry does not have it.
            VerificationError: when the registry has another number of bytes.
            RemoteError: when the retry policy is used up.
        """
        self._received = self._sink.resume()
        self._advance(self._received)
        try:
            while self._received < self._descriptor.size:
                if self._transport.retry.run(self._try, self._transport.stop):
                    return
        except NotFoundError:
            raise NotFoundError(
                f"{self._scope.repository} lacks its blob {self._descriptor.digest} in the registry",
                hint="push it again; the registry has lost a part of it",
            ) from None

    def _try(self) -> bool:
        before = self._received
        try:
            self._receive()
        except TransientError:
            # The number of tries is for those that bring nothing; a step forward starts a new count. Each costs the
            # registry a mebibyte of the right size, so this ends. Not so where all of it has to come again each time.
            if self._ranges and self._received - before >= _PROGRESS:
                return False
            raise
        return True

    def _receive(self) -> None:
        ranged = bool(self._received) and self._ranges
        headers = {"Range": f"bytes={self._received}-"} if ranged else {}
        with self._transport.request(
            "GET", self._url, self._scope, headers=headers, accept=(200, 206, 416) if ranged else (200,), retry=False
        ) as response:
            surplus = self._check(response)
            for data in self._transport.chunks(response):
                if surplus >= len(data):
                    surplus -= len(data)
                    continue
                self._take(data[surplus:] if surplus else data)
                surplus = 0
        if self._received < self._descriptor.size:
            raise TransientError(RemoteError(self._problem(f"ended after {self._received} bytes"), hint="try again"))

    def _take(self, data: bytes) -> None:
        if self._received + len(data) > self._descriptor.size:
            raise VerificationError(self._problem(f"is longer than its {self._descriptor.size} bytes"))
        self._sink.write(data)
        self._received += len(data)
        self._advance(len(data))

    def _check(self, response: requests.Response) -> int:
        """Judge the head of an answer; returns how many of its bytes are already here."""
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            self._ranges = False
            raise TransientError(RemoteError(self._problem("cannot be continued")))
        start = 0
        if response.status_code == requests.codes.ok and self._received:
            self._ranges = False
        if response.status_code == requests.codes.partial_content:
            found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            start = int(found[1]) if found else -1
            if start != self._received:
                self._ranges = False
                raise TransientError(RemoteError(self._problem("continued at the wrong place")))
        announced = response.headers.get("Content-Length", "")
        if announced.isascii() and announced.isdigit() and int(announced) != self._descriptor.size - start:
            raise VerificationError(
                self._problem(f"has {int(announced) + start} bytes in the registry, not {self._descriptor.size}")
            )
        return self._received - start

    def _problem(self, what: str) -> str:
        return f"blob {self._descriptor.digest} {what}"


class RemoteBlob(io.RawIOBase):
    """A blob of a registry as a stream, for whoever sends it on.

    A broken connection is opened again at the byte where it broke, a few times in a row. Read in one go, the last bytes
    are given out only when the digest is right; where a part is read again, the receiver's check has to do.

    Args:
        where: the registry and repository, for messages. What fails here is never taken for a refusal of the receiver:
            errors carry no status.
    """

    def __init__(self, transport: Transport, url: str, scope: Scope, descriptor: Descriptor, where: str) -> None:
        self._transport = transport
        self._url = url
        self._scope = scope
        self._size = descriptor.size
        self._digest = descriptor.digest
        self._position = 0
        self._response: requests.Response | None = None
        self._pieces: Iterator[bytes] = iter(())
        self._rest = memoryview(b"")
        self._where = where
        self._hash: Any = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset != self._position:
            self._hang_up()
            self._position = max(0, base + offset)
            self._hash = None if self._position else hashlib.sha256()
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read what is there, at least one byte before the end.

        Raises:
            RemoteError: when the registry breaks off again and again.
            NotFoundError: when it does not have the blob.
            VerificationError: when the blob has another size or digest than its descriptor says.
        """
        if self._position >= self._size:
            return 0
        if not self._rest:
            self._rest = memoryview(self._transport.retry.run(self._next, self._transport.stop))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        if self._hash is not None:
            self._hash.update(self._rest[:count])
            if self._position + count == self._size and f"sha256:{self._hash.hexdigest()}" != self._digest:
                raise VerificationError(
                    f"blob {self._digest} of {self._where} has other bytes there than its digest says"
                )
        self._rest = self._rest[count:]
        self._position += count
        return count

    def _next(self) -> bytes:
        try:
            if self._response is None:
                self._call()
            piece = next(self._pieces, b"")
        except TransientError:
            self._hang_up()
            raise
        if not piece:
            self._hang_up()
            raise TransientError(RemoteError(f"blob {self._digest} ended after {self._position} bytes"))
        if self._position + len(piece) > self._size:
            raise VerificationError(f"blob {self._digest} is longer than its {self._size} bytes")
        return piece

    def _call(self) -> None:
        headers = {"Range": f"bytes={self._position}-"} if self._position else {}
        accept = (206,) if self._position else (200,)
        try:
            response = self._transport.request(
                "GET", self._url, self._scope, headers=headers, accept=accept, retry=False
            )
        except NotFoundError:
            raise NotFoundError(f"{self._where} has no blob {self._digest}, which its manifest lists") from None
        except BentotoolError as error:
            error.details.pop("status", None)
            raise
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if self._position and (not found or int(found[1]) != self._position):
            response.close()
            raise RemoteError(f"the registry does not give parts of blob {self._digest}", hint="try again")
        announced = response.headers.get("Content-Length", "")
        if announced.isascii() and announced.isdigit() and int(announced) != self._size - self._position:
            response.close()
            has = int(announced) + self._position
            raise VerificationError(f"blob {self._digest} of {self._where} has {has} bytes there, not {self._size}")
        self._response = response
        self._pieces = self._transport.chunks(response)

    def _hang_up(self) -> None:
        self._rest = memoryview(b"")
        if self._response is not None:
            self._response.close()
            self._response = None

    def close(self) -> None:
        self._hang_up()
        super().close()


class Buffer:
    """A sink in memory; it verifies nothing."""

    def __init__(self) -> None:
        self.data = bytearray()

    def resume(self) -> int:
        return 0

    def write(self, data: bytes) -> None:
        self.data += data
