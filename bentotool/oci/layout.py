"""One OCI image layout on disk (image-spec 1.1, image-layout.md), in which large tar layers need not be stored.

``blobs/sha256/`` holds manifests, configs and small layers under their digests, and the *raw bytes of model files*
under theirs. A layer with the annotation ``io.bentotool.files`` is virtual: its bytes are made while they
are read, and taken apart, header by header, while they are received. Weights thus lie on disk once and as themselves.

Every blob is written under a temporary name, synced, made read-only and renamed. Nothing here depends on a lock.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from bentotool.errors import BentotoolError, NotFoundError, VerificationError
from bentotool.oci.descriptor import MANIFEST_LIMIT, Descriptor, canonical_json
from bentotool.oci.digest import check_digest, hash_file, sha256_bytes
from bentotool.oci.tar import BLOCK, TRAILER, TarEntry, VirtualTar, check_entry_names, tar_header, tar_size
from bentotool.paths import fsync_directory, write_atomic

__all__ = ["FILES_ANNOTATION", "BlobWriter", "LayerFile", "LayerSink", "Layout", "layer_files"]

FILES_ANNOTATION = "io.bentotool.files"


@dataclass(frozen=True)
class LayerFile:
    """One file inside a virtual layer: its name in the archive, its size in bytes, the digest of its raw bytes."""

    path: str
    size: int
    sha256: str

    @property
    def entry(self) -> TarEntry:
        return TarEntry(self.path, self.size)


def _layer_file(item: object) -> LayerFile:
    if not isinstance(item, dict):
        raise VerificationError(f"annotation {FILES_ANNOTATION} must list objects")
    path, size = item.get("path"), item.get("size")
    if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise VerificationError(f"annotation {FILES_ANNOTATION} has a damaged entry")
    return LayerFile(path, size, check_digest(f"sha256:{item.get('sha256')}"))


def layer_files(descriptor: Descriptor) -> tuple[LayerFile, ...] | None:
    """The files of a virtual layer in archive order, or None for an ordinary blob.

    Raises:
        VerificationError: when the annotation is damaged or contradicts the descriptor's size.
        UnsafeError: when a file name could not be written safely on every platform.
    """
    text = descriptor.annotations.get(FILES_ANNOTATION)
    if text is None:
        return None
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise VerificationError(f"annotation {FILES_ANNOTATION} of {descriptor.digest} is not JSON") from None
    if not isinstance(items, list) or not items:
        raise VerificationError(f"annotation {FILES_ANNOTATION} of {descriptor.digest} is not a list of files")
    files = tuple(_layer_file(item) for item in items)
    check_entry_names(file.path for file in files)
    if tar_size(file.entry for file in files) != descriptor.size:
        raise VerificationError(f"the files of layer {descriptor.digest} do not add up to its size")
    return files


class Layout:
    """An OCI image layout at ``root``; created on the first write."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @property
    def blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    def temporary(self) -> Path:
        """A folder on the same file system as the blobs, so that a rename from it is atomic."""
        folder = self.root / "tmp"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def prepare(self) -> None:
        """Create the layout's folders and its marker file when they are absent."""
        marker = self.root / "oci-layout"
        if marker.exists():
            return
        try:
            self.blobs.mkdir(parents=True, exist_ok=True)
            write_atomic(marker, canonical_json({"imageLayoutVersion": "1.0.0"}))
        except OSError as error:
            raise storage_error(error, self.root) from None

    def blob_path(self, digest: str) -> Path:
        return self.blobs / check_digest(digest)[7:]

    def has(self, digest: str) -> bool:
        """Whether the blob itself is stored."""
        return self.blob_path(digest).is_file()

    def read(self, digest: str, limit: int = MANIFEST_LIMIT) -> bytes:
        """A small blob, verified.

        Raises:
            NotFoundError: when it is not stored.
            VerificationError: when it is larger than ``limit`` bytes or its bytes do not match the digest.
        """
        try:
            with self.blob_path(digest).open("rb") as file:
                data = file.read(limit + 1)
        except FileNotFoundError:
            raise NotFoundError(f"blob {digest} is not in the store {self.root}") from None
        if len(data) > limit:
            raise VerificationError(f"blob {digest} has more than {limit} bytes")
        if sha256_bytes(data) != digest:
            raise VerificationError(f"blob {digest} in the store is damaged", hint="import or pull it again")
        return data

    def put(
        self,
        data: bytes,
        media_type: str,
        *,
        annotations: dict[str, str] | None = None,
        artifact_type: str | None = None,
    ) -> Descriptor:
        """Store bytes from memory and describe them."""
        digest = sha256_bytes(data)
        if not self.has(digest):
            with self.writer() as writer:
                writer.write(data)
                writer.commit(digest, len(data))
        return Descriptor(media_type, digest, len(data), annotations or {}, artifact_type)

    def writer(self) -> BlobWriter:
        """A new blob that appears only when it is committed."""
        self.prepare()
        return BlobWriter(self)

    def verify_blob(self, digest: str) -> bool:
        """Read a stored blob whole and compare it with its digest."""
        return self.has(digest) and hash_file(self.blob_path(digest))[0] == digest

    def has_layer(self, descriptor: Descriptor) -> bool:
        """Whether the layer can be read: stored as it is, or virtual with all its files stored."""
        files = layer_files(descriptor)
        if files is None:
            return self._has_sized(descriptor.digest, descriptor.size)
        return all(self._has_sized(file.sha256, file.size) for file in files) or self.has(descriptor.digest)

    def _has_sized(self, digest: str, size: int) -> bool:
        try:
            return self.blob_path(digest).stat().st_size == size
        except OSError:
            return False

    def open_layer(self, descriptor: Descriptor) -> BinaryIO:
        """The layer's bytes as a raw, seekable stream of exactly ``descriptor.size`` bytes.

        Raises:
            NotFoundError: when the layer, or a file of a virtual one, is not stored.
        """
        files = layer_files(descriptor)
        if files is None or self.has(descriptor.digest):
            return self._open(descriptor.digest)
        by_name = {file.path: file for file in files}
        return VirtualTar(  # type: ignore[return-value]
            [file.entry for file in files], lambda entry: self._open(by_name[entry.name].sha256)
        )

    def _open(self, digest: str) -> BinaryIO:
        try:
            return self.blob_path(digest).open("rb", buffering=0)
        except FileNotFoundError:
            raise NotFoundError(f"blob {digest} is not in the store {self.root}") from None

    def layer_sink(self, descriptor: Descriptor) -> LayerSink:
        """Receives the bytes of a layer; see :class:`LayerSink`."""
        self.prepare()
        return LayerSink(self, descriptor)


def storage_error(error: OSError, where: Path) -> BentotoolError:
    """What the user is told when the disk refuses."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return BentotoolError(
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
        self._hash.update(data)
        self.size += len(data)
        try:
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise storage_error(error, self._layout.root) from None

    def seal(self) -> None:
        """Write everything to disk and close the file; only :meth:`commit` may follow.

        Raises:
            BentotoolError: when the disk is full or refuses.
        """
        if self._file.closed:
            return
        try:
            self._file.flush()
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
        target = self._layout.blob_path(actual)
        if not target.exists():
            self.seal()
            try:
                self._path.chmod(0o444)
                os.replace(self._path, target)
            except OSError as error:
                # Windows refuses to replace a file that another process has open: same content, already there.
                if not target.exists():
                    raise storage_error(error, self._layout.root) from None
            fsync_directory(target.parent)
        return actual, self.size


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
