"""Layers of an image that are made here: tar archives whose bytes depend on their content alone.

Unlike a layer of a model or a Bento, one of an image has programs and symbolic links. Owner and time are 0, modes 0644
and 0755, entries sorted by name; folders have no entries, which runtimes make as they need them.
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bentotool.errors import BuildError
from bentotool.oci.blobs import BlobWriter
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.digest import CHUNK
from bentotool.oci.layout import Layout
from bentotool.oci.tar import BLOCK, TRAILER, TarEntry, tar_header

__all__ = ["GZIP_LAYER", "PLAIN_LAYER", "LayerEntry", "WrittenLayer", "write_layer"]

PLAIN_LAYER = "application/vnd.oci.image.layer.v1.tar"
GZIP_LAYER = f"{PLAIN_LAYER}+gzip"
_GZIP_LEVEL = 6
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
    with layout.writer() as writer:
        output = _Gzip(writer) if compress else _Plain(writer)
        for entry in ordered:
            _write(output, entry)
        output.write(TRAILER)
        output.end()
        digest, size = writer.commit()
    descriptor = Descriptor(GZIP_LAYER if compress else PLAIN_LAYER, digest, size)
    return WrittenLayer(descriptor, output.diff_id, output.unpacked)


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


class _Gzip(_Plain):
    """The same, with the blob compressed."""

    def __init__(self, writer: BlobWriter) -> None:
        super().__init__(writer)
        self._deflate = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._crc = 0
        writer.write(_GZIP_HEADER)

    def _put(self, data: bytes) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._writer.write(self._deflate.compress(data))

    def end(self) -> None:
        tail = struct.pack("<II", self._crc, self.unpacked & 0xFFFFFFFF)
        self._writer.write(self._deflate.flush() + tail)


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
