"""Whether a file that is imported may be in the store already, found out by looking at a few places of it.

A look is cheap, and a wrong yes costs one more read of the file, never a wrong blob: what counts is the digest.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from bentotool.oci.collect import stored_blobs
from bentotool.oci.digest import CHUNK, open_regular

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout

__all__ = ["KnownBlobs"]

_LOOK = 1 << 16  # bytes
_LOOKS = 5  # a model that was trained further has the sizes and the header of the first one, but other weights


class KnownBlobs:
    """The blobs of a layout that have one of the given sizes.

    Args:
        sizes: in bytes, of the files that are about to be imported.
    """

    def __init__(self, layout: Layout, sizes: Collection[int]) -> None:
        large = {size for size in sizes if size > CHUNK}
        self._paths: dict[int, list[Path]] = {}
        for digest, size in stored_blobs(layout) if large else ():
            if size in large:
                self._paths.setdefault(size, []).append(layout.blob_path(digest))

    def like(self, source: BinaryIO, size: int) -> bool:
        """Whether a file is worth being read once before it is written: it is small, or looks like a blob.

        Args:
            source: the file, which is at its start, and is so afterwards.
            size: its bytes.

        Raises:
            OSError: when the file cannot be read.
        """
        if size <= CHUNK:
            return True
        looks = None
        for path in self._paths.get(size, ()):
            with contextlib.suppress(OSError), open_regular(path, buffering=0) as blob:
                looks = looks or _looks(source, size)
                if _looks(blob, size) == looks:
                    return True
        return False


def _looks(file: BinaryIO, size: int) -> list[bytes]:
    found = []
    for part in range(_LOOKS):
        file.seek((size - _LOOK) * part // (_LOOKS - 1))
        found.append(file.read(_LOOK))
    file.seek(0)
    return found
