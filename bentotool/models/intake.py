"""Bringing files into the store in one pass: copied or cloned, and hashed for themselves and for their layer.

What looks like a blob of the store is read before it is written, so that bytes the store has take no room again.

Each layer of the future manifest is one task; up to four run at once. Within a task one thread reads and hashes the
raw bytes while another writes them and hashes the tar layer they will be part of, because hashlib and file
calls release the interpreter lock. Memory does not grow with the files.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import TYPE_CHECKING, BinaryIO, Protocol

from bentotool.errors import BentotoolError, UsageError
from bentotool.models.known import KnownBlobs
from bentotool.models.manifest import ModelFile, check_room, plan_layers
from bentotool.oci.blobs import BlobWriter, DiskFullError, without_room
from bentotool.oci.digest import CHUNK
from bentotool.oci.layers import LayerFile
from bentotool.oci.layout import Layout
from bentotool.oci.renewal import Renewal
from bentotool.oci.tar import BLOCK, TRAILER, tar_header

if TYPE_CHECKING:
    from bentotool.interfaces import SourceFile

__all__ = ["Taken", "take_files"]

_BUFFERS = 3
_GUARDED = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"))
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Taken:
    """Files that are blobs of the store now.

    Attributes:
        layers: digest of each tar layer they make, by the layer's files.
    """

    files: tuple[ModelFile, ...]
    layers: Mapping[tuple[LayerFile, ...], str]


@dataclass(frozen=True)
class _Planned:
    """A file to take in, and the size in bytes it is expected to have."""

    path: str
    size: int
    source: Path


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...
    def copy(self) -> _Hash: ...
    def hexdigest(self) -> str: ...


@dataclass
class _Shared:
    """What the tasks of one import have in common."""

    layout: Layout
    advance: Advance
    link: bool
    owned: bool
    known: KnownBlobs
    stop: Event = field(default_factory=Event)
    lock: Lock = field(default_factory=Lock)
    stored: int = 0

    def __post_init__(self) -> None:
        self.renewal = Renewal(self.layout)

    def progress(self, count: int) -> None:
        if self.stop.is_set():
            raise _StoppedError
        self.renewal.tick()
        with self.lock:
            self.advance(count)

    def found_room(self, count: int) -> None:
        with self.lock:
            self.stored += count


class _StoppedError(Exception):
    """Another file of the same import failed."""


def take_files(
    layout: Layout,
    name: str,
    files: Sequence[SourceFile],
    advance: Advance,
    *,
    link: bool = False,
    owned: bool = False,
    jobs: int | None = None,
) -> Taken:
    """Store files under their digests.

    Args:
        name: the model's, which is part of its layers.
        advance: told the bytes of each piece, never by two threads at once.
        link: whether the store may share the files themselves, which then become read-only.
        owned: the files are scratch of the import's own, on the store's disk, and become the blobs.
        jobs: layers worked on at once; by default as many as there are processors, two to four.

    Raises:
        UsageError: when a file cannot be read, or linked, or there are too many to list.
        DiskFullError: with the number of bytes that found no room.
        BentotoolError: when a file changes meanwhile.
    """
    planned = [_Planned(file.name, _size(file.path), file.path) for file in files]
    check_room(name, planned)
    shared = _Shared(layout, advance, link, owned, KnownBlobs(layout, {file.size for file in planned}))
    bundles = [bundle for _, bundle in plan_layers(planned)]
    bundles.sort(key=lambda bundle: -sum(file.size for file in bundle))
    jobs = jobs or min(4, max(2, os.cpu_count() or 2))
    with ThreadPoolExecutor(jobs, thread_name_prefix="import") as pool:
        tasks = [pool.submit(_take_layer, shared, f"models/{name}", bundle) for bundle in bundles]
        _finish(tasks, shared, sum(file.size for file in planned))
    layers = dict(task.result() for task in tasks)
    prefix = f"models/{name}/"
    by_path = {entry.path.removeprefix(prefix): entry for bundle in layers for entry in bundle}
    taken = (by_path[file.path] for file in planned)
    return Taken(tuple(ModelFile(each.path.removeprefix(prefix), each.size, each.sha256) for each in taken), layers)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _finish(tasks: list[Future[tuple[tuple[LayerFile, ...], str]]], shared: _Shared, total: int) -> None:
    """Wait for all; on a failure stop the others, and report the one that failed by itself."""
    try:
        wait(tasks, return_when=FIRST_EXCEPTION)
    finally:
        if not all(task.done() and not task.cancelled() and task.exception() is None for task in tasks):
            shared.stop.set()
            for task in tasks:
                task.cancel()
            wait(tasks)
    failures = [task.exception() for task in tasks if not task.cancelled()]
    for failure in failures:
        if isinstance(failure, DiskFullError):
            raise without_room(failure, shared.stored, total, "model") from None
    for failure in failures:
        if failure and not isinstance(failure, _StoppedError):
            raise failure


def _take_layer(shared: _Shared, prefix: str, bundle: Sequence[_Planned]) -> tuple[tuple[LayerFile, ...], str]:
    layer: _Hash = hashlib.sha256()
    entries = []
    with ThreadPoolExecutor(1, thread_name_prefix="import-layer") as second:
        buffers = _Buffers(second)
        for file in bundle:
            header = LayerFile(f"{prefix}/{file.path}", file.size, "").entry
            second.submit(layer.update, tar_header(header))
            digest, layer = _take_file(shared, file, layer, buffers)
            shared.renewal.finished(digest)
            second.submit(layer.update, bytes(-file.size % BLOCK))
            entries.append(LayerFile(header.name, file.size, digest))
        second.submit(layer.update, TRAILER).result()
    return tuple(entries), f"sha256:{layer.hexdigest()}"


class _Buffers:
    """A few buffers in turn, each handed out again when the work on its last content is done."""

    def __init__(self, second: ThreadPoolExecutor) -> None:
        self._second = second
        self._free = [memoryview(bytearray(CHUNK)) for _ in range(_BUFFERS)]
        self._busy: list[tuple[memoryview, Future[None]]] = []

    def pieces(self, source: BinaryIO, work: Callable[[memoryview], None]) -> Iterator[memoryview]:
        """Read a file piece by piece; ``work`` runs on each in the second thread, beside the caller's."""
        while True:
            if not self._free:
                self._reclaim()
            buffer = self._free.pop()
            count = source.readinto(buffer)  # type: ignore[attr-defined]
            if not count:
                self._free.append(buffer)
                break
            self._busy.append((buffer, self._second.submit(work, buffer[:count])))
            yield buffer[:count]
        while self._busy:
            self._reclaim()

    def settled(self, copy: Callable[[], _Hash]) -> _Hash:
        """A copy of what the second thread works on, once it has done all that it was given."""
        return self._second.submit(copy).result()

    def _reclaim(self) -> None:
        buffer, task = self._busy.pop(0)
        self._free.append(buffer)
        task.result()


