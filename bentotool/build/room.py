"""Where builds keep what they may forget: small documents in ``cache/build`` of the store.

Nothing here is needed for a right result. A document that is absent, damaged, another user's or of another format is
None, and what cannot be written is not: either costs time alone. Each file is a line with the SHA-256 of the rest, and
the rest, JSON; written under a temporary name and renamed, so that builds beside one another never see a part.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from bentotool.paths import write_atomic

__all__ = ["Room"]

_FORMAT = 1
_LIMIT = 256 << 20
_SALT = 32
_KEEP_S = 60 * 86_400
"""Documents that no build used for two months are removed: the project is gone."""


class Room:
    """The cache room of one store.

    Args:
        root: the store's folder.
        writing: whether anything is written; a dry run only looks.
    """

    def __init__(self, root: Path, *, writing: bool = True) -> None:
        self.folder = Path(root) / "cache" / "build"
        self._writing = writing
        self._salt: bytes | None = None
        self._salted = True

    def key(self, *parts: object) -> str:
        """A file name for what the parts, JSON values, name. Salted: the parts may hold what nobody should guess."""
        text = json.dumps([_FORMAT, *parts], sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=20, key=self.salt()).hexdigest()

    def read(self, name: str) -> dict[str, Any] | None:
        """A document, or None."""
        try:
            with (self.folder / name).open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_size > _LIMIT or (hasattr(os, "geteuid") and facts.st_uid != os.geteuid()):
                    return None
                line, body = file.readline(), file.read()
            if line.rstrip() != hashlib.sha256(body).hexdigest().encode():
                return None
            document = json.loads(body)
        except (OSError, ValueError, RecursionError):
            return None
        return document if isinstance(document, dict) and document.get("format") == _FORMAT else None

    def write(self, name: str, document: dict[str, Any]) -> None:
        """Keep a document, where that is possible."""
        if not self._writing:
            return
        body = json.dumps({**document, "format": _FORMAT}, separators=(",", ":")).encode("ascii")
        with contextlib.suppress(OSError):
            salt = self.salt()
            if not self._salted:  # of two first builds at once the last one's counts; the other's documents cost time
                write_atomic(self.folder / _salt_name(), salt, mode=0o600)
                self._salted = True
            write_atomic(self.folder / name, hashlib.sha256(body).hexdigest().encode() + b"\n" + body, mode=0o600)

    def used(self, name: str) -> None:
        """Say that a document served, so that it is kept."""
        if self._writing:
            with contextlib.suppress(OSError):
                os.utime(self.folder / name)

    def salt(self) -> bytes:
        """Random bytes of this store. They are written with the first document: what only looks leaves nothing."""
        if self._salt is None:
            with contextlib.suppress(OSError):
                self._salt = (self.folder / _salt_name()).read_bytes()
        if self._salt is None or len(self._salt) != _SALT:
            self._salt, self._salted = os.urandom(_SALT), False
        return self._salt

    def tidy(self) -> None:
        """Remove what was not used for long, and what interrupted writers left."""
        if not self._writing:
            return
        oldest = time.time() - _KEEP_S
        with contextlib.suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                age = entry.stat(follow_symlinks=False).st_mtime
                if age < (time.time() - 3600 if entry.name.endswith(".tmp") else oldest) and not entry.name.startswith(
                    "salt"
                ):
                    os.unlink(entry.path)


def _salt_name() -> str:
    """Each user of a shared store has a salt: nobody can read another's."""
    return f"salt-{os.geteuid()}" if hasattr(os, "geteuid") else "salt"
