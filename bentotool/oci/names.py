"""What models and Bentos may be called, and how they are referred to."""

from __future__ import annotations

import re

from bentotool.errors import BentotoolError, UsageError
from bentotool.oci.digest import check_digest

__all__ = ["check_name", "check_version", "is_name", "split_reference"]

_NAME = re.compile(r"[a-z0-9]([-._a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9_]([-._A-Za-z0-9]{0,126}[A-Za-z0-9_])?", re.ASCII)
_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}


def check_name(name: str) -> str:
    """A valid model or Bento name, in lower case.

    Raises:
        UsageError: when it is none.
    """
    lowered = name.lower()
    if _NAME.fullmatch(lowered) and _is_device(lowered):
        raise UsageError(
            f"{name!r} is not a valid name: on Windows {lowered.partition('.')[0]!r} is a device, not a file",
            hint="choose another name, with which the store works on every system",
        )
    if not _NAME.fullmatch(lowered):
        raise UsageError(
            f"{name!r} is not a valid name",
            hint="use up to 63 letters, digits, '-', '_' or '.', with a letter or digit at both ends",
        )
    return lowered


def _is_device(name: str) -> bool:
    """Names become names of files, and on Windows a device has its name with any ending too."""
    return name.partition(".")[0] in _DEVICES


def check_version(version: str) -> str:
    """A valid version, which is also a valid registry tag.

    Raises:
        UsageError: when it is none, or is the reserved word ``latest``.
    """
    if version == "latest":
        raise UsageError("'latest' always means the newest version and cannot be given", hint="choose another version")
    if _VERSION.fullmatch(version) and _is_device(version.lower()):
        raise UsageError(
            f"{version!r} is not a valid version: on Windows {version.partition('.')[0]!r} is a device, not a file",
            hint="choose another version, with which the store works on every system",
        )
    if not _VERSION.fullmatch(version):
        raise UsageError(f"{version!r} is not a valid version", hint="use up to 128 letters, digits, '-', '_' or '.'")
    return version


def split_reference(text: str) -> tuple[str, str | None, str | None]:
    """Split ``name``, ``name:version`` or ``name@sha256:…`` into name, version and digest.

    Raises:
        UsageError: when a part is not valid.
    """
    name, at, digest = text.partition("@")
    name, _, version = name.partition(":")
    if at:
        try:
            check_digest(digest)
        except BentotoolError as error:
            raise UsageError(f"{text!r}: {error.message}", hint=error.hint) from None
    if version and version != "latest":
        check_version(version)
    return check_name(name), version or None, digest if at else None


def is_name(text: str) -> bool:
    """Whether a folder can be that of a name."""
    return _NAME.fullmatch(text) is not None
