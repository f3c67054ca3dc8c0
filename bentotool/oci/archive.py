"""An image layout in one tar file: what ``skopeo`` calls ``oci-archive``, byte-reproducible.

Entries, in this order: ``oci-layout``, ``index.json``, ``blobs/sha256/<hex>`` by name. Regular files only, with
mode 0644, owner 0 and time 0, in the form of :mod:`bentotool.oci.tar`. Virtual layers are written out.
An archive is read back by comparison: a header must be, byte for byte, the one that would be written for its name and
size, so nothing but such files can be in it, and every blob is verified before it becomes visible.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bentotool.errors import BentotoolError, NotFoundError, UsageError, VerificationError
from bentotool.oci.descriptor import MANIFEST, MANIFEST_LIMIT, Descriptor, Index, Manifest, canonical_json
from bentotool.oci.digest import CHUNK, sha256_bytes
from bentotool.oci.layout import FILES_ANNOTATION, Layout, storage_error
from bentotool.oci.tar import BLOCK, TRAILER, TarEntry, VirtualTar, tar_header
from bentotool.paths import fsync_directory

__all__ = ["KIND_NAME", "REF_NAME", "Advance", "archive_root", "archive_size", "read_archive", "write_archive"]

REF_NAME = "org.opencontainers.image.ref.name"
KIND_NAME = "io.bentotool.kind"
Advance = Callable[[int], None]
_LAYOUT = canonical_json({"imageLayoutVersion": "1.0.0"})
_NAME = re.compile(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}", re.ASCII)
_PAX_SIZE = re.compile(rb"[0-9]{1,2} size=([0-9]{1,16})\n")
_MAX_ENTRIES = 100_000


@dataclass(frozen=True)
class _Place:
    """Where the content of an entry lies in the archive, in bytes."""

    offset: int
    size: int


def archive_root(descriptor: Descriptor, kind: str, name: str) -> Descriptor:
    """A manifest as ``index.json`` of an archive lists it.

    Args:
        kind: ``"model"`` or ``"bento"``.
        name: ``name:version``.
    """
    # No artifactType: older readers of archives refuse a descriptor that has one.
    return Descriptor(MANIFEST, descriptor.digest, descriptor.size, {REF_NAME: name, KIND_NAME: kind})


def _contents(layout: Layout, roots: Iterable[Descriptor]) -> dict[str, Descriptor]:
    parts: dict[str, Descriptor] = {}
    for root in roots:
        data = layout.read(root.digest)
        manifest = Manifest.from_bytes(data)
        parts[root.digest] = Descriptor(MANIFEST, root.digest, len(data))
        for part in (manifest.config, *manifest.layers):
            if not layout.has_layer(part):
                raise NotFoundError(
                    f"blob {part.digest} is not in the store {layout.root}", hint="import or pull it again"
                )
            parts[part.digest] = part
    return parts


def _virtual(layout: Layout, roots: Sequence[Descriptor]) -> VirtualTar:
    parts = _contents(layout, roots)
    index = Index(tuple(roots)).to_bytes()
    small = {"oci-layout": _LAYOUT, "index.json": index}
    blobs = {f"blobs/sha256/{digest[7:]}": parts[digest] for digest in sorted(parts)}
    entries = [TarEntry(name, len(data)) for name, data in small.items()]
    entries += [TarEntry(name, part.size) for name, part in blobs.items()]

    def open_entry(entry: TarEntry) -> BinaryIO:
        data = small.get(entry.name)
        if data is not None:
            return io.BytesIO(data)
        return _Verified(layout.open_layer(blobs[entry.name]), blobs[entry.name])  # type: ignore[return-value]

    return VirtualTar(entries, open_entry)


class _Verified(io.RawIOBase):
    """A blob read once from start to end, whose last piece is only given when all of it has the right digest."""

    def __init__(self, stream: BinaryIO, part: Descriptor) -> None:
        super().__init__()
        self._stream, self._part = stream, part
        self._hash = hashlib.sha256()
        self._read = 0

    def tell(self) -> int:
        return self._read

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = int(self._stream.readinto(target) or 0)  # type: ignore[attr-defined]
        self._hash.update(target[:count])
        self._read += count
        if self._read == self._part.size and f"sha256:{self._hash.hexdigest()}" != self._part.digest:
            raise VerificationError(
                f"blob {self._part.digest} in the store is damaged", hint="see: bentotool store verify"
            )
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()


def archive_size(layout: Layout, roots: Sequence[Descriptor]) -> int:
    """Size in bytes of the archive of ``roots``."""
    return _virtual(layout, roots).size


def write_archive(
    layout: Layout, roots: Sequence[Descriptor], target: Path, advance: Advance = lambda amount: None
) -> tuple[str, int]:
    """Write manifests and all that they list to a file; equal content gives equal bytes.

    Args:
        roots: descriptors of the manifests, as they shall stand in ``index.json``; the first is the main one.
        target: a file that appears, or is replaced, when the archive is whole.

    Returns:
        digest and size in bytes of the archive.

    Raises:
        NotFoundError: when part of the content is not stored.
        VerificationError: when part of it is damaged.
        BentotoolError: when the disk is full or refuses.
    """
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK))
    try:
        with _virtual(layout, roots) as stream, draft.open("xb", buffering=0) as file:
            while count := stream.readinto(buffer):
                digest.update(buffer[:count])
                piece = buffer[:count]
                while piece:
                    piece = piece[file.write(piece) :]
                size += count
                advance(count)
            os.fsync(file.fileno())
        os.replace(draft, target)
        fsync_directory(target.parent)
    except OSError as error:
        raise storage_error(error, target) from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
    return f"sha256:{digest.hexdigest()}", size


def _scan(file: BinaryIO, length: int, name: str) -> dict[str, _Place]:
    """Find the entries of an archive without reading their content.

    Raises:
        VerificationError: for anything that this module would not have written.
    """
    places: dict[str, _Place] = {}
    while (header := _header(file, name)) is not None:
        entry, offset = header, file.tell()
        if entry.name in places:
            raise VerificationError(f"{name} has two entries {entry.name}")
        if offset + entry.size + len(TRAILER) > length or len(places) >= _MAX_ENTRIES:
            raise VerificationError(f"{name} ends in the middle of {entry.name}, or has too many entries")
        places[entry.name] = _Place(offset, entry.size)
        file.seek(entry.size, os.SEEK_CUR)
        padding = -entry.size % BLOCK
        if file.read(padding) != bytes(padding):
            raise VerificationError(f"{name} is not in canonical form after {entry.name}")
    if file.tell() != length - BLOCK or file.read(BLOCK) != bytes(BLOCK):
        raise VerificationError(f"{name} does not end as it should")
    return places


def _header(file: BinaryIO, name: str) -> TarEntry | None:
    block = file.read(BLOCK)
    if block == bytes(BLOCK):
        return None
    whole, size = block, None
    if block[156:157] == b"x":  # the only extended header that a name of ours can need states a size of 8 GiB or more
        whole += file.read(2 * BLOCK)
        found = _PAX_SIZE.match(whole, BLOCK)
        size = int(found[1]) if found else None
        block = whole[2 * BLOCK :]
    text = block[:100].rstrip(b"\0").decode("ascii", "replace")
    digits = block[124:135]
    if size is None and digits.isdigit() and not set(digits) & set(b"89"):
        size = int(digits, 8)
    if not _NAME.fullmatch(text) or size is None or tar_header(TarEntry(text, size)) != whole:
        raise VerificationError(
            f"{name} has an entry {text[:100]!r} that is not a plain file of an OCI archive",
            hint="only archives written by bentotool export are accepted",
        )
    return TarEntry(text, size)


class _Archive:
    """An archive whose entries are known. Its file is open."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self.name = file, name
        length = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._places = _scan(file, length, name)
        self.used = {"oci-layout", "index.json"}
        if self._small("oci-layout") != _LAYOUT:
            raise VerificationError(f"{name} is not an OCI archive of version 1.0.0")

    def _small(self, entry: str) -> bytes:
        place = self._places.get(entry)
        if place is None:
            raise VerificationError(f"{self.name} has no {entry}")
        if place.size > MANIFEST_LIMIT:
            raise VerificationError(f"{entry} of {self.name} has {place.size} bytes, more than {MANIFEST_LIMIT}")
        self._file.seek(place.offset)
        return self._file.read(place.size)

    def index(self) -> Index:
        return Index.from_bytes(self._small("index.json"))

    def manifest(self, descriptor: Descriptor) -> tuple[bytes, Manifest]:
        data = self._small(self._entry(descriptor))
        if sha256_bytes(data) != descriptor.digest:
            raise VerificationError(f"manifest {descriptor.digest} of {self.name} is damaged")
        return data, Manifest.from_bytes(data)

    def _entry(self, descriptor: Descriptor) -> str:
        entry = f"blobs/sha256/{descriptor.digest[7:]}"
        place = self._places.get(entry)
        if place is None or place.size != descriptor.size:
            raise VerificationError(f"{self.name} lacks {descriptor.digest} of {descriptor.size} bytes")
        self.used.add(entry)
        return entry

    def pieces(self, descriptor: Descriptor) -> Iterator[bytes]:
        place = self._places[self._entry(descriptor)]
        self._file.seek(place.offset)
        left = place.size
        while left:
            data = self._file.read(min(left, CHUNK))
            if not data:
                raise VerificationError(f"{self.name} became shorter while it was read")
            left -= len(data)
            yield data

    def check_all_used(self) -> None:
        if extra := sorted(self._places.keys() - self.used):
            raise VerificationError(f"{self.name} has {extra[0]}, which nothing in it names")


