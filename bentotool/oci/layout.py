"""One OCI image layout on disk (image-spec 1.1, image-layout.md), in which large tar layers need not be stored.

``blobs/sha256/`` holds manifests, configs and small layers under their digests, and the *raw bytes of model files*
under theirs. A layer with the annotation ``io.bentotool.files`` is virtual: its bytes are made while they
are read, and taken apart, header by header, while they are received. Weights thus lie on disk once and as themselves.

Every blob is written under a temporary name, synced, made read-only and renamed. Nothing here depends on a lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bentotool.errors import NotFoundError, VerificationError
from bentotool.oci.blobs import BlobWriter, DiskFullError, storage_error
from bentotool.oci.descriptor import MANIFEST_LIMIT, Descriptor, canonical_json
from bentotool.oci.digest import check_digest, hash_file, is_regular, open_regular, sha256_bytes
from bentotool.oci.layers import FILES_ANNOTATION, LayerFile, layer_files
from bentotool.oci.linked import LinkedFiles
from bentotool.oci.renewal import Renewal
from bentotool.oci.sink import LayerSink
from bentotool.oci.tar import VirtualTar
from bentotool.paths import make_folder, write_atomic

__all__ = [
    "FILES_ANNOTATION",
    "BlobWriter",
    "DiskFullError",
    "LayerFile",
    "LayerSink",
    "Layout",
    "layer_files",
    "storage_error",
]

_MAX_REMARK = 200  # bytes


class Layout:
    """An OCI image layout at ``root``; created on the first write."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self.linked = LinkedFiles(self.root / "linked")

    @property
    def blobs(self) -> Path:
        return self.root / "blobs" / "sha256"

    def temporary(self) -> Path:
        """A folder on the same file system as the blobs, so that a rename from it is atomic."""
        make_folder(self.root, private=True)
        return make_folder(self.root / "tmp")

    def prepare(self) -> None:
        """Create the layout's folders and its marker file when they are absent."""
        marker = self.root / "oci-layout"
        if marker.exists():
            return
        try:
            make_folder(self.root, private=True)
            make_folder(self.blobs)
            write_atomic(marker, canonical_json({"imageLayoutVersion": "1.0.0"}))
        except OSError as error:
            raise storage_error(error, self.root) from None

    def blob_path(self, digest: str) -> Path:
        return self.blobs / check_digest(digest)[7:]

    def has(self, digest: str) -> bool:
        """Whether the blob itself is stored; what is a link or a pipe under its name is not it."""
        return is_regular(self.blob_path(digest))

    def read(self, digest: str, limit: int = MANIFEST_LIMIT) -> bytes:
        """A small blob, verified.

        Raises:
            NotFoundError: when it is not stored.
            VerificationError: when it is larger than ``limit`` bytes or its bytes do not match the digest, or when it
                is no file.
        """
        with self._opened(digest) as file:
            data = file.read(limit + 1)
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
        if not self.renew(digest):
            with self.writer() as writer:
                writer.write(data)
                writer.commit(digest, len(data))
        return Descriptor(media_type, digest, len(data), annotations or {}, artifact_type)

    def writer(self, resume: str | None = None) -> BlobWriter:
        """A new blob that appears only when it is committed.

        Args:
            resume: the digest it will have, so that what is written can be taken up by another process.
        """
        self.prepare()
        return BlobWriter(self, resume)

    def has_part(self, digest: str) -> bool:
        """Whether a writer left the beginning of a blob, or is at it."""
        prefix = f"part-{check_digest(digest)[7:]}-"
        with os.scandir(self.temporary()) as entries:
            return any(entry.name.startswith(prefix) for entry in entries)

    def renew(self, digest: str) -> bool:
        """Say that a blob is about to be used, so that a collection that runs beside us leaves it alone.

        Returns:
            whether it is stored.
        """
        path = self.blob_path(digest)
        if not self.has(digest):
            return False
        try:
            # A linked file's time belongs to its owner, and says whether the file was changed.
            if self.linked.knows(digest):
                raise PermissionError
            os.utime(path)
        except FileNotFoundError:
            return False
        except OSError:  # another user's blob in a shared store: only the owner may set its time
            with contextlib.suppress(OSError):
                write_atomic(self._used(digest), b"")
        return self.has(digest)

    def renew_sound(self, digest: str, size: int) -> bool:
        """As :meth:`renew`, for a blob of ``size`` bytes whose every byte is read and found right."""
        try:
            return self.has_sized(digest, size) and self.verify_blob(digest) and self.renew(digest)
        except OSError:
            return False

    def _used(self, digest: str) -> Path:
        return self.root / "used" / check_digest(digest)[7:]

    def last_used(self, digest: str, path: Path | None = None) -> float:
        """When a blob was written or last renewed, in seconds since the epoch.

        Args:
            path: where it lies now, when it is not at its place.

        Raises:
            FileNotFoundError: when it is not stored.
        """
        times = [(path or self.blob_path(digest)).stat().st_mtime]
        for trace in (self._used(digest), self.linked.path(digest)):
            with contextlib.suppress(FileNotFoundError):
                times.append(trace.stat().st_mtime)
        return max(times)

    def forget_traces(self, digest: str) -> None:
        """Remove what is noted about a blob that is gone."""
        for trace in (self._used(digest), self.linked.path(digest), self._remark(digest)):
            with contextlib.suppress(OSError):
                trace.unlink()

    def remark(self, digest: str, text: str) -> None:
        """Keep a word about a blob, in this store alone, for as long as the blob is here."""
        write_atomic(self._remark(digest), text.encode())

    def remarked(self, digest: str) -> str:
        """What was kept with :meth:`remark`; empty where nothing was."""
        try:
            with self._remark(digest).open("rb") as file:
                return file.read(_MAX_REMARK).decode("utf-8", "replace")
        except OSError:
            return ""

    def _remark(self, digest: str) -> Path:
        return self.root / "remarks" / check_digest(digest)[7:]

    def verify_blob(self, digest: str, advance: Callable[[int], None] = lambda amount: None) -> bool:
        """Read a stored blob whole and compare it with its digest."""
        return self.has(digest) and hash_file(self.blob_path(digest), advance)[0] == digest

    def has_layer(self, descriptor: Descriptor) -> bool:
        """Whether the layer can be read: stored as it is, or virtual with all its files stored."""
        files = layer_files(descriptor)
        if files is None:
            return self.has_sized(descriptor.digest, descriptor.size)
        return all(self.has_sized(file.sha256, file.size) for file in files) or self.has(descriptor.digest)

    def has_sized(self, digest: str, size: int) -> bool:
        """Whether the blob itself is stored with this many bytes."""
        try:
            return self.has(digest) and self.blob_path(digest).lstat().st_size == size
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
        self.linked.check(digest, self.blob_path(digest))
        return self._opened(digest, 0)

    def _opened(self, digest: str, buffering: int = -1) -> BinaryIO:
        path = self.blob_path(digest)
        try:
            return open_regular(path, buffering=buffering)
        except FileNotFoundError:
            raise NotFoundError(f"blob {digest} is not in the store {self.root}") from None
        except OSError:
            if is_regular(path) or not os.path.lexists(path):
                raise
            hint = "run: bentotool store verify --repair, then import or pull it again"
            raise VerificationError(f"blob {digest} in the store is not a file", hint=hint) from None

    def layer_sink(self, descriptor: Descriptor, renewal: Renewal | None = None) -> LayerSink:
        """Receives the bytes of a layer; see :class:`LayerSink`."""
        self.prepare()
        return LayerSink(self, descriptor, renewal)
