"""Which files of a model are of a format: by their first bytes; their names decide only where the bytes do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bentotool.interfaces import SourceFile

__all__ = ["first_bytes", "main_files"]

MAX_PROBED = 1000
"""Files whose first bytes are read when their names tell nothing."""


def first_bytes(file: SourceFile, count: int = 64) -> bytes:
    """The start of a file; fewer than ``count`` bytes where it ends before."""
    with file.path.open("rb") as stream:
        return stream.read(count)


def main_files(
    files: Sequence[SourceFile], starts: Callable[[SourceFile], bool], suffixes: tuple[str, ...], *, sure: bool = True
) -> list[SourceFile]:
    """The files that may be the model, for a framework's ``detect``.

    Args:
        files: all files of the model.
        starts: whether a file starts as the format does. It reads a few kilobytes at most: it is asked about each of
            up to 1000 files.
        suffixes: endings of the format's file names, lower case with the dot.
        sure: the first bytes are a signature. Where they are not, as other files may start alike, files with a
            suffix go before files without.

    Returns:
        files that start so; if there are none, those with a suffix, so that a damaged file is told as one.
    """
    named = [file for file in files if file.name.lower().endswith(suffixes)]
    found = [file for file in named if starts(file)]
    if sure or not found:
        taken = {file.name for file in named}
        found += [file for file in files[:MAX_PROBED] if file.name not in taken and starts(file)]
    return found or named
