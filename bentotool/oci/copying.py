"""Copies that cost no disk space, on file systems that have them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

__all__ = ["clone_file"]

_FICLONE = 0x40049409
"""``ioctl_ficlone(2)`` on every Linux architecture but Alpha, MIPS, PowerPC and SPARC, where the call just fails."""


def clone_file(source: Path, target: Path) -> bool:
    """Let ``target``, an empty file, share the blocks of ``source``: btrfs, XFS, bcachefs, APFS.

    Later writes to either file do not show in the other.

    Returns:
        False when the file system, or the platform, cannot; ``target`` is then empty as before.
    """
    clone = {"linux": _clone_linux, "darwin": _clone_darwin}.get(sys.platform)
    return clone(source, target) if clone else False


def _clone_linux(source: Path, target: Path) -> bool:
    import fcntl  # chosen by sys.platform above

    try:
        with source.open("rb", buffering=0) as origin, target.open("r+b", buffering=0) as copy:
            fcntl.ioctl(copy.fileno(), _FICLONE, origin.fileno())
    except OSError:
        return False
    return True


def _clone_darwin(source: Path, target: Path) -> bool:
    # clonefile(2) makes the file itself, so the clone takes the place of the empty one.
    draft = target.with_name(f"{target.name}.clone")
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.clonefile(os.fsencode(source), os.fsencode(draft), 0) != 0:
            return False
        draft.chmod(0o600)
        os.replace(draft, target)
    except (OSError, AttributeError):
        with contextlib.suppress(OSError):
            draft.unlink()
        return False
    return True
