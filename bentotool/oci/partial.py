"""Going on with what an earlier process left unfinished.

An unfinished file or folder lies in the layout's temporary folder as ``<key>-<random>``. Whoever goes on with it first
renames it to a random part of its own: the rename is what decides between two that want it. A lock, which the system
gives up when its process ends however that happens, tells what somebody still works on. Where locks do nothing (some
network file systems), whoever takes a file works on a copy of it, so that no two ever write one file, and a worker
whose file was taken away finds out before it publishes it; a folder is taken when nothing in it changed for a while.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from bentotool.paths import fsync_directory

__all__ = ["claim_file", "claim_folder", "draft_of", "still_ours"]

_LOCK = ".lock"
_PIECE = 1 << 20  # bytes
_ABANDONED = 600.0  # seconds without a change
_BINARY = getattr(os, "O_BINARY", 0)


def _locked(descriptor: int) -> bool:
    """Take a lock that lasts until the file is closed; False when another process has it."""
    if sys.platform == "win32":  # an open file cannot be renamed there, which says the same
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system: whoever renames first has it
        return True
    return True


def _keeps_out(path: Path) -> bool:
    """Whether a lock that we have on a file is one: a second one beside it is refused."""
    with path.open("rb") as second:
        return not _locked(second.fileno())


def _left(folder: Path, key: str) -> Iterator[tuple[Path, Path]]:
    """What was left under ``key``, and a name to take it to."""
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.startswith(f"{key}-"))
    for name in names:
        yield folder / name, _fresh(folder, key)


def _fresh(folder: Path, key: str) -> Path:
    return folder / f"{key}-{secrets.token_hex(8)}"


def claim_file(folder: Path, key: str) -> tuple[Path, BinaryIO]:
    """A file that no other process writes: one left under ``key``, or a new one.

    Returns:
        its path, and the file open for reading and writing at its start; closing it gives up the claim.

    Raises:
        OSError: when the disk refuses.
    """
    for left, mine in _left(folder, key):
        with contextlib.suppress(OSError):  # somebody else's, or gone
            if sys.platform == "win32":
                left.rename(mine)
                return mine, mine.open("r+b", buffering=0)
            file = left.open("r+b", buffering=0)
            if _locked(file.fileno()) and still_ours(left, file):
                left.rename(mine)
                if _keeps_out(mine):
                    return mine, file
                with file:  # perhaps somebody still writes to it
                    return _copied(mine, file, _fresh(folder, key))
            file.close()
    while True:  # until nobody takes it between its making and its lock
        mine = _fresh(folder, key)
        file = _created(mine)
        if _locked(file.fileno()) and still_ours(mine, file):
            return mine, file
        file.close()


def _created(path: Path) -> FileIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o600), "r+b", buffering=0)


def _copied(left: Path, source: BinaryIO, mine: Path) -> tuple[Path, BinaryIO]:
    """A copy of what was left, in its place."""
    file = _created(mine)
    try:
        shutil.copyfileobj(source, file, _PIECE)
        file.seek(0)
    except BaseException:
        file.close()
        mine.unlink(missing_ok=True)
        raise
    left.unlink(missing_ok=True)
    return mine, file


@contextlib.contextmanager
def draft_of(target: Path, *, buffering: int = 0) -> Iterator[BinaryIO]:
    """A file, open for writing, that takes the place of ``target`` when the block ends well; else it is removed.

    What a writer that was killed left of an earlier one is removed as well.

    Raises:
        OSError: when the disk refuses.
    """
    _remove_left(target)
    path, file = _new_draft(target, buffering)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if sys.platform == "win32":  # which renames no open file; elsewhere the lock lasts until it has its name
                file.close()
            os.replace(path, target)
        fsync_directory(target.absolute().parent)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def _new_draft(target: Path, buffering: int) -> tuple[Path, BinaryIO]:
    while True:  # until nobody removes it between its making and its lock
        path = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.tmp")
        file = path.open("xb", buffering=buffering)
        if _locked(file.fileno()) and still_ours(path, file):
            return path, file
        file.close()


def _remove_left(target: Path) -> None:
    """Remove drafts of ``target`` that nobody writes to."""
    ours = re.compile(rf"\.{re.escape(target.name[:100])}\.[0-9a-f]{{12}}\.tmp")
    names: list[str] = []
    with contextlib.suppress(OSError):  # a folder that may be written to and not be listed
        names = [name for name in os.listdir(target.parent) if ours.fullmatch(name)]
    for path in map(target.with_name, names):
        with contextlib.suppress(OSError):  # somebody else's, or gone
            _remove_abandoned(path)


def _remove_abandoned(path: Path) -> None:
    if sys.platform == "win32":  # which refuses where it is open
        path.unlink()
        return
    quiet = time.time() - path.lstat().st_mtime
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        if _locked(file.fileno()) and (quiet > _ABANDONED or _keeps_out(path)):
            path.unlink()


def still_ours(path: Path, file: BinaryIO) -> bool:
    """Whether ``path`` is the open file: nobody took it away."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except OSError:
        return False


@contextlib.contextmanager
def claim_folder(folder: Path, key: str) -> Iterator[Path]:
    """A folder that no other process uses for the length of a block: one left under ``key``, or a new one.

    It is not removed. Its file ``.lock`` is the claim.

    Raises:
        OSError: when the disk refuses.
    """
    for left, mine in _left(folder, key):
        with contextlib.suppress(OSError):
            lock = _claim_left(left, mine)
            if lock is not None:
                break
    else:
        mine, lock = _new_folder(folder, key)
    try:
        yield mine
    finally:
        os.close(lock)


def _new_folder(folder: Path, key: str) -> tuple[Path, int]:
    while True:  # until nobody takes it between its making and its lock
        mine = _fresh(folder, key)
        mine.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            lock = _open_lock(mine)
            if _locked(lock) and mine.is_dir():
                return mine, lock
            os.close(lock)


def _claim_left(left: Path, mine: Path) -> int | None:
    if sys.platform == "win32":
        left.rename(mine)
        return _open_lock(mine)
    quiet = _quiet_for(left)  # before we touch it
    lock = _open_lock(left)
    if _locked(lock) and (quiet > _ABANDONED or _keeps_out(left / _LOCK)):
        left.rename(mine)
        return lock
    os.close(lock)
    return None


def _quiet_for(folder: Path) -> float:
    """Seconds since anything in a folder was changed."""
    with os.scandir(folder) as entries:
        times = [entry.stat(follow_symlinks=False).st_mtime for entry in entries]
    return time.time() - max([folder.stat().st_mtime, *times])


def _open_lock(folder: Path) -> int:
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | _BINARY, 0o600)
