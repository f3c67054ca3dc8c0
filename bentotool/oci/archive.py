"""An image layout in one tar file: what ``skopeo`` calls ``oci-archive``, byte-reproducible.

Entries, in this order: ``oci-layout``, ``index.json``, ``blobs/sha256/<hex>`` by name. Regular files only, with
mode 0644, owner 0 and time 0, in the form of :mod:`bentotool.oci.tar`. Virtual layers are written out.
It may be compressed with zstd as a whole. Reading one is the work of :mod:`bentotool.oci.unarchive`.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from bentotool.errors import BentotoolError, NotFoundError, UsageError, VerificationError
from bentotool.oci import zstd
from bentotool.oci.attached import indexes, referrers_below
from bentotool.oci.blobs import DiskFullError, storage_error, without_room
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest, canonical_json
from bentotool.oci.digest import CHUNK
from bentotool.oci.layout import Layout
from bentotool.oci.partial import draft_of
from bentotool.oci.tar import TarEntry, VirtualTar

__all__ = [
    "KIND_NAME",
    "LAYOUT_FILE",
    "REF_NAME",
    "Advance",
    "archive_root",
    "archive_size",
    "check_target",
    "with_attached",
    "write_archive",
]

REF_NAME = "org.opencontainers.image.ref.name"
KIND_NAME = "io.bentotool.kind"
Advance = Callable[[int], None]
LAYOUT_FILE = canonical_json({"imageLayoutVersion": "1.0.0"})


def archive_root(descriptor: Descriptor, kind: str, name: str) -> Descriptor:
    """A manifest as ``index.json`` of an archive lists it.

    Args:
        kind: ``"model"`` or ``"bento"``.
        name: ``name:version``.
    """
    # No artifactType: older readers of archives refuse a descriptor that has one.
    return Descriptor(MANIFEST, descriptor.digest, descriptor.size, {REF_NAME: name, KIND_NAME: kind})


def with_attached(layout: Layout, roots: Sequence[Descriptor]) -> list[Descriptor]:
    """Roots, and after them what is attached to them in the store: signatures, SBOMs and the like.

    An index of a Bento comes along when something is attached to it and all that it lists is among ``roots``; one that
    lists images is left out, as they are.
    """
    listed = {root.digest for root in roots}
    lists = [index for root in roots for index in indexes(layout, root.digest)]
    lists = [
        each for each in lists if {m.digest for m in Index.from_bytes(layout.read(each.digest)).manifests} <= listed
    ]
    attached = referrers_below(layout, [*listed, *(index.digest for index in lists)])
    subjects = {each.subject for each in attached}
    more = [
        Descriptor(INDEX, each.digest, each.size, {KIND_NAME: "index"}) for each in lists if each.digest in subjects
    ]
    more += [Descriptor(MANIFEST, each.digest, each.descriptor.size, {KIND_NAME: "referrer"}) for each in attached]
    return [*roots, *sorted(more, key=lambda each: (each.media_type, each.digest))]


def _contents(layout: Layout, roots: Iterable[Descriptor]) -> dict[str, Descriptor]:
    parts: dict[str, Descriptor] = {}
    for root in roots:
        data = layout.read(root.digest)
        parts[root.digest] = Descriptor(root.media_type, root.digest, len(data))
        if root.media_type == INDEX:
            continue
        manifest = Manifest.from_bytes(data)
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
    small = {"oci-layout": LAYOUT_FILE, "index.json": index}
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


def check_target(target: Path) -> None:
    """Refuse to put an archive in the place of what is no file: a device, a pipe, a folder.

    Raises:
        UsageError: when something of the kind is there.
    """
    if target.exists() and not target.is_file():
        raise UsageError(f"{target} is not a regular file", hint="name a file; - stands for the standard output")


class _Output:
    """Where an archive goes: written whole, counted and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.size = 0

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"

    def write(self, data: bytes | memoryview) -> int:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        self._hash.update(data)
        self.size += len(data)
        return len(data)


def _pour(source: VirtualTar, file: BinaryIO, advance: Advance, compress: bool) -> tuple[str, int]:
    output = _Output(file)
    target: Any = zstd.compressing(output, source.size) if compress else output
    buffer = memoryview(bytearray(CHUNK))
    while count := source.readinto(buffer):
        target.write(buffer[:count])
        advance(count)
    if compress:
        target.close()
        if zstd.is_bomb(output.size, source.size):
            raise BentotoolError(
                f"the archive would be compressed more than {zstd.MAX_RATIO} times, which no import accepts",
                hint="leave the compression out: FILE.tar, and no --zstd",
            )
    return output.digest, output.size


def write_archive(
    layout: Layout,
    roots: Sequence[Descriptor],
    target: Path | BinaryIO,
    advance: Advance = lambda amount: None,
    *,
    compress: bool = False,
) -> tuple[str, int]:
    """Write manifests and all that they list to a file; equal content gives equal bytes.

    Args:
        roots: descriptors of the manifests, as they shall stand in ``index.json``; the first is the main one.
        target: a file that appears, or is replaced, when the archive is whole; or a stream that is written to at once.
        advance: told the bytes of the archive, before compression.
        compress: with zstd; bytes are then equal only with an equal version of its library.

    Returns:
        digest and size in bytes of the archive.

    Raises:
        NotFoundError: when part of the content is not stored.
        VerificationError: when part of it is damaged.
        MissingDependencyError: when zstd is asked for and not installed.
        UsageError: when the target is there and no regular file.
        DiskFullError: with the number of bytes that found no room, where that is known.
        BentotoolError: when the disk refuses.
    """
    with _virtual(layout, roots) as source:
        if not isinstance(target, Path):
            return _pour(source, target, advance, compress)
        check_target(target)
        written = None
        try:
            with draft_of(target) as file:
                try:
                    return _pour(source, file, advance, compress)
                finally:
                    written = file.tell()
        except OSError as error:
            raise _refused(error, target, written, None if compress else source.size) from None


def _refused(error: OSError, target: Path, written: int | None, total: int | None) -> BentotoolError:
    failure = storage_error(error, target)
    failure.hint = "free some space, or choose another disk for the archive"
    if not isinstance(failure, DiskFullError):
        failure.hint = "choose a folder of yours"
        return failure
    if total is None or written is None:  # compressed, or not even its name found room
        return failure
    return without_room(failure, written, total, "archive")
