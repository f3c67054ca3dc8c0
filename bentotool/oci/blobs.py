"""Writing blobs and receiving layers: nothing is visible before it is whole and verified."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

from bentotool.errors import BentotoolError, VerificationError
from bentotool.oci.copying import clone_file
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.layers import LayerFile, layer_files
from bentotool.oci.tar import BLOCK, TRAILER, tar_header
from bentotool.paths import fsync_directory

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout

__all__ = ["BlobWriter", "DiskFullError", "LayerSink", "storage_error"]


class DiskFullError(BentotoolError):
    """The disk, or the user's share of it, is full."""

    code = "disk_full"


def storage_error(error: OSError, where: Path) -> BentotoolError:
    """What the user is told when the disk refuses."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return DiskFullError(
            f"no space left on the disk that holds {where}", hint="free some space, or choose another disk with --store"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BentotoolError(
            f"{where} cannot be written: {error.strerror}", hint="choose a folder of yours with --store"
        )
    return BentotoolError(f"{where} cannot be written: {error}")


class BlobWriter:
    """Writes one blob: hash while writing, publish by rename. Without :meth:`commit` nothing remains."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._path = layout.temporary() / secrets.token_hex(16)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._file = os.fdopen(os.open(self._path, flags, 0o600), "wb", buffering=0)
        except OSError as error:
            raise storage_error(error, layout.root) from None
        self._hash = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.unlink()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            BentotoolError: when the disk is full or refuses.
        """
        self.feed(data)
        self.append(data)

    def feed(self, data: bytes | memoryview) -> None:
        """Hash bytes that another thread appends, or that :meth:`clone` brought."""
        self._hash.update(data)
        self.size += len(data)

    def append(self, data: bytes | memoryview) -> None:
        """Append bytes that another thread feeds to the hash.

        Raises:
            BentotoolError: when the disk is full or refuses.
        """
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise storage_error(error, self._layout.root) from None

    def clone(self, source: Path) -> BinaryIO | None:
        """Make the blob share the disk blocks of ``source``, where the file system can.

        Returns:
            the blob's bytes, opened for reading, all of which must then be fed; None when nothing was done.
        """
        if self._file.tell() or not clone_file(source, self._path):
            return None
        self._file.close()
        self._file = self._path.open("r+b", buffering=0)  # on macOS the clone is another file than the empty one
        return self._path.open("rb", buffering=0)

    def seal(self) -> None:
        """Write everything to disk and close the file; only :meth:`commit` may follow.

        Raises:
            BentotoolError: when the disk is full or refuses.
        """
        if self._file.closed:
            return
        try:
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise storage_error(error, self._layout.root) from None

    def commit(self, digest: str | None = None, size: int | None = None) -> tuple[str, int]:
        """Publish the blob under its digest.

        Args:
            digest: the digest it must have, when it is known.
            size: the size in bytes it must have, when it is known.

        Returns:
            its digest and size.

        Raises:
            VerificationError: when the bytes written are not the ones expected; nothing is published.
        """
        actual = f"sha256:{self._hash.hexdigest()}"
        if size is not None and size != self.size:
            raise VerificationError(f"expected {size} bytes for {digest}, got {self.size}")
        if digest is not None and digest != actual:
            raise VerificationError(f"expected {digest}, got {actual}")
        if not (self._has_whole(actual) and self._layout.renew(actual)):
            self._publish(self._layout.blob_path(actual))
        return actual, self.size

    def _has_whole(self, digest: str) -> bool:
        try:
            return self._layout.blob_path(digest).stat().st_size == self.size
        except OSError:
            return False

    def _publish(self, target: Path) -> None:
        self.seal()
        try:
            self._path.chmod(0o444)
            os.utime(self._path)  # it may have waited long for the rest of its layer, or carry its source's time
            os.replace(self._path, target)
        except OSError as error:
            # Windows refuses to replace a file that another process has open: same content, already there.
            if not target.exists():
                raise storage_error(error, self._layout.root) from None
        fsync_directory(target.parent)


class LayerSink:
    """Receives a layer in pieces of any length, verifies it, and publishes it whole.

    An ordinary layer becomes one blob. A virtual layer is taken apart on the way: headers and padding must equal, byte
    for byte, those that would be generated, each file must have its recorded digest, and all of it the layer's digest.
    """

    def __init__(self, layout: Layout, descriptor: Descriptor) -> None:
        self._layout = layout
        self._descriptor = descriptor
        self._files = layer_files(descriptor)
        self._hash = hashlib.sha256()
        self._received = 0
        self._segments = list(self._plan(self._files)) if self._files is not None else []
        self._within = 0
        self._writers: list[tuple[BlobWriter, str, int]] = []
        self._blob = layout.writer() if self._files is None else None

    @staticmethod
    def _plan(files: Sequence[LayerFile]) -> list[bytes | LayerFile]:
        segments: list[bytes | LayerFile] = []
        for file in files:
            segments += [tar_header(file.entry), file, bytes(-file.size % BLOCK)]
        return [*segments, TRAILER]

    def __enter__(self) -> LayerSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for writer, _, _ in self._writers:
            writer.__exit__(kind, error, trace)
        if self._blob:
            self._blob.__exit__(kind, error, trace)

    @property
    def received(self) -> int:
        """Bytes written so far."""
        return self._received

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes of the layer.

        Raises:
            VerificationError: as soon as the bytes cannot be those of the layer.
        """
        self._received += len(data)
        if self._received > self._descriptor.size:
            raise VerificationError(f"layer {self._descriptor.digest} is longer than its {self._descriptor.size} bytes")
        if self._blob:
            self._blob.write(data)
            return
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._consume(view) :]

    def _consume(self, view: memoryview) -> int:
        segment = self._segments[0]
        length = segment.size if isinstance(segment, LayerFile) else len(segment)
        count = min(len(view), length - self._within)
        if isinstance(segment, LayerFile):
            if self._within == 0:
                self._writers.append((self._layout.writer(), segment.sha256, segment.size))
            self._writers[-1][0].write(view[:count])
        elif segment[self._within : self._within + count] != view[:count]:
            raise VerificationError(f"layer {self._descriptor.digest} is not the canonical form of the files it lists")
        self._within += count
        if self._within == length:
            if isinstance(segment, LayerFile):
                # A layer may bundle thousands of files, more than a process may have open.
                self._writers[-1][0].seal()
            self._segments.pop(0)
            self._within = 0
            while self._segments and not self._length(self._segments[0]):
                self._skip_empty(self._segments.pop(0))
        return count

    @staticmethod
    def _length(segment: bytes | LayerFile) -> int:
        return segment.size if isinstance(segment, LayerFile) else len(segment)

    def _skip_empty(self, segment: bytes | LayerFile) -> None:
        if isinstance(segment, LayerFile):
            writer = self._layout.writer()
            self._writers.append((writer, segment.sha256, 0))
            writer.seal()

    def commit(self) -> None:
        """Publish the layer.

        Raises:
            VerificationError: when bytes are missing or a digest differs; nothing is published.
        """
        expected = self._descriptor
        if self._blob:
            self._blob.commit(expected.digest, expected.size)
            return
        if self._received != expected.size:
            raise VerificationError(f"expected {expected.size} bytes for {expected.digest}, got {self._received}")
        if f"sha256:{self._hash.hexdigest()}" != expected.digest:
            raise VerificationError(f"expected {expected.digest}, got sha256:{self._hash.hexdigest()}")
        for writer, digest, size in self._writers:
            writer.commit(digest, size)
