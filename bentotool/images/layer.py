"""Layers of an image that are made here: tar archives whose bytes depend on their content alone.

Unlike a layer of a model or a Bento, one of an image has programs and symbolic links. Owner and time are 0, modes 0644
and 0755, entries sorted by name; folders have no entries, which runtimes make as they need them.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from bentotool.errors import BuildError, VerificationError
from bentotool.oci.blobs import BlobWriter
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.digest import CHUNK
from bentotool.oci.layout import Layout
from bentotool.oci.tar import BLOCK, TRAILER, TarEntry, tar_header

__all__ = ["GZIP_LAYER", "PLAIN_LAYER", "LayerEntry", "WrittenLayer", "gzip_layer", "write_layer"]

PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"
GZIP_LAYER = f"{PLAIN_LAYER}+gzip"
_GZIP_LEVEL = 6
_WINDOW = 32 << 10
_MOST_THREADS = 8
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""RFC 1952: no name, no time, no system, which zlib's own header would tell."""


@dataclass(frozen=True)
class LayerEntry:
    """One file of a layer.

    Args:
        name: in the image, without the leading slash.
        content: bytes, or the file that has them; nothing where ``link`` is given.
        program: whether it may be executed.
        link: what it is a symbolic link to.
    """

    name: str
    content: bytes | Path = b""
    program: bool = False
    link: str = ""

    @property
    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


@dataclass(frozen=True)
class WrittenLayer:
    """A layer in the store.

    Args:
        diff_id: digest of the archive before compression.
        unpacked: bytes of the archive before compression.
    """

    descriptor: Descriptor
    diff_id: str
    unpacked: int


def write_layer(layout: Layout, entries: Iterable[LayerEntry], *, compress: bool = False) -> WrittenLayer:
    """Write a layer into the store.

    Args:
        compress: with gzip; bytes are then equal only with an equal version of zlib.

    Raises:
        BuildError: two files of one name, a name that no layer may have, or a file that changes while it is read.
        BentotoolError: the disk refuses.
    """
    ordered = sorted(entries, key=lambda entry: entry.name.encode("utf-8", "surrogatepass"))
    _check([entry.name for entry in ordered])
    with layout.writer() as writer, closing(_Gzip(writer) if compress else _Plain(writer)) as output:
        for entry in ordered:
            _write(output, entry)
        output.write(TRAILER)
        output.end()
        digest, size = writer.commit()
    descriptor = Descriptor(GZIP_LAYER if compress else PLAIN_LAYER, digest, size)
    return WrittenLayer(descriptor, output.diff_id, output.unpacked)


def gzip_layer(layout: Layout, layer: Descriptor) -> Descriptor:
    """Compress a layer of the store that is not; its diff ID stays.

    Raises:
        BentotoolError: it is damaged, or the disk refuses.
    """
    with layout.open_layer(layer) as stream, layout.writer() as writer, closing(_Gzip(writer)) as output:
        while data := stream.read(CHUNK):
            output.write(data)
        output.end()
        if output.diff_id != layer.digest:
            raise VerificationError(f"layer {layer.digest} is damaged", hint="see: bentotool store verify")
        digest, size = writer.commit()
    return Descriptor(GZIP_LAYER, digest, size)


def _check(names: list[str]) -> None:
    for index, name in enumerate(names):
        parts = name.split("/")
        odd = not name.isprintable() or any(part in ("", ".", "..") or part.startswith(".wh.") for part in parts)
        if odd or (index and names[index - 1] == name):
            raise BuildError(f"{name[:200]!r} cannot be a file of an image", hint="correct the package that brings it")


class _Plain:
    """Counts and hashes what goes into the blob as it is."""

    def __init__(self, writer: BlobWriter) -> None:
        self._writer, self._hash = writer, hashlib.sha256()
        self.unpacked = 0

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self.unpacked += len(data)
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._writer.write(data)

    def end(self) -> None:
        """Say that nothing follows."""

    def close(self) -> None:
        """Let go of what helps, whether or not the layer was finished."""


class _Gzip(_Plain):
    """The same, with the blob compressed: piece by piece in threads, each with the end of the last one as dictionary.

    Where pieces end depends on their place alone, so any number of threads gives the same bytes.
    """

    def __init__(self, writer: BlobWriter) -> None:
        super().__init__(writer)
        self._crc = 0
        self._piece, self._before = bytearray(), b""
        self._waiting: deque[Future[bytes]] = deque()
        self._threads = min(os.cpu_count() or 1, _MOST_THREADS)
        self._pool = ThreadPoolExecutor(self._threads)
        writer.write(_GZIP_HEADER)

    def _put(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._piece += data
        while len(self._piece) >= CHUNK:
            self._submit(bytes(self._piece[:CHUNK]))
            del self._piece[:CHUNK]

    def _submit(self, piece: bytes, *, last: bool = False) -> None:
        self._waiting.append(self._pool.submit(_deflated, piece, self._before, last))
        self._before = piece[-_WINDOW:]
        while self._waiting and (last or len(self._waiting) > 2 * self._threads):
            self._writer.write(self._waiting.popleft().result())

    def end(self) -> None:
        self._submit(bytes(self._piece), last=True)
        self._writer.write(struct.pack("<II", self._crc, self.unpacked & 0xFFFFFFFF))

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def _deflated(piece: bytes, before: bytes, last: bool) -> bytes:
    deflate = zlib.compressobj(
        _GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, before
    )
    return deflate.compress(piece) + deflate.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)


def _write(output: _Plain, entry: LayerEntry) -> None:
    size = 0 if entry.link else entry.size
    mode = 0o777 if entry.link else 0o755 if entry.program else 0o644
    # most files are small: one write each costs less than three
    piece = tar_header(TarEntry(entry.name, size), mode=mode, link=entry.link)
    left = size
    if isinstance(entry.content, Path):
        with open(os.fspath(entry.content), "rb", buffering=0) as file:  # noqa: PTH123  # thousands: open() is quicker
            while data := file.read(CHUNK):
                piece += data
                left -= len(data)
                output.write(piece)
                piece = b""
    elif not entry.link:
        piece += entry.content
        left -= len(entry.content)
    if left:
        raise BuildError(f"{entry.name} changed while it was read", hint="run the command again")
    output.write(piece + bytes(-size % BLOCK))
