"""Zstandard streams, both ways, with every bound that a stranger's file needs (RFC 8878).

Written with one thread and no long-distance matching, so that equal content and an equal libzstd give equal bytes. Read
with a window of at most 128 MiB, a bound on what comes out, and one on how many times larger it is than what went in.
Needs the package ``zstandard``: ``pip install bentotool[zstd]``.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from bentotool.errors import MissingDependencyError, UnsafeError, VerificationError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["MAGIC", "MAX_RATIO", "RATIO_FREE", "Decompressed", "Sink", "compressing", "is_bomb"]

MAGIC = b"\x28\xb5\x2f\xfd"
MAX_RATIO = 250
"""Weights compress up to twice, text tens of times; only what is made to, or holds nothing, compresses more."""
RATIO_FREE = 64 << 20
"""Bytes that may come out before the ratio counts."""
_WINDOW = 128 << 20
_LEVEL = 1  # level 3 takes twice the time and gains nothing on weights
_ENDING = bytes.fromhex("502a4d18") + (192 << 10).to_bytes(4, "little") + b"\xff" * (192 << 10)
"""A frame that is skipped; and where a frame before it lacks its end, bytes that can be no block and no checksum."""


class Sink(Protocol):
    """Where compressed bytes go."""

    def write(self, data: Any, /) -> int: ...


def _library() -> ModuleType:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "zstandard", install="'bentotool[zstd]'", purpose="to read or write zstd"
        ) from None
    return zstandard


def is_bomb(consumed: int, produced: int) -> bool:
    """Whether compressed bytes became so many that they were made to harm."""
    return produced > RATIO_FREE and produced > MAX_RATIO * consumed


def compressing(target: Sink, size: int) -> Any:
    """A writable stream whose bytes reach ``target`` compressed; closing it ends the frame and leaves ``target`` open.

    Args:
        size: how many bytes will be written, exactly.

    Raises:
        MissingDependencyError: without the package ``zstandard``.
    """
    zstandard = _library()
    compressor = zstandard.ZstdCompressor(level=_LEVEL, threads=0, write_checksum=True, write_content_size=True)
    return compressor.stream_writer(target, size=size, closefd=False)


class Decompressed(io.RawIOBase):
    """The content of a Zstandard stream, read once from start to end in constant memory.

    Args:
        source: the compressed bytes, from its position on.
        name: what to call it in messages.
        limit: most bytes that may come out.
        advance: told the compressed bytes as they are read.

    Raises:
        MissingDependencyError: without the package ``zstandard``.
        VerificationError: while reading, when the stream is damaged, cut off, or asks for more than 128 MiB of memory.
        UnsafeError: while reading, when the stream is a bomb, or more comes out than ``limit``.
    """

    def __init__(
        self, source: BinaryIO, name: str, limit: int, advance: Callable[[int], None] = lambda amount: None
    ) -> None:
        super().__init__()
        zstandard = _library()
        self._error: type[Exception] = zstandard.ZstdError
        self._source = _Counted(source, advance)
        self._name, self._limit = name, limit
        self._produced = 0
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._stream = decompressor.stream_reader(self._source, read_across_frames=True, closefd=False)

    @property
    def consumed(self) -> int:
        """Compressed bytes read so far."""
        return self._source.count

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._produced

    def readinto(self, buffer: object) -> int:
        try:
            count = int(self._stream.readinto(buffer))
        except self._error as error:
            reason = str(error).rpartition(": ")[2].lower()
            raise VerificationError(f"{self._name} is not sound zstd: {reason}") from None
        self._produced += count
        if self._produced > self._limit:
            raise UnsafeError(
                f"{self._name} unpacks to more than {self._limit} bytes", hint="allow more with --max-size"
            )
        if is_bomb(self._source.count, self._produced):
            raise UnsafeError(f"{self._name} unpacks to more than {MAX_RATIO} times its size")
        return count


class _Counted:
    """The compressed bytes, counted, and after them an ending that is an error unless the last frame is whole."""

    def __init__(self, source: BinaryIO, advance: Callable[[int], None]) -> None:
        self._source, self._advance = source, advance
        self._after = _ENDING
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        if data:
            self._advance(len(data))
            return data
        size = len(self._after) if size < 0 else size
        data, self._after = self._after[:size], self._after[size:]
        return data
