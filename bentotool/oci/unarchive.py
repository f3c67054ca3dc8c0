"""Reading an archive that :mod:`bentotool.oci.archive` wrote, with suspicion.

It is read by comparison: a header must be, byte for byte, the one that would be written for its name and size, so
nothing but such files can be in it. A first pass looks at every header and manifest before anything is stored; a second
one stores the content, and every blob is verified before it becomes visible. Memory does not grow with the archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bentotool.errors import BentotoolError, NotFoundError, UsageError, VerificationError
from bentotool.oci import zstd
from bentotool.oci.archive import LAYOUT_FILE, Advance
from bentotool.oci.blobs import DiskFullError, without_room
from bentotool.oci.descriptor import INDEX, MANIFEST, MANIFEST_LIMIT, Descriptor, Index, Manifest
from bentotool.oci.digest import CHUNK, sha256_bytes
from bentotool.oci.layout import FILES_ANNOTATION, Layout, layer_files, storage_error
from bentotool.oci.tar import BLOCK, TarEntry, tar_header

__all__ = ["MAX_UNPACKED", "Archive", "is_archive", "open_archive", "read_archive"]

MAX_UNPACKED = 200 << 30
"""Most bytes that a compressed archive may unpack to, unless the user says otherwise."""
_NAME = re.compile(r"oci-layout|index\.json|blobs/sha256/[0-9a-f]{64}", re.ASCII)
_PAX_SIZE = re.compile(rb"[0-9]{1,2} size=([0-9]{1,16})\n")
_MAX_ENTRIES = 100_000
_FIRST = ("oci-layout", "index.json")


@dataclass
class _Content:
    """What is left to read of the entry that a stream stands in."""

    stream: BinaryIO
    left: int
    name: str

    def pieces(self) -> Iterator[bytes]:
        while self.left:
            yield self._some()

    def whole(self, entry: str) -> bytes:
        if self.left > MANIFEST_LIMIT:
            raise VerificationError(f"{entry} of {self.name} has {self.left} bytes, more than {MANIFEST_LIMIT}")
        return b"".join(self.pieces())

    def skip(self) -> None:
        if self.stream.seekable():
            self.stream.seek(self.left, os.SEEK_CUR)
            self.left = 0
        while self.left:
            self._some()

    def _some(self) -> bytes:
        try:
            data = self.stream.read(min(self.left, CHUNK))
        except OSError as error:
            raise BentotoolError(f"{self.name} cannot be read: {error.strerror}") from None
        if not data:
            raise VerificationError(f"{self.name} ends in the middle of a file")
        self.left -= len(data)
        return data


def _entries(stream: BinaryIO, name: str) -> Iterator[tuple[TarEntry, _Content]]:
    """Each entry of an archive, with its content, which is skipped when it was not read.

    Raises:
        VerificationError: for anything that this module would not have written.
    """
    seen: set[str] = set()
    while (entry := _header(stream, name, first=not seen)) is not None:
        if entry.name in seen:
            raise VerificationError(f"{name} has two entries {entry.name}")
        if len(seen) >= _MAX_ENTRIES:
            raise VerificationError(f"{name} has more than {_MAX_ENTRIES} entries")
        seen.add(entry.name)
        content = _Content(stream, entry.size, name)
        yield entry, content
        content.skip()
        padding = -entry.size % BLOCK
        if stream.read(padding) != bytes(padding):
            raise VerificationError(f"{name} ends in {entry.name}, or is not in canonical form after it")
    if stream.read(BLOCK + 1) != bytes(BLOCK):
        raise VerificationError(f"{name} does not end as it should")


def _header(file: BinaryIO, name: str, first: bool = False) -> TarEntry | None:
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
        if first:
            raise VerificationError(
                f"{name} is not an archive that bentotool export wrote",
                hint="a model file or folder, or another tool's archive: bentotool model import",
            )
        raise VerificationError(
            f"{name} has an entry {text[:100]!r} that is not a plain file of an OCI archive",
            hint="only archives written by bentotool export are accepted",
        )
    return TarEntry(text, size)


class Archive:
    """An archive that was read through once, so that what it holds is known.

    Attributes:
        roots: what its ``index.json`` lists, in that order, with annotations.
        manifests: the manifest or index of each.
        size: bytes that :meth:`take` brings into a layout.
    """

    def __init__(self, file: BinaryIO, name: str, limit: int, scanned: Advance) -> None:
        self._file, self.name, self._limit = file, name, limit
        self.compressed = self._start() == zstd.MAGIC
        self._manifests: dict[str, bytes] = {}
        self.roots, sizes = self._scan(scanned)
        if not self.roots:
            raise VerificationError(f"{name} lists no manifest")
        self.manifests = tuple(self._manifest(root) for root in self.roots)
        self._parts: dict[str, dict[bool, Descriptor]] = {}
        for manifest in self.manifests:
            # What an index lists need not be here; what somebody wants of it is a root of its own.
            for part in (manifest.config, *manifest.layers) if isinstance(manifest, Manifest) else ():
                entry = _entry_name(part)
                if sizes.get(entry) != part.size:
                    raise VerificationError(f"{name} lacks {part.digest} of {part.size} bytes")
                # one digest may be listed twice, as the tar of a model's files and as an ordinary blob
                self._parts.setdefault(entry, {})[FILES_ANNOTATION in part.annotations] = part
        if extra := sorted(sizes.keys() - self._parts.keys() - self._manifests.keys() - {*_FIRST}):
            raise VerificationError(f"{name} has {extra[0]}, which nothing in it names")
        self.size = sum(sizes[entry] for entry in self._parts)

    def _start(self) -> bytes:
        self._file.seek(0)
        magic = self._file.read(len(zstd.MAGIC))
        self._file.seek(0)
        return magic

    def _read(self, advance: Advance = lambda amount: None) -> Iterator[tuple[TarEntry, _Content]]:
        self._start()
        if not self.compressed:
            return _entries(self._file, self.name)
        unpacked = zstd.Decompressed(self._file, self.name, self._limit, advance)
        return _entries(io.BufferedReader(unpacked, CHUNK), self.name)

    def _scan(self, advance: Advance) -> tuple[tuple[Descriptor, ...], dict[str, int]]:
        """Read all headers and manifests, and skip the rest."""
        roots: tuple[Descriptor, ...] = ()
        sizes: dict[str, int] = {}
        wanted: set[str] = set()
        for entry, content in self._read(advance):
            if len(sizes) < len(_FIRST):
                if entry.name != _FIRST[len(sizes)]:
                    raise VerificationError(f"{self.name} has {entry.name} before its oci-layout and index.json")
                data = content.whole(entry.name)
                if not sizes and data != LAYOUT_FILE:
                    raise VerificationError(f"{self.name} is not an OCI archive of version 1.0.0")
                if sizes:
                    roots = Index.from_bytes(data).manifests
                    wanted = {_entry_name(root) for root in roots}
            elif entry.name in wanted:
                self._manifests[entry.name] = content.whole(entry.name)
            sizes[entry.name] = entry.size
        if len(sizes) < len(_FIRST):
            raise VerificationError(f"{self.name} has no oci-layout and index.json")
        return roots, sizes

    def _manifest(self, root: Descriptor) -> Manifest | Index:
        if root.media_type not in (MANIFEST, INDEX):
            raise VerificationError(
                f"{self.name} lists a {root.media_type[:80]} where only image manifests are supported"
            )
        data = self._manifests.get(_entry_name(root))
        if data is None or len(data) != root.size:
            raise VerificationError(f"{self.name} lacks {root.digest} of {root.size} bytes")
        if sha256_bytes(data) != root.digest:
            raise VerificationError(f"manifest {root.digest} of {self.name} is damaged")
        return Index.from_bytes(data) if root.media_type == INDEX else Manifest.from_bytes(data)

    def take(self, layout: Layout, advance: Advance = lambda amount: None) -> None:
        """Bring the content into a layout: blobs first, then manifests. Naming it is left to the caller.

        Raises:
            VerificationError: when a blob is damaged; whole blobs that came before it stay, nameless.
            DiskFullError: with the number of bytes that found no room.
            BentotoolError: when the disk refuses.
        """
        waiting = dict(self._parts)
        done = 0

        def moved(count: int) -> None:
            nonlocal done
            done += count
            advance(count)

        try:
            for entry, content in self._read():
                parts = waiting.pop(entry.name, {}).values()
                if not all(_stored(layout, part, moved) for part in parts):
                    self._take(layout, entry, parts, content, moved)
        except DiskFullError as error:
            raise without_room(error, done, self.size, "archive") from None
        if waiting:
            raise VerificationError(f"{self.name} changed while it was read")
        for data in self._manifests.values():
            layout.put(data, MANIFEST)

    def _take(
        self, layout: Layout, entry: TarEntry, parts: Iterable[Descriptor], content: _Content, advance: Advance
    ) -> None:
        """Write one entry, and read all of it before any sink finds out that it is damaged."""
        with contextlib.ExitStack() as stack:
            sinks = [stack.enter_context(layout.layer_sink(part)) for part in parts]
            try:
                for piece in content.pieces():
                    for sink in sinks:
                        sink.write(piece)
                    advance(len(piece))
                for sink in sinks:
                    sink.commit()
            except VerificationError as error:
                if self.name in error.message:
                    raise
                said = f"{entry.name} of {self.name} is damaged: {error.message}"
                raise VerificationError(said, hint=error.hint or "export or copy it again") from None

    def document(self, root: Descriptor) -> bytes:
        """The bytes of one of :attr:`roots`."""
        return self._manifests[_entry_name(root)]


def _entry_name(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{descriptor.digest[7:]}"


def _stored(layout: Layout, part: Descriptor, advance: Advance) -> bool:
    """Whether a layer or config is in the layout and sound, so that it need not be written again."""
    files = layer_files(part)
    pieces = [(part.digest, part.size)] if files is None else [(file.sha256, file.size) for file in files]
    if not all(layout.has_sized(digest, size) and layout.renew(digest) for digest, size in pieces):
        return False
    seen, found = 0, hashlib.sha256()
    try:
        with layout.open_layer(part) as stream:
            while data := stream.read(CHUNK):
                found.update(data)
                seen += len(data)
                advance(len(data))
    except (OSError, BentotoolError):  # damaged, or collected meanwhile
        found.update(b"\0")
    if f"sha256:{found.hexdigest()}" == part.digest:
        return True
    advance(-seen)
    return False


@contextlib.contextmanager
def open_archive(
    source: Path | BinaryIO, layout: Layout, *, limit: int = MAX_UNPACKED, scanned: Advance = lambda amount: None
) -> Iterator[Archive]:
    """Read an archive through once, plain or compressed with zstd, and hold it open to be taken in.

    Args:
        source: a file, or a stream; what cannot be read twice is copied to the layout's temporary folder first.
        layout: where it shall go.
        limit: most bytes that a compressed archive may unpack to.
        scanned: told the bytes of the file as they are read; a plain file is jumped through, and tells nothing.

    Raises:
        NotFoundError: when there is no such file.
        VerificationError: when it is not an archive of ours, or not whole.
        UnsafeError: when it is compressed and a bomb, or unpacks to more than ``limit``.
        MissingDependencyError: when it is compressed and zstd is not installed.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(source, Path):
            file, name = stack.enter_context(_opened(source)), source.name
        else:
            file, name = source, "the standard input"
        if not file.seekable():
            file = stack.enter_context(_spooled(file, layout))
        yield Archive(file, name, limit, scanned)