def _take_file(shared: _Shared, file: _Planned, layer: _Hash, buffers: _Buffers) -> tuple[str, _Hash]:
    """Make a file a blob; its digest, and the layer's hash with the file in it."""
    with _opened(file) as source:
        if shared.link or shared.owned:
            _in_place(file, source)
            return _link(shared, file, source, layer, buffers), layer
        if (stored := _stored(shared, file, source, layer, buffers)) is not None:
            return stored
        with shared.layout.writer() as writer:
            _copy(shared, file, source, writer, layer, buffers)
            _in_place(file, source)
            return writer.commit(size=file.size)[0], layer


def _stored(
    shared: _Shared, file: _Planned, source: BinaryIO, layer: _Hash, buffers: _Buffers
) -> tuple[str, _Hash] | None:
    """Find a file among the blobs by reading it; None, with the file at its start, when it must be written."""
    if not shared.known.like(source, file.size):
        return None
    before, raw = os.fstat(source.fileno()), hashlib.sha256()
    layer = buffers.settled(layer.copy)
    _feed(shared, file, source, raw.update, buffers, layer.update)
    _same(file, before, os.fstat(source.fileno()))
    _in_place(file, source)
    digest = f"sha256:{raw.hexdigest()}"
    if shared.layout.renew_sound(digest, file.size):
        shared.found_room(file.size)
        return digest, layer
    shared.progress(-file.size)
    source.seek(0)
    return None


