"""Byte-reproducible tar layers: written by hand, read back by comparison.

A layer holds regular files only, with mode 0644, owner 0, time 0, in the order given, closed by two zero blocks and
nothing more. The header is POSIX ustar (IEEE Std 1003.1-1988); a name or size that does not fit gets one PAX record
block (IEEE Std 1003.1-2001) before it. ``tarfile`` is not used because its bytes have changed between Python releases.
"""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from bentotool.errors import UnsafeError, VerificationError
from bentotool.oci.digest import CHUNK

__all__ = [
    "BLOCK",
    "DEPTH_LIMIT",
    "TRAILER",
    "TarEntry",
    "VirtualTar",
    "check_entry_name",
    "check_entry_names",
    "tar_header",
    "tar_size",
    "untar",
]

BLOCK = 512
TRAILER = bytes(2 * BLOCK)
_USTAR_SIZE_LIMIT = 8 << 30
_NAME_LIMIT = 100
_PATH_LIMIT = 4096
DEPTH_LIMIT = 100
"""Most folders that a file may lie in: functions that make and remove folders call themselves once for each."""
_WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class TarEntry:
    """One file of a layer: its name in the archive (POSIX, relative) and its size in bytes."""

    name: str
    size: int


def _flaw(part: str) -> str:
    """Why no file or folder can have this name everywhere; empty where each system takes it."""
    if part in ("", ".", ".."):
        return "is not a plain relative path"
    if part.startswith(".wh."):
        return f"has the part {part[:40]!r}: '.wh.' deletes a file of a lower image layer"
    if part[-1] in ". ":  # so two names would become one
        return f"has a part that ends in a {'dot' if part[-1] == '.' else 'space'}, which Windows drops"
    device = part.split(".", 1)[0]
    return f"is not portable: on Windows {device!r} is a device" if device.lower() in _WINDOWS_DEVICES else ""


def check_entry_name(name: str) -> str:
    """Return ``name`` when it can become a file below any folder on any platform.

    Raises:
        UnsafeError: for absolute names, ``..``, backslashes, colons, control characters, whiteouts, names that are not
            Unicode NFC, device names of Windows, more than 100 folders or 4096 bytes.
    """
    shown = repr(name)[:120]
    hint = "rename the file"
    if name.count("/") > DEPTH_LIMIT:
        raise UnsafeError(f"file name {shown} lies in more than {DEPTH_LIMIT} folders", hint="move the file up")
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in name) or set(name) & set('\\:<>"|?*'):
        raise UnsafeError(f"file name {shown} has a character that is not portable", hint=hint)
    if flaw := next(filter(None, map(_flaw, name.split("/"))), ""):
        raise UnsafeError(f"file name {shown} {flaw}", hint=hint)
    if unicodedata.normalize("NFC", name) != name:
        raise UnsafeError(f"file name {shown} is not in Unicode normal form C", hint=hint)
    if len(name.encode()) > _PATH_LIMIT:
        raise UnsafeError(f"file name {shown} is longer than {_PATH_LIMIT} bytes", hint=hint)
    return name


def check_entry_names(names: Iterable[str]) -> None:
    """Check each name, and that no two are one file on a file system that ignores case, or one the folder of another.

    Raises:
        UnsafeError: naming the clash.
    """
    files: dict[str, str] = {}
    for name in names:
        key = check_entry_name(name).casefold()
        if key in files:
            raise UnsafeError(f"{files[key]!r} and {name!r} would be the same file", hint="rename one of them")
        files[key] = name
    for key, name in files.items():
        parts = key.split("/")
        for depth in range(1, len(parts)):
            if "/".join(parts[:depth]) in files:
                raise UnsafeError(f"{name!r} lies below a file of the same name", hint="rename one of them")


def _octal(value: int, width: int) -> bytes:
    return f"{value:0{width - 1}o}\0".encode()


def _ustar(name: bytes, size: int, typeflag: bytes, mode: int = 0o644, link: bytes = b"") -> bytes:
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108], block[108:116], block[116:124] = _octal(mode, 8), _octal(0, 8), _octal(0, 8)
    block[124:136], block[136:148] = _octal(size, 12), _octal(0, 12)
    block[148:156] = b" " * 8
    block[156:157] = typeflag
    block[157 : 157 + len(link)] = link
    block[257:265] = b"ustar\x0000"
    block[329:337], block[337:345] = _octal(0, 8), _octal(0, 8)
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def _pax_record(key: str, value: str) -> bytes:
    body = f" {key}={value}\n".encode()
    length = len(body) + len(str(len(body)))
    if len(str(length)) != len(str(len(body))):
        length += 1
    record = str(length).encode() + body
    # The length counts its own digits, so adding a digit can add one more.
    return record if len(record) == length else str(len(record)).encode() + body


def _padding(size: int) -> int:
    return -size % BLOCK


def tar_header(entry: TarEntry, *, mode: int = 0o644, link: str = "") -> bytes:
    """All bytes that stand before the content of ``entry``; a multiple of 512.

    Args:
        mode: permission bits; layers of models and Bentos have no others than 0644.
        link: what the entry is a symbolic link to, at most 100 ASCII characters; only layers of images have such.
    """
    name = entry.name.encode()
    records = b""
    if len(name) > _NAME_LIMIT or not name.isascii():
        records += _pax_record("path", entry.name)
    if entry.size >= _USTAR_SIZE_LIMIT:
        records += _pax_record("size", str(entry.size))
    size = entry.size if entry.size < _USTAR_SIZE_LIMIT else 0
    kind = b"2" if link else b"0"
    header = _ustar(name[:_NAME_LIMIT] if name.isascii() else b"@PaxHeader", size, kind, mode, link.encode("ascii"))
    if not records:
        return header
    return _ustar(b"@PaxHeader", len(records), b"x") + records + bytes(_padding(len(records))) + header