def is_archive(path: Path) -> bool:
    """Whether a file starts as an archive of ours does; compressed, also by the suffix ``.tar.zst``."""
    start = tar_header(TarEntry(_FIRST[0], len(LAYOUT_FILE)))
    try:
        with path.open("rb") as file:
            head = file.read(len(start))
    except OSError:
        return False
    return head == start or (head.startswith(zstd.MAGIC) and path.name.endswith((".tar.zst", ".tzst")))


def _opened(source: Path) -> BinaryIO:
    try:
        return source.open("rb")
    except FileNotFoundError:
        raise NotFoundError(f"{source} does not exist", hint="give the path of an archive") from None
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror}") from None


@contextlib.contextmanager
def _spooled(stream: BinaryIO, layout: Layout) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile(dir=layout.temporary()) as file:
        try:
            shutil.copyfileobj(stream, file, CHUNK)
        except OSError as error:
            raise storage_error(error, layout.root) from None
        yield file


def read_archive(
    layout: Layout, source: Path | BinaryIO, advance: Advance = lambda amount: None
) -> tuple[Descriptor, ...]:
    """Take the content of an archive into a layout; see :func:`open_archive` and :meth:`Archive.take`.

    Returns:
        what its ``index.json`` lists, in that order, with annotations.
    """
    with open_archive(source, layout) as archive:
        archive.take(layout, advance)
        return archive.roots
