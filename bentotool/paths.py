"""Where things lie on this machine, and the only ways the tool writes a file that must not be half there."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

__all__ = ["STORE_ENV", "default_store", "fsync_directory", "make_private_directory", "write_atomic"]

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
        path: the final name; its parent is created.
        data: the whole content.
        mode: permission bits, on platforms that have them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.urandom(8).hex()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    fsync_directory(path.parent)
