"""Where the manifests and blobs of a model are read from: a registry, a folder in image layout, an archive of one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, BinaryIO, Protocol

from bentotool.errors import NotFoundError, UsageError, VerificationError
from bentotool.oci.blobs import DiskFullError, without_room
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor
from bentotool.oci.digest import CHUNK
from bentotool.oci.layout import Layout
from bentotool.oci.unpack import TarSink, Unpacker

if TYPE_CHECKING:
    from bentotool.oci.gzip import Gunzipped
    from bentotool.oci.registry import Registry
    from bentotool.oci.zstd import Decompressed

__all__ = ["BlobSink", "CheckedSink", "Content", "LayoutContent", "RegistryContent", "open_layout", "split_layout"]

_SLACK = 1 << 20  # bytes of headers and padding around the files of a tar
Advance = Callable[[int], None]


class BlobSink(Protocol):
    """Takes the bytes of a blob in order."""

    def write(self, data: bytes, /) -> object: ...


class CheckedSink:
    """Passes bytes on while hashing them; :meth:`check` compares."""

    def __init__(self, sink: BlobSink) -> None:
        self._sink = sink
        self._hash = hashlib.sha256()

    def resume(self) -> int:
        """No bytes of an earlier process are gone on from."""
        return 0

    def write(self, data: bytes) -> None:
        self._hash.update(data)
        self._sink.write(data)

    def check(self, descriptor: Descriptor) -> None:
        """Compare all bytes written with a digest.

        Raises:
            VerificationError: when they differ.
        """
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != descriptor.digest:
            raise VerificationError(f"layer {descriptor.digest} has other bytes: {actual}")


class Content(Protocol):
    """Where manifests and blobs are read from; ``stop`` ends what is under way."""

    stop: Event

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]: ...

    def read(self, descriptor: Descriptor) -> bytes: ...

    def receive(self, descriptor: Descriptor, sink: CheckedSink, advance: Advance) -> None: ...


class RegistryContent:
    """A repository of a registry."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry, self._repository = registry, repository
        self.stop = registry.stop

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        fetched = self._registry.get_manifest(self._repository, reference)
        return fetched.descriptor, fetched.data

    def read(self, descriptor: Descriptor) -> bytes:
        return self._registry.read_blob(self._repository, descriptor)

    def receive(self, descriptor: Descriptor, sink: CheckedSink, advance: Advance) -> None:
        self._registry.download_blob(self._repository, descriptor, sink, advance=advance)


class LayoutContent:
    """A folder in image layout, of any tool; layers of our own stores may be virtual."""

    def __init__(self, folder: Path, called: Path | None = None) -> None:
        self._layout, self._called = Layout(folder), called or folder
        self.stop = Event()
        if not (folder / "oci-layout").is_file():
            raise UsageError(f"{self._called} is not an OCI image layout", hint="give one that holds oci-layout")

    def names(self) -> Iterator[tuple[str, Descriptor]]:
        try:
            with (self._layout.root / "index.json").open("rb") as file:
                document = json.loads(file.read(64 << 20))
            entries = [Descriptor.from_dict(each) for each in document["manifests"]]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise VerificationError(f"index.json of {self._called} cannot be read") from None
        for entry in entries:
            yield entry.annotations.get("org.opencontainers.image.ref.name", ""), entry

    def manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        if not reference.startswith("sha256:"):
            listed = [(name, each) for name, each in self.names() if not reference or name == reference]
            digests = {each.digest for _, each in listed}
            if len(digests) != 1:
                names = ", ".join(sorted({name for name, _ in self.names() if name})[:10])
                what = f"{reference or 'no name given, and'} {len(digests)} manifests fit in {self._called}"
                raise NotFoundError(what, hint=f"say which, as oci:PATH:NAME; it has {names or 'no names'}")
            reference = digests.pop()
        data = self._layout.read(reference)
        media_type = INDEX if b'"manifests"' in data and b'"layers"' not in data else MANIFEST
        return Descriptor(media_type, reference, len(data)), data

    def read(self, descriptor: Descriptor) -> bytes:
        return self._layout.read(descriptor.digest)

    def receive(self, descriptor: Descriptor, sink: CheckedSink, advance: Advance) -> None:
        left = descriptor.size
        try:
            with self._layout.open_layer(descriptor) as stream:
                while data := stream.read(min(CHUNK, left + 1)):
                    left -= len(data)
                    if left < 0:
                        break
                    sink.write(data)
                    advance(len(data))
        except OSError as error:
            raise UsageError(f"{self._called} cannot be read: {error.strerror}") from None
        if left:
            raise VerificationError(f"blob {descriptor.digest} does not have its {descriptor.size} bytes")


@contextlib.contextmanager
def open_layout(path: Path, folder: Path, max_bytes: int) -> Iterator[LayoutContent]:
    """A folder in image layout, or a tar file of one, such as skopeo calls ``oci-archive``.

    Args:
        folder: where an archive is unpacked for the length of the block.
        max_bytes: most bytes it may unpack to.

    Raises:
        UsageError: when it is neither.
        UnsafeError, VerificationError: when the archive is not sound.
    """
    if path.is_dir():
        yield LayoutContent(path)
        return
    unpacked = folder / f"layout-{secrets.token_hex(8)}"
    try:
        _unpack_layout(path, unpacked, max_bytes + _SLACK)
        yield LayoutContent(unpacked, path)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def _unpack_layout(archive: Path, folder: Path, limit: int) -> None:
    from bentotool.oci.gzip import Gunzipped
    from bentotool.oci.zstd import MAGIC, Decompressed

    try:
        with archive.open("rb") as file:
            first = file.read(len(MAGIC))
            file.seek(0)
            stream: BinaryIO | Gunzipped | Decompressed = file
            if first == MAGIC or first[:2] == b"\x1f\x8b":
                stream = (Decompressed if first == MAGIC else Gunzipped)(file, archive.name, limit)
            with contextlib.closing(TarSink(Unpacker(folder, max_bytes=limit))) as sink:
                done = 0
                try:
                    while data := stream.read(CHUNK):
                        sink.write(data)
                        done += len(data)
                    sink.finish()
                except DiskFullError as error:
                    total = archive.stat().st_size if stream is file else 0
                    raise without_room(error, done, total, "archive") from None
    except OSError as error:
        raise UsageError(f"{archive} cannot be read: {error.strerror}") from None


def split_layout(text: str) -> tuple[Path, str]:
    """Read ``PATH[:NAME][@DIGEST]`` of a folder or archive; a name may have colons, and so may a path.

    Raises:
        NotFoundError: when no part of it is a path of this disk.
    """
    path, at, digest = text.rpartition("@sha256:")
    if at and Path(path).exists():
        return Path(path), f"sha256:{digest}"
    if Path(text).exists():
        return Path(text), ""
    for position in (index for index, char in enumerate(text) if char == ":"):
        if position and Path(text[:position]).exists():
            return Path(text[:position]), text[position + 1 :]
    raise NotFoundError(
        f"oci:{text} names no folder or archive of this disk", hint="write oci:PATH:NAME or oci://HOST/REPOSITORY"
    )
