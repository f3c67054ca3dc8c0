"""Blobs that are somebody else's file too: hard links whose owner could still write through them.

For each, ``linked/<hex>`` in the store keeps the size and time the file had when it was hashed, as JSON. A file that
differs from its record was written to since, and is never served or sent.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from bentotool.errors import VerificationError
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.digest import check_digest
from bentotool.paths import write_atomic

__all__ = ["LinkedFiles"]


class LinkedFiles:
    """The records.

    Args:
        folder: where they lie; it need not exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """The record of a blob, whether there is one or not."""
        return self.folder / check_digest(digest)[7:]

    def knows(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def record(self, digest: str, facts: os.stat_result, source: Path) -> None:
        """Remember how a file looked when it was hashed. Done before its blob appears."""
        document = {"size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "source": str(source)}
        write_atomic(self.path(digest), canonical_json(document))

    def check(self, digest: str, blob: Path) -> None:
        """Compare a blob with its record, if it has one, without reading it.

        Raises:
            VerificationError: when the file was written to since it was imported.
        """
        try:
            record = json.loads(self.path(digest).read_bytes())
            facts = blob.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except ValueError:
            record, facts = {}, blob.stat()
        if not isinstance(record, dict) or (facts.st_size, facts.st_mtime_ns) != (
            record.get("size"),
            record.get("mtime_ns"),
        ):
            source = record.get("source", "its source") if isinstance(record, dict) else "its source"
            raise VerificationError(
                f"blob {digest} was changed through {source} since it was imported with --link",
                hint="run: bentotool store verify --repair, then import the model again",
            )
