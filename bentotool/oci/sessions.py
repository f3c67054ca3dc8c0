"""Where uploads stand, kept for another process to go on with after this one was killed.

One small file for each upload under way, readable by its owner alone: the location of an upload is a secret with some
registries. It is claimed and locked as unfinished downloads are (:mod:`bentotool.oci.partial`), so two pushes of the
same blob never write into one session.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from bentotool.errors import BentotoolError
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.partial import claim_file, still_ours

__all__ = ["Session", "SessionRecord", "UploadJournal"]

_LIMIT = 64 << 10
_HOURS = 6.0  # registries drop uploads that nobody goes on with; asking after an older one is a request for nothing


@dataclass(frozen=True)
class Session:
    """An upload that was begun.

    Attributes:
        location: where it takes its next piece.
        minimum: the fewest bytes it takes at once, but for the last piece.
        begun: when, in seconds since 1970.
    """

    location: str
    minimum: int
    begun: float

    @classmethod
    def now(cls, location: str, minimum: int) -> Session:
        """One that begins now."""
        return cls(location, minimum, time.time())

    def moved(self, location: str) -> Session:
        """The same one after a piece."""
        return replace(self, location=location)


class SessionRecord:
    """The note of one upload; one without a file keeps nothing.

    Attributes:
        found: what an earlier process left, if it is not too old.
    """

    def __init__(self, file: BinaryIO | None, key: str) -> None:
        self._file = file
        self._key = key
        self.found = self._read()
        self.ended = False

    def _read(self) -> Session | None:
        if self._file is None:
            return None
        try:
            document = json.loads(self._file.read(_LIMIT))
            session = Session(str(document["location"]), int(document["minimum"]), float(document["begun"]))
            known = document["key"] == self._key and 0 <= time.time() - session.begun < _HOURS * 3600
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return session if known else None

    def note(self, session: Session) -> None:
        """Replace the note. A disk that refuses costs the note, and not the upload."""
        if self._file is None:
            return
        data = canonical_json({"key": self._key, **vars(session)})
        with contextlib.suppress(OSError):
            self._file.seek(0)
            self._file.write(data)
            self._file.truncate(len(data))

    def forget(self) -> None:
        """Nothing is left to go on with."""
        self.ended = True
        self.found = None


class UploadJournal:
    """The uploads under way from one store.

    Args:
        folder: gives the folder of the notes, and creates it.
    """

    def __init__(self, folder: Callable[[], Path]) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[SessionRecord]:
        """The note of one upload, which no other process has for the length of a block.

        Args:
            key: what is uploaded, and where to.
        """
        name = f"upload-{hashlib.sha256(key.encode()).hexdigest()[:32]}"
        try:
            path, file = claim_file(self._folder(), name)
        except (OSError, BentotoolError):  # a store that cannot be written can be pushed from
            yield SessionRecord(None, key)
            return
        record = SessionRecord(file, key)
        try:
            yield record
        finally:
            ours = record.ended and still_ours(path, file)
            file.close()
            if ours:
                with contextlib.suppress(OSError):
                    path.unlink()
