"""The content of many small files in one: what makes a list of ten thousand names quick.

Only a cache. Each entry carries the stamp of the file it was read from, and counts while the file still has that stamp;
a missing or damaged cache costs time and nothing else.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import time
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from bentotool.paths import write_atomic

__all__ = ["RefCache", "Stamp", "stamp_of", "without_cycles"]

Stamp = tuple[int, int, int]
_SETTLED_NS = 2_000_000_000
"""A file younger than this when it was read may be replaced without a visible change of time (git's *racy* entries)."""
_WORTH_IT = 64


def stamp_of(facts: os.stat_result) -> Stamp:
    """Time of change in ns, file number, size in bytes: a file that is only ever replaced whole differs in one."""
    return facts.st_mtime_ns, facts.st_ino, facts.st_size


@contextlib.contextmanager
def without_cycles() -> Iterator[None]:
    """Spare Python the search for cycles while tens of thousands of objects are made: a third of a list's time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class RefCache:
    """Entries by name, read on first use.

    Args:
        path: the cache's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, list[Any]] | None = None
        self._changed = False

    def _load(self) -> dict[str, list[Any]]:
        if self._entries is None:
            self._entries = {}
            with contextlib.suppress(OSError, ValueError, RecursionError):
                document = json.loads(self._path.read_bytes())
                if isinstance(document, dict):
                    self._entries = document
        return self._entries

    def get(self, key: str, stamp: Stamp) -> Any:
        """What the file held when it had this stamp, or None."""
        entry = self._load().get(key)
        try:
            return entry[1] if entry and entry[0] == [*stamp] else None
        except (TypeError, LookupError):
            return None  # of another version of the cache, or damaged

    def put(self, key: str, stamp: Stamp, document: Any) -> None:
        """Remember what a file holds, if its stamp is old enough to tell later versions apart."""
        if time.time_ns() - stamp[0] > _SETTLED_NS:
            self._load()[key] = [[*stamp], document]
            self._changed = True

    def save(self, present: Set[str]) -> None:
        """Write the cache, when it has grown and is worth it.

        Args:
            present: the names that still exist; others are forgotten.
        """
        if not self._changed or len(present) < _WORTH_IT:
            return
        kept = {key: entry for key, entry in self._load().items() if key in present}
        with contextlib.suppress(OSError):
            write_atomic(self._path, json.dumps(kept, separators=(",", ":")).encode())
        self._changed = False
