"""Gzip streams of strangers, read in constant memory and with a bound on what comes out (RFC 1952)."""

from __future__ import annotations

import io
import zlib
from typing import BinaryIO

from bentotool.errors import UnsafeError, VerificationError
from bentotool.oci.digest import CHUNK
from bentotool.oci.zstd import MAX_RATIO, is_bomb

__all__ = ["Gunzipped"]

_GZIP = 16 + zlib.MAX_WBITS


class Gunzipped(io.RawIOBase):
    """The content of a gzip stream of one or more members, read once from start to end.

    Args:
        source: the compressed bytes, from its position on.
        name: what to call it in messages.
        limit: most bytes that may come out.

    Raises:
        VerificationError: while reading, when the stream is damaged, cut off, or followed by something else.
        UnsafeError: while reading, when the stream is a bomb, or more comes out than ``limit``.
    """

    def __init__(self, source: BinaryIO, name: str, limit: int) -> None:
        super().__init__()
        self._source, self._name, self._limit = source, name, limit
        self._member = zlib.decompressobj(_GZIP)
        self._waiting = b""
        self._consumed = self._produced = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        data = self._next(len(target))
        target[: len(data)] = data
        return len(data)

    def _next(self, size: int) -> bytes:
        while size:
            if not self._waiting and not self._member.eof:
                self._waiting = self._source.read(CHUNK)
                self._consumed += len(self._waiting)
            if self._member.eof and not self._next_member():
                return b""
            # Without input zlib may still hold output back, so an end of the input is only one when nothing comes.
            ended = not self._waiting
            data = self._inflate(size)
            if data:
                return data
            if ended and not self._member.eof:
                raise self._bad("it ends early")
        return b""

    def _inflate(self, size: int) -> bytes:
        try:
            data = self._member.decompress(self._waiting, size)
        except zlib.error as error:
            raise self._bad(str(error).rpartition(": ")[2]) from None
        self._waiting = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        self._produced += len(data)
        if self._produced > self._limit:
            raise UnsafeError(
                f"{self._name} unpacks to more than {self._limit} bytes", hint="allow more with --max-size"
            )
        if is_bomb(self._consumed, self._produced):
            raise UnsafeError(f"{self._name} unpacks to more than {MAX_RATIO} times its size")
        return data

    def _next_member(self) -> bool:
        """Begin the member after one that ended; False when nothing follows."""
        self._waiting = self._waiting or self._source.read(CHUNK)
        if not self._waiting:
            return False
        self._member = zlib.decompressobj(_GZIP)
        return True

    def _bad(self, reason: str) -> VerificationError:
        return VerificationError(f"{self._name} is not sound gzip: {reason}")
