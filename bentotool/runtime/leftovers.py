"""The folder of the workers' metric files, and sweeping up those of servers that were killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
import sys
import tempfile
from pathlib import Path

__all__ = ["MetricsFolder", "sweep"]

_PREFIX = "bentotool-metrics-"
_NAME = re.compile(re.escape(_PREFIX) + r"\d+-\w+", re.ASCII)
_HELD = "supervisor.lock"


def _lock(path: Path, flags: int) -> int | None:
    """Open and lock a file without waiting; None where somebody else holds it, or where there are no such locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    descriptor = os.open(path, flags | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


class MetricsFolder:
    """A private folder, named after this process, that holds a lock while the process lives.

    The lock says more than the pid does: a pid may be reused, or belong to another container that shares the folder of
    temporary files.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._lock = _lock(self.path / _HELD, os.O_CREAT)

    def remove(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


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
    descriptor = _lock(folder / _HELD, 0)  # one that has no such file yet is just being made
    if descriptor is not None:
        try:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
