"""Unpacking what strangers packed: the one place where entries of a foreign archive become files.

A tar (POSIX ustar and PAX, GNU long names, as Go, Python, GNU and BSD tar write them) may hold regular files and
folders, nothing else. Names are checked, every header has its checksum, and each file is made new, below a folder that
is made here, so no link can stand in the way. Owners, modes, times and extended attributes are not applied.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from pathlib import Path
from threading import Lock
from typing import BinaryIO, NoReturn

from bentotool.errors import UnsafeError, VerificationError
from bentotool.oci.blobs import storage_error
from bentotool.oci.tar import BLOCK, check_entry_name

__all__ = ["MAX_ENTRIES", "FileSink", "TarSink", "Unpacker"]

MAX_ENTRIES = 20_000
"""Most files and folders: a manifest of ours could not list more."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_EXTENSION_LIMIT = 64 << 10  # bytes of an extended header: names have 4096, attributes of macOS a few thousand
_REFUSED = {
    b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"6": "a pipe",
    b"S": "a sparse file", b"K": "a link", b"D": "a folder listing", b"M": "a part of a file",
}  # fmt: skip
_UTF8 = ("ISO-IR 10646 2000 UTF-8", "BINARY")
_Steps = Generator[None, bytes, bytes]


class Unpacker:
    """A new folder that files are unpacked into, from several layers and threads at once.

    Args:
        folder: it must not exist yet.
        max_bytes: most bytes of all files.
        max_entries: most files and folders.

    Raises:
        BentotoolError: when the folder exists or cannot be made.
    """

    def __init__(self, folder: Path, *, max_bytes: int, max_entries: int = MAX_ENTRIES) -> None:
        try:
            folder.mkdir(mode=0o700)
        except OSError as error:
            raise storage_error(error, folder) from None
        self.folder = folder
        self._max_bytes, self._max_entries = max_bytes, max_entries
        self._lock = Lock()
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}
        self._entries = self._bytes = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the files, sorted."""
        return tuple(sorted(self._files.values()))

    def claim_folder(self, name: str) -> None:
        """Note a folder; it is made when a file needs it."""
        check_entry_name(name)
        with self._lock:
            self._count()
            self._enter(name)

    def create(self, name: str, size: int) -> BinaryIO:
        """A new, empty file, opened for writing.

        Args:
            size: the bytes it will have.

        Raises:
            UnsafeError: when the name cannot be a file below the folder, is taken, or there are too many or too large
                files.
        """
        check_entry_name(name)
        key = name.casefold()
        with self._lock:
            self._count()
            if key in self._files or key in self._folders:
                standing = self._files.get(key) or self._folders[key]
                raise UnsafeError(f"{standing!r} and {name!r} would be the same file", hint="do not use this model")
            if "/" in name:
                self._enter(name.rpartition("/")[0])
            self._files[key] = name
        self.spend(size)
        path = self.folder / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.fdopen(os.open(path, _NEW, 0o600), "wb", buffering=0)
        except OSError as error:
            raise storage_error(error, path) from None

    def spend(self, size: int) -> None:
        """Count bytes against the limit."""
        with self._lock:
            self._bytes += size
            if self._bytes > self._max_bytes:
                raise UnsafeError(
                    f"the model unpacks to more than {self._max_bytes} bytes",
                    hint="raise the limit with --max-size if that is right",
                )

    def _count(self) -> None:
        self._entries += 1
        if self._entries > self._max_entries:
            raise UnsafeError(f"the model has more than {self._max_entries} entries", hint="do not use this model")

    def _enter(self, folder: str) -> None:
        parts = folder.split("/")
        for depth in range(1, len(parts) + 1):
            name = "/".join(parts[:depth])
            if name.casefold() in self._files:
                raise UnsafeError(f"{name!r} is a file and a folder at once", hint="do not use this model")
            self._folders.setdefault(name.casefold(), name)


class FileSink:
    """One file that arrives in pieces.

    Args:
        size: exactly how many bytes it has, or None when that is not known.
    """

    def __init__(self, unpacker: Unpacker, name: str, size: int | None) -> None:
        self._unpacker, self._name, self._size = unpacker, name, size
        self._written = 0
        self._file = unpacker.create(name, size or 0)

    def write(self, data: bytes) -> None:
        """Append the next bytes."""
        self._written += len(data)
        if self._size is None:
            self._unpacker.spend(len(data))
        elif self._written > self._size:
            raise VerificationError(f"{self._name} is longer than the {self._size} bytes stated")
        _write(self._file, data, self._name)

    def finish(self) -> None:
        """Say that nothing follows.

        Raises:
            VerificationError: when bytes are missing.
        """
        self.close()
        if self._size not in (None, self._written):
            raise VerificationError(f"{self._name} has {self._written} bytes, not the {self._size} stated")

    def close(self) -> None:
        self._file.close()


class TarSink:
    """A tar archive that arrives in pieces of any length.

    Args:
        rename: where a file goes, from its name in the archive and its size in bytes.

    Raises:
        UnsafeError: while writing, at the first entry that is no plain file or folder, or has no plain name.
        VerificationError: while writing, when the archive is damaged.
    """

    def __init__(self, unpacker: Unpacker, rename: Callable[[str, int], str] = lambda name, size: name) -> None:
        self._unpacker, self._rename = unpacker, rename
        self._data, self._at = b"", 0
        self._file: BinaryIO | None = None
        self._ended = False
        self._steps = self._read()
        next(self._steps)

    def write(self, data: bytes) -> None:
        """Take the next bytes."""
        if data:
            self._steps.send(bytes(data))

    def finish(self) -> None:
        """Say that nothing follows.

        Raises:
            VerificationError: when the archive is not whole.
        """
        self.close()
        if not self._ended:
            raise VerificationError("the archive ends early")

    def close(self) -> None:
        self._steps.close()
        if self._file:
            self._file.close()

    # Generators, so that code which reads like a parser can wait for bytes that have not come yet.

    def _exactly(self, count: int) -> _Steps:
        if len(self._data) - self._at < count:
            pieces, have = [self._data[self._at :]], len(self._data) - self._at
            while have < count:
                pieces.append((yield))
                have += len(pieces[-1])
            self._data, self._at = b"".join(pieces), 0
        self._at += count
        return self._data[self._at - count : self._at]

    def _content(self, name: str, size: int) -> _Steps:
        padding = -size % BLOCK
        with self._unpacker.create(name, size) as self._file:
            while size:
                if self._at == len(self._data):
                    self._data, self._at = (yield), 0
                piece = memoryview(self._data)[self._at : self._at + size]
                _write(self._file, piece, name)
                self._at += len(piece)
                size -= len(piece)
        yield from self._exactly(padding)
        return b""

    def _read(self) -> _Steps:
        names: list[str] = []  # from extended headers, for the entry that follows
        sizes: list[int] = []
        while (block := (yield from self._exactly(BLOCK))) != bytes(BLOCK):
            kind, size = block[156:157], _size(block)
            if kind in (b"x", b"g", b"L"):
                if size > _EXTENSION_LIMIT:
                    raise VerificationError("the archive has an oversized extended header")
                data = (yield from self._exactly(size + -size % BLOCK))[:size]
                found = {"path": _text(data.removesuffix(b"\0"))} if kind == b"L" else _records(data, kind == b"g")
                names += [found["path"]] if "path" in found else []
                sizes += [_decimal(found["size"])] if "size" in found else []
                if len(names) > 1 or len(sizes) > 1:
                    raise UnsafeError("the archive gives one entry two names or sizes", hint="do not use this model")
                continue
            name = names.pop() if names else _name(block)
            yield from self._entry(kind, name, sizes.pop() if sizes else size)
        if names or sizes or (yield from self._exactly(BLOCK)) != bytes(BLOCK):
            raise VerificationError("the archive does not end as it should")
        self._ended = True
        while True:
            if self._data[self._at :].strip(b"\0"):
                raise VerificationError("the archive goes on after its end")
            self._data, self._at = (yield), 0

    def _entry(self, kind: bytes, name: str, size: int) -> _Steps:
        plain = name
        while plain.startswith("./"):
            plain = plain[2:]
        if kind == b"5":
            plain = plain.removesuffix("/")
            if size:
                raise VerificationError(f"folder {name[:120]!r} of the archive has content")
            if plain not in ("", "."):
                self._unpacker.claim_folder(plain)
        elif kind in (b"0", b"\0"):
            check_entry_name(plain)
            yield from self._content(self._rename(plain, size), size)
        else:
            _refuse(kind, name)
        return b""


def _write(file: BinaryIO, data: bytes | memoryview, name: str) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise storage_error(error, Path(name)) from None


def _refuse(kind: bytes, name: str) -> NoReturn:
    what = _REFUSED.get(kind, f"of type {kind!r}")
    raise UnsafeError(f"{name[:120]!r} in the archive is {what}", hint="a model consists of regular files")


def _damaged() -> VerificationError:
    return VerificationError("the archive has a damaged header")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU: base 256, big-endian
        value = int.from_bytes(field[1:], "big")
        if field[0] != 0x80 or value >= 1 << 62:
            raise _damaged()
        return value
    digits = field.strip(b"\0 ")
    if any(digit not in b"01234567" for digit in digits):
        raise _damaged()
    return int(digits, 8) if digits else 0


def _size(block: bytes) -> int:
    """The size in a header whose checksum is right."""
    if _number(block[148:156]) != sum(block[:148]) + 8 * ord(" ") + sum(block[156:]):
        raise _damaged()
    if block[257:263] not in (b"ustar\0", b"ustar ", bytes(6)):
        raise _damaged()
    return _number(block[124:136])


def _text(data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UnsafeError("the archive has a name that is not UTF-8", hint="do not use this model") from None
    if "\0" in text:
        raise UnsafeError(f"the archive has the name {text[:120]!r}", hint="do not use this model")
    return text


def _name(block: bytes) -> str:
    name = _text(block[:100].split(b"\0", 1)[0])
    # Only POSIX has a prefix there; GNU keeps times in its place.
    prefix = _text(block[345:500].split(b"\0", 1)[0]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _decimal(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _damaged()
    return int(text)


def _records(data: bytes, everywhere: bool) -> dict[str, str]:
    """Name and size in a PAX extended header; what would make the entry a link or a sparse file is refused.

    Args:
        everywhere: the header is for all entries, and then may say neither.
    """
    found: dict[str, str] = {}
    while data:
        digits, space, _ = data.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) < 8 else 0
        if not space or not len(digits) + 2 < length <= len(data) or data[length - 1 : length] != b"\n":
            raise _damaged()
        key, equals, value = data[len(digits) + 1 : length - 1].partition(b"=")
        data = data[length:]
        word = _text(key)
        bad = word in ("linkpath", "SCHILY.realsize") or word.startswith("GNU.sparse")
        if word in found or bad or (word == "hdrcharset" and _text(value) not in _UTF8):
            raise UnsafeError(f"the archive has {word[:60]!r} in an extended header", hint="do not use this model")
        if word in ("path", "size"):
            found[word] = _text(value)
        if not equals or (found and everywhere):
            raise _damaged()
    return found
