"""Unpacks an export of BentoML: a tar archive, compressed or not, or a zip; within bounds, regular files only."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Protocol

from bentotool.errors import UnsafeError, VerificationError
from bentotool.oci.unpack import MAX_ENTRIES, FileSink, TarSink, Unpacker

__all__ = ["unpack"]

_PIECE = 1 << 20
_MEMORY = 256 << 20  # bytes that decompressing may take: xz at its strongest takes 65 million
_DAMAGED = (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, NotImplementedError)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def unpack(path: Path, folder: Path, max_bytes: int, advance: Callable[[int], None]) -> None:
    """Unpack the archive ``path`` into ``folder``, which must not exist.

    Raises:
        UnsafeError: for links, devices, names that lead elsewhere, too many files or bytes.
        VerificationError: the archive is damaged, or none.
    """
    unpacker = Unpacker(folder, max_bytes=max_bytes)
    with path.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            _unzip(file, path.name, unpacker, advance)
            return
        file.seek(0)
        try:
            with closing(TarSink(unpacker)) as sink:
                for piece in _plain(file, path.name):
                    sink.write(piece)
                    advance(len(piece))
                sink.finish()
        except (UnsafeError, VerificationError) as error:  # what refuses an entry does not know where it comes from
            if path.name in error.message:
                raise
            hint = error.hint or "is it an export of BentoML? export it again"
            raise type(error)(f"{path.name}: {error.message}", hint=hint) from None


def _plain(file: BinaryIO, name: str) -> Iterator[bytes]:
    """The bytes of a file, decompressed in pieces."""
    make = _format(file.read(6))
    file.seek(0)
    if make is None:
        while piece := file.read(_PIECE):
            yield piece
        return
    decompressor = make()
    while True:
        data = b""
        if decompressor.eof:
            data = decompressor.unused_data or file.read(_PIECE)
            if not data.strip(b"\0"):
                _only_padding(file, name)
                return
            decompressor = make()
        elif decompressor.needs_input:
            data = file.read(_PIECE)
            if not data:
                raise VerificationError(f"{name} ends early", hint="export it again")
        try:
            piece = decompressor.decompress(data, _PIECE)
        except Exception as error:  # zlib, bz2 and lzma each have an error of their own
            raise VerificationError(f"{name} is damaged: {error}", hint="export it again") from None
        yield piece


def _only_padding(file: BinaryIO, name: str) -> None:
    while piece := file.read(_PIECE):
        if piece.strip(b"\0"):
            raise VerificationError(f"{name} goes on after its end", hint="export it again")


def _format(head: bytes) -> Callable[[], _Decompressor] | None:
    if head == b"\xfd7zXZ\0":
        from lzma import LZMADecompressor

        return lambda: LZMADecompressor(memlimit=_MEMORY)
    if head.startswith(b"BZh"):
        from bz2 import BZ2Decompressor

        return BZ2Decompressor
    return _Gzip if head.startswith(b"\x1f\x8b") else None


class _Gzip:
    """What the decompressors of lzma and bz2 are: zlib's leaves to its caller what it has not taken yet."""

    def __init__(self) -> None:
        import zlib

        self._stream = zlib.decompressobj(31)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


def _unzip(file: BinaryIO, name: str, unpacker: Unpacker, advance: Callable[[int], None]) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_ENTRIES:
                raise UnsafeError(f"{name} has more than {MAX_ENTRIES} entries", hint="do not use this model")
            for entry in entries:
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if entry.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise UnsafeError(f"{entry.filename!r:.120} in {name} is a link or device")
                with (
                    closing(FileSink(unpacker, entry.filename, entry.file_size)) as sink,
                    archive.open(entry) as member,
                ):
                    while piece := member.read(_PIECE):
                        sink.write(piece)
                        advance(len(piece))
                    sink.finish()
    except _DAMAGED as error:
        raise VerificationError(f"{name} is damaged: {error}", hint="export it again") from None
