"""Fetching objects in pieces, several at a time, in constant memory.

Every request is for a range and bound to the ETag that was listed (``If-Match``, RFC 9110 §13.1.1): bytes of two
versions of an object never end in one file. Each piece is written where it belongs at once; nothing is put together.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.errors import BentotoolError, RemoteError
from bentotool.oci.blobs import storage_error
from bentotool.oci.digest import CHUNK
from bentotool.oci.retry import RetryPolicy, TransientError
from bentotool_objectstore.address import Address
from bentotool_objectstore.failures import translate
from bentotool_objectstore.journal import Journal, Span, gaps
from bentotool_objectstore.listing import RemoteObject, strong_tag

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["PIECE", "WORKERS", "ObjectChangedError", "Progress", "transfer"]

PIECE = 8 << 20
"""Bytes asked for at a time. What a killed process loses is at most this for each worker."""
WORKERS = 8
_PIECE_TRIES = RetryPolicy(attempts=4, cap=8.0)
_WAIT_S = 2.0
"""For workers to notice that the transfer ends early. One in a stalled read notices later, and then does no more."""


class ObjectChangedError(Exception):
    """An object is not the one that was listed."""


class Progress:
    """Tells ``advance`` of bytes, one call at a time, and none of them twice when a file is begun again."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance, self._lock = advance, threading.Lock()
        self._have = self._shown = 0

    def restart(self) -> None:
        self._have = 0

    def add(self, count: int) -> None:
        with self._lock:
            self._have += count
            if self._have > self._shown:
                self._advance(self._have - self._shown)
                self._shown = self._have


@dataclass(frozen=True)
class _Piece:
    item: RemoteObject
    path: Path
    start: int
    stop: int


class _Transfer:
    def __init__(self, store: ObjectStore, address: Address, journal: Journal, progress: Progress) -> None:
        self.store, self.address, self.journal, self.progress = store, address, journal, progress
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.failure: BaseException | None = None

    def pieces(self, items: Sequence[RemoteObject], folder: Path) -> Iterator[_Piece]:
        """What is missing of each file, in order; makes the files."""
        for item in items:
            path = folder.joinpath(*item.name.split("/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            spans = self.journal.present(item, path)
            self.progress.add(sum(span.length for span in spans))
            for start, stop in gaps(spans, item.size, PIECE):
                yield _Piece(item, path, start, stop)

    def work(self, pieces: Iterator[_Piece]) -> None:
        """One worker: piece after piece, until there are no more or somebody failed."""
        try:
            while not self.stop.is_set():
                with self.lock:
                    piece = next(pieces, None)
                if piece is None:
                    return
                self.fetch(piece)
        except BaseException as error:  # the thread that waits raises it
            if self.failure is None:
                self.failure = error
            self.stop.set()

    def fetch(self, piece: _Piece) -> None:
        at = piece.start

        def rest() -> None:
            nonlocal at
            chunks = self._ask(piece, at)
            crc, start = 0, at
            try:
                with piece.path.open("r+b", buffering=0) as file:
                    file.seek(at)
                    for chunk in chunks:
                        if self.stop.is_set():
                            return
                        _write(file, chunk)
                        crc, at = zlib.crc32(chunk, crc), at + len(chunk)
                        self.progress.add(len(chunk))
                if at < piece.stop:
                    raise TransientError(self._error("ended before its length"))
            except OSError as error:
                raise storage_error(error, piece.path.parent) from error
            finally:
                self.journal.add(piece.item, Span(start, at - start, crc))

        _PIECE_TRIES.run(rest, self.stop)

    def _ask(self, piece: _Piece, start: int) -> Iterator[bytes]:
        """The bytes from ``start`` on; the library's failures as ours."""
        import obstore
        from obstore.exceptions import BaseError, PreconditionError

        item = piece.item
        options: dict[str, Any] = {"range": (start, piece.stop)}
        options |= {"if_match": f'"{item.tag}"'} if item.tag else {"if_unmodified_since": item.modified}
        left = piece.stop - start
        try:
            result = obstore.get(self.store, item.key, options=options)  # type: ignore[arg-type]
            meta = result.meta
            same = strong_tag(meta["e_tag"]) == item.tag if item.tag else _same_time(meta["last_modified"], item)
            if not same or meta["size"] != item.size:  # a server that does not know If-Match
                raise ObjectChangedError
            for chunk in result.stream(min_chunk_size=CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise self._error("is longer than was asked for")
                yield chunk
        except (PreconditionError, FileNotFoundError):
            raise ObjectChangedError from None
        except BaseError as error:
            ours = translate(error, self.address)
            raise (TransientError(ours) if type(ours) is RemoteError else ours) from None

    def _error(self, told: str) -> RemoteError:
        return RemoteError(
            f"what {self.address.place} sent {told}", hint="the same command goes on where this one stopped"
        )


def _same_time(modified: Any, item: RemoteObject) -> bool:
    return int(modified.timestamp()) == int(item.modified.timestamp())  # headers have no fractions of seconds


def _write(file: Any, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def transfer(
    store: ObjectStore, address: Address, items: Sequence[RemoteObject], folder: Path, journal: Path, progress: Progress
) -> None:
    """Bring objects into ``folder``, each under its name, going on with what lies there.

    Names have been checked (:func:`bentotool_objectstore.listing.find`).

    Args:
        journal: the file that says what lies there.

    Raises:
        ObjectChangedError: an object is another now; nothing of it was taken.
        RemoteError: the service refused or broke off; what came is kept.
        BentotoolError: the disk refuses.
    """
    try:
        folder.mkdir(exist_ok=True)
        _remove_others(folder, {folder.joinpath(*item.name.split("/")) for item in items})
        notes = Journal(journal)
    except OSError as error:
        raise storage_error(error, folder) from error
    try:
        _run(_Transfer(store, address, notes, progress), items, folder)
    finally:
        notes.close()
    for item in items:
        _finish(item, folder.joinpath(*item.name.split("/")))


def _run(work: _Transfer, items: Sequence[RemoteObject], folder: Path) -> None:
    pieces = work.pieces(items, folder)
    threads = [threading.Thread(target=work.work, args=(pieces,), daemon=True) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive() and not work.stop.is_set():
                thread.join(0.2)  # in short turns: ctrl-C is not heard while a thread is waited for on Windows
    finally:
        work.stop.set()
        deadline = time.monotonic() + _WAIT_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if isinstance(work.failure, OSError):
        raise storage_error(work.failure, folder) from work.failure
    if work.failure is not None:
        raise work.failure


def _remove_others(folder: Path, wanted: set[Path]) -> None:
    """Drop what an earlier try left of objects that are gone: it could stand in the way of a folder."""
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            if (path := Path(place, name)) not in wanted:
                path.unlink()
        for name in folders:
            with suppress(OSError):  # not empty
                Path(place, name).rmdir()


def _finish(item: RemoteObject, path: Path) -> None:
    size = path.stat().st_size
    if size > item.size:  # of an earlier, longer version
        os.truncate(path, item.size)
    elif size < item.size:
        raise BentotoolError(f"{item.name} has {size} of {item.size} bytes", hint="run the command again")