def _opened(file: _Planned) -> BinaryIO:
    """Open a file that was found to be regular; it may be a link or a pipe by now, which is not followed or awaited."""
    try:
        descriptor = os.open(file.source, os.O_RDONLY | _GUARDED)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _changed(file) from None
        raise UsageError(f"{file.source} cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _changed(file)
    return os.fdopen(descriptor, "rb", buffering=0)


def _in_place(file: _Planned, source: BinaryIO) -> None:
    """Refuse a file whose path, or a folder on the way to it, was exchanged for a link to elsewhere."""
    try:
        now = os.lstat(file.source)
    except OSError:
        raise _changed(file) from None
    path = os.fspath(file.source)
    root = path.removesuffix(file.path.replace("/", os.sep))  # unchanged for a link within the model: it was resolved
    real = os.path.join(os.path.realpath(root), "")
    moved = root != path and not os.path.realpath(path).startswith(real)
    # Windows numbers an open file otherwise than a path in some releases of Python.
    if moved or (sys.platform != "win32" and not os.path.samestat(now, os.fstat(source.fileno()))):
        raise _changed(file)


def _copy(
    shared: _Shared, file: _Planned, source: BinaryIO, writer: BlobWriter, layer: _Hash, buffers: _Buffers
) -> None:
    clone = writer.clone(file.source) if file.size else None
    before = os.fstat(source.fileno())
    if clone:  # a later write to the source does not show in it, so the clone is what is hashed
        with clone:
            _feed(shared, file, clone, writer.feed, buffers, layer.update)
    else:

        def write(piece: memoryview) -> None:
            writer.append(piece)
            shared.found_room(len(piece))
            layer.update(piece)

        _feed(shared, file, source, writer.feed, buffers, write)
        _same(file, before, os.fstat(source.fileno()))
    if writer.size != file.size:
        raise _changed(file)


def _feed(
    shared: _Shared,
    file: _Planned,
    source: BinaryIO,
    first: Callable[[memoryview], None],
    buffers: _Buffers,
    second: Callable[[memoryview], None],
) -> None:
    size = 0
    for piece in buffers.pieces(source, second):
        size += len(piece)
        if size > file.size:  # somebody appends as fast as we read
            raise _changed(file)
        first(piece)
        shared.progress(len(piece))


def _same(file: _Planned, before: os.stat_result, after: os.stat_result) -> None:
    if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size) or after.st_size != file.size:
        raise _changed(file)


def _changed(file: _Planned) -> BentotoolError:
    return BentotoolError(f"{file.source} changed while it was imported", hint="import it again when it is at rest")


def _link(shared: _Shared, file: _Planned, source: BinaryIO, layer: _Hash, buffers: _Buffers) -> str:
    """Make the source itself the blob: a second name for the same, now read-only, file."""
    layout = shared.layout
    layout.prepare()
    if os.fstat(source.fileno()).st_dev != layout.blobs.stat().st_dev:
        raise UsageError(f"{file.source} lies on another disk than the store {layout.root}", hint="leave out --link")
    mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
    try:
        file.source.chmod(mode & ~0o222)
    except OSError as error:
        raise UsageError(f"{file.source} cannot be made read-only: {error.strerror}", hint="leave out --link") from None
    before = os.fstat(source.fileno())
    raw = hashlib.sha256()
    _feed(shared, file, source, raw.update, buffers, layer.update)
    _same(file, before, os.fstat(source.fileno()))
    digest = f"sha256:{raw.hexdigest()}"
    if layout.renew_sound(digest, file.size):
        with contextlib.suppress(OSError):  # the store had the bytes already and shares nothing, so the mode goes back
            if not os.path.samestat(before, layout.blob_path(digest).stat()):
                file.source.chmod(mode)
        return digest
    layout.forget_traces(digest)  # of a damaged blob, whose place it takes
    if shared.link:
        layout.linked.record(digest, before, file.source)
    try:
        # What is shared keeps both names; what is ours moves, which every file system can do.
        ours = file.source
        if not shared.owned:
            ours = layout.temporary() / secrets.token_hex(16)
            os.link(file.source, ours)
        os.replace(ours, layout.blob_path(digest))
    except OSError as error:
        layout.forget_traces(digest)
        raise UsageError(f"{file.source} cannot be linked: {error.strerror}", hint="leave out --link") from None
    return digest
