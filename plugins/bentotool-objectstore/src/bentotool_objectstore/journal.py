"""Which bytes of which objects already lie on this disk, so that a broken transfer is gone on with.

Each line of the file is a JSON list: name, ETag, size of the object, start and length of a span, and the CRC-32 of its
bytes. The checksum is what makes a line trustworthy after a crash: no order of writes to the disk is relied on, a span
counts only when its bytes are there. Lines that cannot be read are left out: the process may have died writing one.
"""

from __future__ import annotations

import json
import threading
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bentotool.oci.digest import CHUNK
from bentotool_objectstore.listing import RemoteObject

__all__ = ["Journal", "Span", "gaps"]


@dataclass(frozen=True, order=True)
class Span:
    """Bytes of a file, from ``start`` to before ``start + length``, and their CRC-32."""

    start: int
    length: int
    crc: int

    @property
    def stop(self) -> int:
        return self.start + self.length


def gaps(spans: list[Span], size: int, longest: int) -> list[tuple[int, int]]:
    """What is missing between disjoint, sorted spans: pairs of start and stop, at most ``longest`` bytes apart."""
    missing = []
    at = 0
    for stop, after in [*((span.start, span.stop) for span in spans), (size, size)]:
        missing += [(start, min(start + longest, stop)) for start in range(at, stop, longest)]
        at = after
    return missing


class Journal:
    """Notes of one transfer; safe to add to from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str, int], list[Span]] = {}
        with suppress(FileNotFoundError), path.open("rb") as lines:
            for line in lines:
                self._take(line)
        self._file = path.open("ab", buffering=0)
        self._file.write(b"\n")  # the last line of a dead process may have no end

    def _take(self, line: bytes) -> None:
        with suppress(ValueError, TypeError, RecursionError):
            name, tag, size, start, length, crc = json.loads(line)
            if start >= 0 and length > 0 and start + length <= size:
                self._noted.setdefault((name, tag, size), []).append(Span(start, length, crc))

    def add(self, item: RemoteObject, span: Span) -> None:
        """Note a span that was written. An object without a strong ETag cannot be gone on with: nothing is noted."""
        if item.tag and span.length:
            line = json.dumps([item.name, item.tag, item.size, span.start, span.length, span.crc])
            with self._lock:
                self._file.write(line.encode() + b"\n")

    def present(self, item: RemoteObject, path: Path) -> list[Span]:
        """Spans of this very object whose bytes are in the file, sorted and disjoint."""
        found: list[Span] = []
        with suppress(FileNotFoundError), path.open("rb") as file:
            for span in sorted(self._noted.get((item.name, item.tag, item.size), [])):
                at = found[-1].stop if found else 0
                if span.start >= at and _crc(file, span) == span.crc:
                    found.append(span)
        return found

    def close(self) -> None:
        self._file.close()


def _crc(file: BinaryIO, span: Span) -> int | None:
    """CRC-32 of a span of a file; None where the file ends before it."""
    crc, left = 0, span.length
    file.seek(span.start)
    while left:
        piece = file.read(min(CHUNK, left))
        if not piece:
            return None
        crc = zlib.crc32(piece, crc)
        left -= len(piece)
    return crc
