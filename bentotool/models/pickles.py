"""Whether a file is, or holds, a pickle: by its bytes, without a plugin, and without running an opcode.

Sources: Lib/pickletools.py of Python for the opcodes, numpy's format.py for ``.npy``, joblib for what wraps pickles.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["find_pickle", "unwrapped"]

_WINDOW = 256 * 1024  # bytes of a file, or of what it unpacks to, whose opcodes are read
_MAX_OPCODES = 20_000
_MAX_MEMBERS = 100_000
_MAX_DIRECTORY = 32 * 1024 * 1024  # bytes of a zip archive's directory, which zipfile reads at once
_MAX_ARRAYS = 1000  # members of a zip archive that are looked at for numpy's objects
_MEMORY = 128 * 1024 * 1024  # that xz may take
_PICKLED = (".pkl", ".pickle", ".joblib")
# Opcodes that call, or hand state to, what the pickle names.
_ACTING = {"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD", "EXT1", "EXT2", "EXT4"}
_OBJECTS = re.compile(rb"'[|<>=]?O\d*'")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*( [A-Za-z_]\w*(\.[A-Za-z_]\w*)*)?")


def find_pickle(path: Path, *, program: bool = False) -> str | None:
    """Why a file takes an unpickler to load, e.g. ``"it is a pickle"``; None where it does not.

    At most a few hundred kilobytes are read, and of a zip archive its directory.

    Args:
        program: the file is said to be a program: an archive of TorchScript or ``torch.export`` passes, whose
            pickles hold data and are read by an unpickler that knows nothing else.

    Raises OSError where it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_WINDOW)
        whole = len(head) < _WINDOW
        if head.startswith(b"PK\x03\x04"):
            return _in_archive(file, path.stat().st_size, program)
        if head.startswith(b"\x93NUMPY"):
            return "it is an array of pickled objects" if _holds_objects(head) else None
    if _is_pickle(head, whole):
        return "it is a pickle"
    inner = unwrapped(head)
    return "it is a compressed pickle" if inner and _is_pickle(inner, False) else None


def unwrapped(head: bytes, most: int = _WINDOW) -> bytes:
    """The start of what compressed bytes unpack to, ``most`` bytes of it; nothing where they are not compressed."""
    import bz2
    import lzma
    import zlib

    try:
        if head.startswith(b"\x1f\x8b") or (head[:1] == b"\x78" and int.from_bytes(head[:2], "big") % 31 == 0):
            return zlib.decompressobj(wbits=47).decompress(head, most)
        if head.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(head, most)
        if head.startswith((b"\xfd7zXZ\x00", b"\x5d\x00\x00")):
            return lzma.LZMADecompressor(memlimit=_MEMORY).decompress(head, most)
    except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError):
        pass
    return b""


def _is_pickle(data: bytes, whole: bool) -> bool:
    """Whether an unpickler would get somewhere with bytes: to the end, or to where it calls something.

    Args:
        whole: these are all bytes there are; else what goes on beyond them is given the benefit of the doubt, if they
            start as pickles of protocol 2 and later do.
    """
    stated = len(data) > 2 and data[0] == 0x80 and 2 <= data[1] <= 5
    if not stated and not _may_be_old(data):
        return False
    named = False
    try:
        for name, arg in _opcodes(data):
            if name == "GLOBAL" and not stated and not (isinstance(arg, str) and _NAME.fullmatch(arg)):
                return False
            named = named or name in ("GLOBAL", "STACK_GLOBAL", "INST")
            if name in _ACTING and (stated or named):
                return True
            if name == "STOP":
                return stated
    except _CutShortError:
        return stated and not whole
    except ValueError:
        return False
    return stated  # too many to read on


def _may_be_old(data: bytes) -> bool:
    """Protocols 0 and 1 have no header: those that call something start with a name, a mark or a container."""
    return data[:1] in (b"c", b"(", b"i", b"]", b"}", b")")


class _CutShortError(ValueError):
    """The bytes end within an opcode."""


def _opcodes(data: bytes) -> Iterator[tuple[str, Any]]:
    """Opcodes and their arguments, as far as an unpickler would get with them; ValueError where it would fail."""
    import io
    import pickletools

    stack: list[object] = []
    stream = io.BytesIO(data)
    known = {opcode.code: opcode for opcode in pickletools.opcodes}
    mark = pickletools.markobject
    for _ in range(_MAX_OPCODES):
        code = stream.read(1)
        opcode = known.get(code.decode("latin-1"))
        if not code:
            raise _CutShortError
        if opcode is None:
            raise ValueError("no opcode")
        arg = _argument(opcode, stream, data)
        before = list(opcode.stack_before)
        if mark in before:
            if mark not in stack:
                raise ValueError("no mark")
            while stack.pop() is not mark:
                pass
            before = before[: before.index(mark)]
        if len(before) > len(stack):
            raise ValueError("an empty stack")
        del stack[len(stack) - len(before) :]
        stack.extend(opcode.stack_after)
        yield opcode.name, arg


def _argument(opcode: Any, stream: BinaryIO, data: bytes) -> Any:
    start = stream.tell()
    try:
        return opcode.arg.reader(stream) if opcode.arg else None
    except DeprecationWarning:  # an odd escape in a text, where warnings are errors; unpickling takes it
        return None
    except ValueError as error:
        if stream.tell() >= len(data) or b"\n" not in data[start:]:
            raise _CutShortError from error
        raise


def _holds_objects(head: bytes) -> bool:
    """Whether the header of a ``.npy`` file, a literal of Python that is not evaluated here, names objects."""
    wide = head[6:7] > b"\x01"
    at = 12 if wide else 10
    length = int.from_bytes(head[8:at], "little")
    return _OBJECTS.search(head[at : at + length]) is not None


def _in_archive(file: BinaryIO, size: int, program: bool) -> str | None:
    if not _directory_is_small(file, size):
        return None
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()[:_MAX_MEMBERS]
            inside = {name.partition("/")[2] for name in names}
            script = "constants.pkl" in inside and any(name.startswith("code/") for name in inside)
            if program and (script or "archive_format" in inside):
                return None
            for name in names:
                if name.lower().endswith(_PICKLED):
                    return f"it holds the pickle {name!r:.80}"
            for name in [name for name in names if name.lower().endswith(".npy")][:_MAX_ARRAYS]:
                with archive.open(name) as member:
                    head = member.read(4096)
                if head.startswith(b"\x93NUMPY") and _holds_objects(head):
                    return f"it holds the pickled objects {name!r:.80}"
    except Exception:  # a damaged archive holds nothing that can be loaded; each codec has errors of its own
        return None
    return None


def _directory_is_small(file: BinaryIO, size: int) -> bool:
    file.seek(max(0, size - 66_000))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return False
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    if length == 0xFFFF_FFFF and (far := tail.rfind(b"PK\x06\x06")) >= 0:
        length = int.from_bytes(tail[far + 40 : far + 48], "little")
    return length <= min(_MAX_DIRECTORY, size)
