"""Digests: the only accepted form, and hashing at the speed of the disk."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from bentotool.errors import VerificationError

__all__ = ["CHUNK", "check_digest", "hash_file", "is_regular", "open_regular", "sha256_bytes"]

CHUNK = 1 << 20
"""Bytes read at a time; smaller reads cost up to a third of the hashing speed."""

_GUARDED = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY", "O_NOINHERIT"))
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


def is_regular(path: Path) -> bool:
    """Whether a file lies there: no link, pipe, device or folder."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def open_regular(path: Path, *, buffering: int = -1, follow: bool = False) -> BinaryIO:
    """Open a file to read it; never wait for the other end of a pipe, nor touch a device.

    Args:
        follow: whether a link to a file will do.

    Raises:
        OSError: when it is absent (FileNotFoundError), or no regular file.
    """
    facts = path.stat() if follow else path.lstat()
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "is not a file", str(path))
    flags = os.O_RDONLY | _GUARDED | (0 if follow else getattr(os, "O_NOFOLLOW", 0))
    descriptor = os.open(path, flags)
    try:
        # It may have been exchanged since the first look, which spares devices the opening.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "is not a file", str(path))
        return os.fdopen(descriptor, "rb", buffering)
    except BaseException:
        os.close(descriptor)
        raise


def hash_file(path: Path, advance: Callable[[int], None] = lambda amount: None) -> tuple[str, int]:
    """Digest and size in bytes of a file, in constant memory.

    Args:
        advance: told the bytes of each piece read.
    """
    digest, size = hashlib.sha256(), 0
    buffer = memoryview(bytearray(CHUNK))
    with open_regular(path, buffering=0, follow=True) as file:
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            digest.update(buffer[:count])
            size += count
            advance(count)
    return f"sha256:{digest.hexdigest()}", size