def read_archive(layout: Layout, source: Path, advance: Advance = lambda amount: None) -> tuple[Descriptor, ...]:
    """Take the content of an archive into a layout. Naming it is left to the caller.

    Returns:
        what its ``index.json`` lists, in that order, with annotations.

    Raises:
        NotFoundError: when there is no such file.
        VerificationError: when the archive is not one of ours, incomplete, or damaged; whole blobs that came before the
            damage stay, nameless.
    """
    try:
        file = source.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"{source} does not exist", hint="give the path of an archive") from None
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from None
    with file:
        archive = _Archive(file, source.name)
        roots = archive.index().manifests
        if not roots:
            raise VerificationError(f"{source.name} lists no manifest")
        manifests = [_checked(archive, root) for root in roots]
        parts: Mapping[tuple[str, bool], Descriptor] = {
            (part.digest, FILES_ANNOTATION in part.annotations): part
            for _, manifest in manifests
            for part in (manifest.config, *manifest.layers)
        }
        for part in parts.values():
            _take(layout, archive, part, advance)
        for data, _ in manifests:
            advance(len(data))
            layout.put(data, MANIFEST)
        archive.check_all_used()
    return roots


def _checked(archive: _Archive, root: Descriptor) -> tuple[bytes, Manifest]:
    if root.media_type != MANIFEST:
        raise VerificationError(
            f"{archive.name} lists a {root.media_type[:80]} where only image manifests are supported"
        )
    return archive.manifest(root)


def _take(layout: Layout, archive: _Archive, part: Descriptor, advance: Advance) -> None:
    try:
        with layout.layer_sink(part) as sink:
            for piece in archive.pieces(part):
                sink.write(piece)
                advance(len(piece))
            sink.commit()
    except OSError as error:
        raise BentotoolError(f"{archive.name} cannot be read: {error.strerror}") from None
