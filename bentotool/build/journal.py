"""The journal of a project: what its folders held and its files looked like when they were last read.

A file whose stamp still stands keeps its digest and is not opened. A whole project whose journal still stands has the
same files in it; :meth:`Journal.stands` says so without knowing a single pattern.
"""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.build.contain import open_inside
from bentotool.build.stamps import Stamp, as_stamp, settled, stamp_of
from bentotool.errors import BentotoolError

__all__ = ["Journal", "hash_inside"]

_CHUNK = 1 << 20


@dataclass
class Journal:
    """What was seen of a project.

    Args:
        read_ns: before this time, in ns since the epoch, nothing of it was read.
        files: stamp and digest of each file that was taken, by its name on disk; of a link's target, with the
            target's real path as third.
        folders: the names in each folder that was walked; a folder's own ends with ``/``.
        hits, misses: files whose digest was known, and those that were read.
    """

    read_ns: int = field(default_factory=time.time_ns)
    files: dict[str, tuple[Stamp, str, str]] = field(default_factory=dict)
    folders: dict[str, list[str]] = field(default_factory=dict)
    hits: int = 0
    misses: int = 0

    def known(self, name: str, stamp: Stamp, target: str = "") -> str | None:
        """The digest of a file that did not change since it was read, or None."""
        entry = self.files.get(name)
        if entry is None or entry[0] != stamp or entry[2] != target or not settled(stamp, self.read_ns):
            return None
        return entry[1]

    def stands(self, project: Path) -> Journal | None:
        """A new journal of a project that did not change since this one; None where anything did.

        Files that were young when they were read, and those that only look different, are read again.
        """
        now = Journal()
        base = os.path.realpath(project)
        for folder, names in self.folders.items():
            found = _listing(os.path.join(base, folder))
            if found is None or sorted(found) != names:
                return None
            for name, facts in found.items():
                path = folder + name
                if path in self.files:
                    seen = self._same(project, base, path, facts)
                    if seen is None:
                        return None
                    now.files[path], fresh = seen
                    now.hits, now.misses = now.hits + (not fresh), now.misses + fresh
            now.folders[folder] = names
        return now if now.files.keys() == self.files.keys() else None

    def _same(
        self, project: Path, base: str, path: str, entry: os.DirEntry[str]
    ) -> tuple[tuple[Stamp, str, str], bool] | None:
        target = os.path.realpath(entry.path) if entry.is_symlink() else ""
        try:
            stamp = stamp_of(entry.stat())
        except OSError:
            return None
        digest = self.known(path, stamp, target)
        if digest is not None:
            return (stamp, digest, target), False
        if stamp[0] != self.files[path][0][0] or (target and not Path(target).is_relative_to(base)):
            return None
        try:
            digest, _, stamp = hash_inside(project, path)
        except BentotoolError:  # the plan says it as it should be said
            return None
        return ((stamp, digest, target), True) if digest == self.files[path][1] else None

    def to_dict(self) -> dict[str, Any]:
        return {"read_ns": self.read_ns, "files": self.files, "folders": self.folders}

    @classmethod
    def from_dict(cls, document: dict[str, Any] | None) -> Journal | None:
        """A journal from its document; None where it is none."""
        try:
            if document is None:
                return None
            files = {}
            for name, (stamp, digest, target) in document["files"].items():
                read = as_stamp(stamp)
                if read is None:
                    return None
                files[name] = (read, str(digest), str(target))
            return cls(int(document["read_ns"]), files, dict(document["folders"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            return None


def _listing(folder: str) -> dict[str, os.DirEntry[str]] | None:
    """The entries of a folder by name, those of folders with ``/`` at the end."""
    try:
        with os.scandir(folder) as entries:
            return {e.name + "/" if e.is_dir(follow_symlinks=False) else e.name: e for e in entries}
    except OSError:
        return None


def hash_inside(project: Path, name: str) -> tuple[str, int, Stamp]:
    """Digest, size in bytes and stamp of a project's file. Where it changes meanwhile, the stamp is that of before.

    Raises:
        UnsafeError, NotFoundError: as :func:`bentotool.build.contain.open_inside`.
    """
    digest, size = hashlib.sha256(), 0
    with open_inside(project, name) as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        while piece := file.read(_CHUNK):
            digest.update(piece)
            size += len(piece)
    return f"sha256:{digest.hexdigest()}", size, stamp
