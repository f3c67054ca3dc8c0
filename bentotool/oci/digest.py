"""Digests: the only accepted form, and hashing at the speed of the disk."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from bentotool.errors import VerificationError

__all__ = ["CHUNK", "check_digest", "hash_file", "sha256_bytes"]

CHUNK = 1 << 20
"""Bytes read at a time; smaller reads cost up to a third of the hashing speed."""

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def check_digest(value: object) -> str:
    """Return ``value`` when it is ``sha256:`` and 64 hexadecimal digits.

    Every digest that comes from a file or a registry passes through here before it becomes a path or a URL.

    Raises:
        VerificationError: for anything else.
    """
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        shown = repr(value)[:80]
        raise VerificationError(f"{shown} is not a sha256 digest", hint="expected sha256: and 64 hexadecimal digits")
    return value


def sha256_bytes(data: bytes) -> str:
    """``sha256:<hex>`` of bytes in memory."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def hash_file(path: Path, advance: Callable[[int], None] = lambda amount: None) -> tuple[str, int]:
    """Digest and size in bytes of a file, in constant memory.

    Args:
        advance: told the bytes of each piece read.
    """
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            size += count
            advance(count)
    return f"sha256:{digest.hexdigest()}", size
