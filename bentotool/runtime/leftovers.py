"""Private folders that live as long as their server, and sweeping up those of servers that were killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
import time
from pathlib import Path

__all__ = ["PrivateFolder", "make_metrics_folder", "make_work_folder", "sweep"]

_METRICS, _WORK = "bentotool-metrics-", "bentotool-serving-"
_NAME = re.compile(rf"(?:{re.escape(_METRICS)}|{re.escape(_WORK)})\d+-\w+", re.ASCII)
_HELD = "supervisor.lock"
_STILLBORN_S = 86400.0
"""A work folder that is empty for so long was made for a server that never came."""


def _lock(path: Path, flags: int) -> int | None:
    """Open and lock a file without waiting; None where somebody else holds it, or where there are no such locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


class PrivateFolder:
    """A folder of this user alone that holds a lock while the process lives.

    The lock says more than the pid in its name does: a pid may be reused, or belong to another container that shares
    the folder of temporary files.

    Args:
        path: made by :func:`tempfile.mkdtemp`, so that nobody else has ever put anything there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locks = [_lock(path / _HELD, os.O_RDWR | os.O_CREAT)]
        if sys.platform != "win32":
            with contextlib.suppress(OSError):  # what cleans up after a week (tmpfiles.d) passes over a locked folder
                self._locks.append(_lock(path, os.O_RDONLY))

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        for lock in self._locks:
            if lock is not None:
                os.close(lock)
        self._locks = []


def make_metrics_folder() -> PrivateFolder:
    """The folder of the workers' metric files. Raises: OSError: no folder for temporary files can be written."""
    return PrivateFolder(_make(_METRICS))


def make_work_folder() -> Path:
    """An empty folder for a server that serves no files, yet to be locked by that one: it imports from where it is.

    Raises:
        OSError: no folder for temporary files can be written.
    """
    return _make(_WORK)


def _make(prefix: str) -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))


def sweep() -> None:
    """Remove this user's folders whose supervisor is dead. Links are never followed. Does nothing on Windows."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError), os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_if_dead(Path(entry.path))


def _remove_if_dead(folder: Path) -> None:
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or (sys.platform != "win32" and found.st_uid != os.getuid()):
        return
    if folder.name.startswith(_WORK) and time.time() - found.st_mtime > _STILLBORN_S:
        with contextlib.suppress(OSError):  # there is something in it: its server came
            folder.rmdir()
    descriptor = _lock(folder / _HELD, os.O_RDWR)  # one that has no such file yet is just being made
    if descriptor is not None:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
