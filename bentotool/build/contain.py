"""Reading files of a project without leaving it: the one place that turns a configured path into bytes.

A path from a configuration file is checked as text first, then opened component by component below the project's real
folder where the platform can (``dir_fd`` and ``O_NOFOLLOW``), so that a folder exchanged for a link between the check
and the opening is noticed. Elsewhere the resolved path is compared with the root.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from bentotool.build.schema import Where, check_text
from bentotool.build.stamps import Stamp, stamp_of
from bentotool.errors import ConfigError, NotFoundError, UnsafeError

__all__ = ["Noted", "check_relative", "note_folder", "noting", "open_inside", "read_inside"]

# Where there is no dir_fd (Windows), the check is by resolved path and file identity.
_BENEATH = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW") and hasattr(os, "O_DIRECTORY")


@dataclass(frozen=True)
class Noted:
    """What was looked at: stamps of files and the folders whose names were listed, by real path."""

    files: dict[str, Stamp] = field(default_factory=dict)
    folders: dict[str, None] = field(default_factory=dict)


_noted: ContextVar[Noted | None] = ContextVar("bentotool_noted", default=None)


@contextmanager
def noting() -> Iterator[Noted]:
    """Collect what :func:`open_inside` and :func:`note_folder` are given meanwhile: what a plan was made from."""
    noted = Noted()
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def note_folder(path: Path) -> None:
    """Say that the plan depends on which files lie in a folder that collecting the code does not walk."""
    if (noted := _noted.get()) is not None:
        noted.folders[os.path.realpath(path)] = None


def check_relative(path: str, where: Where) -> str:
    """Normalise a path written in a configuration file: relative, POSIX, inside the folder.

    Raises:
        UnsafeError: for absolute paths, ``..``, ``~``, ``$VAR``, backslashes, drives and URLs.
        ConfigError: for an empty path or control characters.
    """
    check_text(path, where)
    shown = " → ".join((*where, repr(path[:120])))
    if not path.strip():
        raise ConfigError("expected a path, got nothing", path=where)
    if (
        path.startswith(("/", "~"))
        or any(char in path for char in "\\:$")
        or ".." in path.split("/")
        or "%2" in path.lower()
    ):
        raise UnsafeError(
            f"{shown} is not a plain path inside the project", hint="write it relative to the project folder, with '/'"
        )
    return str(PurePosixPath(path))


def _escape(name: str) -> UnsafeError:
    return UnsafeError(f"{name!r} leads outside the project", hint="copy the file into the project, or exclude it")


def _no_file(name: str) -> UnsafeError:
    return UnsafeError(f"{name!r} is not a regular file", hint="exclude it")


def open_inside(root: Path, name: str) -> BinaryIO:
    """Open the regular file ``name`` (relative, POSIX) below the folder ``root`` for reading.

    Links are followed as long as they stay inside: the path is resolved first and then opened without following any.

    Raises:
        UnsafeError: the file lies outside ``root``, is not a regular file, or changed place while it was opened.
        NotFoundError: there is no such file.
    """
    base = Path(os.path.realpath(root))
    try:
        target = Path(os.path.realpath(base / name, strict=True))
    except FileNotFoundError:
        if os.path.islink(base / name):
            raise NotFoundError(f"{name!r} is a link to nothing", hint="remove the link, or exclude it") from None
        raise NotFoundError(f"no file {name!r} in the project") from None
    except (OSError, ValueError) as error:
        raise UnsafeError(f"{name!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not target.is_relative_to(base):
        raise _escape(name)
    try:
        descriptor = (
            _open_beneath(base, target.relative_to(base).parts)
            if _BENEATH
            else os.open(target, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        )
    except OSError as error:
        if error.errno is not None and isinstance(error, (FileNotFoundError, PermissionError)):
            raise NotFoundError(f"{name!r} cannot be read: {error.strerror}") from None
        if error.errno == errno.ENXIO:  # a socket cannot even be opened
            raise _no_file(name) from None
        raise UnsafeError(f"{name!r} changed while it was read: {error.strerror}", hint="build again") from None
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        raise _no_file(name)
    if (noted := _noted.get()) is not None:
        noted.files.setdefault(str(target), stamp_of(facts))
    return os.fdopen(descriptor, "rb")


def _open_beneath(base: Path, parts: tuple[str, ...]) -> int:
    folder = os.open(base, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # A FIFO would block the opening for ever; O_NONBLOCK changes nothing for regular files.
        return os.open(parts[-1] if parts else ".", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)


def read_inside(root: Path, path: str, where: Where, *, limit: int) -> bytes:
    """Bytes of a file that a configuration names.

    Raises:
        UnsafeError, NotFoundError: as :func:`check_relative` and :func:`open_inside`.
        ConfigError: the file is larger than ``limit`` bytes.
    """
    name = check_relative(path, where)
    try:
        with open_inside(root, name) as file:
            content = file.read(limit + 1)
    except NotFoundError as error:
        if len(where) < 2:  # the file is the configuration itself
            raise
        raise NotFoundError(f"{' → '.join(where)}: {error.message}", hint=error.hint) from None
    if len(content) > limit:
        raise ConfigError(f"{name} is larger than {limit} bytes", path=where)
    return content