def tar_size(entries: Iterable[TarEntry]) -> int:
    """Size in bytes of the layer that holds ``entries``."""
    return sum(len(tar_header(entry)) + entry.size + _padding(entry.size) for entry in entries) + len(TRAILER)


class VirtualTar(io.RawIOBase):
    """A tar layer that is not stored: headers are made, contents are read from their own files, on demand.

    Args:
        entries: the files in archive order.
        opener: opens the content of an entry for reading in binary; called when its bytes are first needed.

    Raises:
        VerificationError: while reading, when a content is shorter than its entry says.
    """

    def __init__(self, entries: Sequence[TarEntry], opener: Callable[[TarEntry], BinaryIO]) -> None:
        super().__init__()
        self._segments: list[tuple[int, bytes | TarEntry, int]] = []
        self._opener = opener
        offset = 0
        for entry in entries:
            for piece in (tar_header(entry), entry, bytes(_padding(entry.size))):
                length = piece.size if isinstance(piece, TarEntry) else len(piece)
                if length:
                    self._segments.append((offset, piece, length))
                    offset += length
        self._segments.append((offset, TRAILER, len(TRAILER)))
        self.size = offset + len(TRAILER)
        self._position = 0
        self._current = 0
        self._file: tuple[TarEntry, BinaryIO] | None = None

    def __len__(self) -> int:
        return self.size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        self._current = 0
        return self._position

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if not target:
            return 0
        while self._current < len(self._segments):
            start, piece, length = self._segments[self._current]
            within = self._position - start
            if within >= length:
                self._current += 1
                continue
            count = min(len(target), length - within)
            if isinstance(piece, TarEntry):
                count = self._read_content(piece, within, target[:count])
            else:
                target[:count] = piece[within : within + count]
            self._position += count
            return count
        return 0

    def _read_content(self, entry: TarEntry, offset: int, target: memoryview) -> int:
        if self._file is None or self._file[0] is not entry:
            self._close_file()
            self._file = (entry, self._opener(entry))
        file = self._file[1]
        if file.tell() != offset:
            file.seek(offset)
        count = file.readinto(target)  # type: ignore[attr-defined]
        if not count:
            raise VerificationError(f"{entry.name} is shorter than the {entry.size} bytes recorded")
        return int(count)

    def _close_file(self) -> None:
        if self._file:
            self._file[1].close()
            self._file = None

    def close(self) -> None:
        self._close_file()
        super().close()


def _exactly(stream: BinaryIO, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = stream.read(count - len(data))
        if not piece:
            raise VerificationError("the layer ends in the middle of a file")
        data += piece
    return data


def _read_pax(stream: BinaryIO, size: int) -> dict[str, str]:
    if size > _PATH_LIMIT + 256:
        raise VerificationError("the layer has an oversized extended header")
    text = _exactly(stream, size + _padding(size))[:size]
    records: dict[str, str] = {}
    while text:
        digits, _, _ = text.partition(b" ")
        if not digits.isdigit() or not len(digits) + 3 < int(digits) <= len(text):
            raise VerificationError("the layer has a damaged extended header")
        try:
            key, _, value = text[len(digits) + 1 : int(digits) - 1].decode().partition("=")
        except UnicodeDecodeError:
            raise VerificationError("the layer has a file name that is not UTF-8") from None
        records[key] = value
        text = text[int(digits) :]
    return records


def _field(block: bytes, start: int, end: int) -> int:
    digits = block[start:end].rstrip(b"\0 ")
    if not digits or any(digit not in b"01234567" for digit in digits):
        raise VerificationError("the layer has a damaged header")
    return int(digits, 8)


def untar(stream: BinaryIO) -> Iterator[tuple[TarEntry, Iterator[bytes]]]:
    """Read a layer in the one form this module writes; anything else is refused.

    Each header is made again from the name and size it states and compared byte for byte, so links, devices, owners,
    odd modes and duplicate meanings cannot occur.

    Yields:
        the entry, its name checked, and its content in pieces, which must be consumed before the next entry.

    Raises:
        VerificationError: when the bytes are not exactly those of a layer of ours.
        UnsafeError: when a name is not portable or appears twice.
    """
    names: list[str] = []
    while (block := _exactly(stream, BLOCK)) != bytes(BLOCK):
        raw, records = block, {}
        if block[156:157] == b"x":
            size = _field(block, 124, 136)
            records = _read_pax(stream, size)
            raw = _exactly(stream, BLOCK)
        name = records.get("path") or raw[:100].rstrip(b"\0").decode("ascii", "replace")
        if "size" in records and not records["size"].isdecimal():
            raise VerificationError("the layer has a damaged extended header")
        entry = TarEntry(name, int(records["size"]) if "size" in records else _field(raw, 124, 136))
        expected = tar_header(entry)
        if (
            expected[-BLOCK:] != raw
            or (records and expected[:BLOCK] != block)
            or bool(records) != (len(expected) > BLOCK)
        ):
            raise VerificationError(f"the layer's header of {name[:120]!r} is not in canonical form")
        names.append(name)
        check_entry_names(names if len(names) % 256 == 0 else names[-1:])
        yield entry, _content(stream, entry.size)
        _exactly(stream, _padding(entry.size))
    check_entry_names(names)
    if _exactly(stream, BLOCK) != bytes(BLOCK) or stream.read(1):
        raise VerificationError("the layer does not end as it should")


def _content(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        piece = stream.read(min(size, CHUNK))
        if not piece:
            raise VerificationError("the layer ends in the middle of a file")
        size -= len(piece)
        yield piece
