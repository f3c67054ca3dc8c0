"""What a file looks like from outside, and when that is enough to say that its content is the same.

A stamp is (size in bytes, mtime in ns, file number, ctime in ns). Equal stamps mean equal content unless the file was
young when it was read: one clock tick may hide a second change, as git's *racy* entries. Such a file is read again.
On Windows the file number of a listing is 0 and ctime is the time of creation, so neither counts there.
"""

from __future__ import annotations

import os
import stat
from typing import Any

__all__ = ["SETTLED_NS", "Stamp", "as_stamp", "is_file", "settled", "stamp_at", "stamp_of"]

Stamp = tuple[int, int, int, int]

SETTLED_NS = 2_000_000_000
"""The coarsest clock that a file system in use has (FAT)."""

_NUMBERED = os.name != "nt"


def stamp_of(facts: os.stat_result) -> Stamp:
    """The stamp in what ``stat`` answered."""
    if _NUMBERED:
        return facts.st_size, facts.st_mtime_ns, facts.st_ino, facts.st_ctime_ns
    return facts.st_size, facts.st_mtime_ns, 0, 0


def stamp_at(path: str | os.PathLike[str]) -> Stamp | None:
    """The stamp of a path, links followed; None where there is nothing."""
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None


def is_file(facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode)


def settled(stamp: Stamp, read_ns: int) -> bool:
    """Whether a file with this stamp was old enough when it was read.

    Args:
        read_ns: the time, in ns since the epoch, before which it was not yet read.
    """
    return max(stamp[1], stamp[3]) < read_ns - SETTLED_NS


def as_stamp(value: Any) -> Stamp | None:
    """A stamp from a JSON document; None for anything else."""
    if isinstance(value, list) and len(value) == 4 and all(isinstance(item, int) for item in value):
        return value[0], value[1], value[2], value[3]
    return None
