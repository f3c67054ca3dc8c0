"""Where things lie on this machine, and the only ways the tool writes a file that must not be half there."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
from pathlib import Path

__all__ = [
    "STORE_ENV",
    "default_store",
    "fsync_directory",
    "make_folder",
    "make_private_directory",
    "remove_folder",
    "seal_folder",
    "write_atomic",
]

STORE_ENV = "BENTOTOOL_STORE"


def default_store() -> Path:
    """The store of this user: ``$BENTOTOOL_STORE``, else ``bentotool/store`` in the platform's user data folder."""
    configured = os.environ.get(STORE_ENV)
    if configured:
        return Path(configured).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "bentotool" / "store"


def make_private_directory(path: Path) -> Path:
    """Create ``path`` and its parents, readable by this user alone where the platform knows modes."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _shared_mode(folder: Path) -> int:
    """The permission bits of a folder that a group shares: it may write there, and set-group-ID is set. Else 0."""
    if sys.platform == "win32":
        return 0
    mode = stat.S_IMODE(folder.stat().st_mode)
    return mode if mode & stat.S_ISGID and mode & stat.S_IWGRP else 0


def make_folder(path: Path, *, private: bool = False) -> Path:
    """Create a folder and its parents; inside one that a group shares, open to that group whatever the umask says.

    Args:
        private: whether only this user may enter it, where no group shares the folder around it.
    """
    if path.is_dir():
        return path
    shared = _shared_mode(make_folder(path.parent))
    if not shared:
        path.mkdir(mode=0o700 if private else 0o777, exist_ok=True)
        return path
    draft = path.with_name(f".{path.name[:64]}.{os.urandom(8).hex()}.tmp")
    draft.mkdir()
    try:
        draft.chmod(shared)
        draft.rename(path)  # so that nobody of the group meets it closed
    except OSError:
        draft.rmdir()
        if not path.is_dir():
            raise
    return path


def seal_folder(path: Path) -> None:
    """Make a folder and those below it read-only, the outermost last; one that is so already is left alone.

    Not where a group shares it, because every member must be able to remove it, and only its owner may open it again.
    Windows has no such folders.
    """
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError):  # another user's, or on a disk that is read-only itself
        if not path.stat().st_mode & 0o222 or _shared_mode(path):
            return
        for folder, _, _ in os.walk(path, topdown=False):
            os.chmod(folder, 0o555 & os.lstat(folder).st_mode)


def remove_folder(path: Path) -> None:
    """Remove a folder and what is in it, read-only or not. What cannot be removed stays, without a word."""
    shutil.rmtree(path, ignore_errors=True)
    if not path.is_dir() or path.is_symlink():
        return
    for folder, _, files in os.walk(path):
        # Windows keeps read-only files, elsewhere read-only folders keep theirs.
        for each in [folder, *(os.path.join(folder, name) for name in files if sys.platform == "win32")]:
            with contextlib.suppress(OSError):
                os.chmod(each, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def fsync_directory(path: Path) -> None:
    """Make a rename inside ``path`` survive a power cut. Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Some network file systems refuse fsync on a directory; the rename itself is still atomic there.
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write a file so that a reader sees the old content or the new, never a part.

    Args:
        path: the final name; its parent is created, see :func:`make_folder`.
        data: the whole content.
        mode: permission bits, on platforms that have them; in a folder that a group shares the umask does not count.
    """
    shared = _shared_mode(make_folder(path.parent))
    temporary = path.parent / f".{path.name}.{os.urandom(8).hex()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if shared:
                os.fchmod(file.fileno(), mode & (0o700 | shared))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_directory(path.parent)
