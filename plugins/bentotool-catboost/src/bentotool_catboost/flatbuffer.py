"""Reads FlatBuffers tables, bounds-checked: an offset is believed when what it points at lies within the buffer.

Source: https://flatbuffers.dev/internals/. Numbers are little-endian. A table starts with the distance back to its
vtable, which holds the place of each field; a vector starts with its length; a string is a vector of bytes.
"""

from __future__ import annotations

import struct
import sys
from array import array


class FormatError(Exception):
    """The bytes are not what they should be; the message says what."""


def root(data: bytes) -> Table:
    """The table that a buffer starts at; FormatError where there is none."""
    return Table(data, _unsigned(data, 0))


class Table:
    """A table of a buffer. Fields are named by their number in the schema; an absent field has its default."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._vtable = at - int(_number("<i", data, at))
        size = int(_number("<H", data, self._vtable))
        self._size = int(_number("<H", data, self._vtable + 2))
        if size < 4 or size % 2 or self._vtable + size > len(data) or at + self._size > len(data):
            raise FormatError(f"the table at byte {at} reaches out of the buffer")
        self._fields = size // 2 - 2

    def number(self, field: int, kind: str, default: float) -> float:
        """A number of :mod:`struct`'s ``kind``."""
        at = self._place(field, struct.calcsize(kind))
        return default if at is None else _number("<" + kind, self._data, at)

    def integer(self, field: int, default: int, kind: str = "i") -> int:
        """A whole number."""
        return int(self.number(field, kind, default))

    def table(self, field: int) -> Table | None:
        """The table that a field points at."""
        at = self._target(field)
        return None if at is None else Table(self._data, at)

    def tables(self, field: int) -> list[Table]:
        """The tables of a vector of them."""
        start, count = self.vector(field, 4)
        return [Table(self._data, at + _unsigned(self._data, at)) for at in range(start, start + 4 * count, 4)]

    def text(self, field: int, limit: int) -> str:
        """A text; FormatError for one of more than ``limit`` bytes."""
        return _text(self._data, *self.vector(field, 1), limit)

    def texts(self, field: int, limit: int) -> list[str]:
        """The texts of a vector of them."""
        start, count = self.vector(field, 4)
        places = [at + _unsigned(self._data, at) for at in range(start, start + 4 * count, 4)]
        return [_text(self._data, *_vector(self._data, at, 1), limit) for at in places]

    def content(self, field: int, size: int = 1) -> bytes:
        """The bytes of a vector of things of ``size`` bytes."""
        start, count = self.vector(field, size)
        return self._data[start : start + count * size]

    def values(self, field: int, kind: str) -> array[int]:
        """The whole numbers of a vector, of :mod:`array`'s ``kind``."""
        return numbers(self.content(field, array(kind).itemsize), kind)

    def count(self, field: int, size: int) -> int:
        """The length of a vector of things of ``size`` bytes; 0 for none."""
        return self.vector(field, size)[1]

    def vector(self, field: int, size: int) -> tuple[int, int]:
        """Where a vector's first thing lies, and how many things of ``size`` bytes it has."""
        at = self._target(field)
        return (0, 0) if at is None else _vector(self._data, at, size)

    def _target(self, field: int) -> int | None:
        at = self._place(field, 4)
        return None if at is None else at + _unsigned(self._data, at)

    def _place(self, field: int, size: int) -> int | None:
        if field >= self._fields:
            return None
        offset = int(_number("<H", self._data, self._vtable + 4 + 2 * field))
        if not offset:
            return None
        if offset + size > self._size:
            raise FormatError(f"field {field} of the table at byte {self._at} lies outside of it")
        return self._at + offset


def numbers(content: bytes, kind: str) -> array[int]:
    """Little-endian whole numbers of :mod:`array`'s ``kind``; FormatError where the bytes do not come out even."""
    values: array[int] = array(kind)
    if len(content) % values.itemsize:
        raise FormatError(f"{len(content)} bytes hold no numbers of {values.itemsize}")
    values.frombytes(content)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def _number(layout: str, data: bytes, at: int) -> float:
    if not 0 <= at <= len(data) - struct.calcsize(layout):
        raise FormatError(f"byte {at} is looked for in a buffer of {len(data)}")
    value: float = struct.unpack_from(layout, data, at)[0]
    return value


def _unsigned(data: bytes, at: int) -> int:
    return int(_number("<I", data, at))


def _vector(data: bytes, at: int, size: int) -> tuple[int, int]:
    count = _unsigned(data, at)
    if count * size > len(data) - at - 4:
        raise FormatError(f"the vector at byte {at} has {count} things, more than there is")
    return at + 4, count


def _text(data: bytes, start: int, count: int, limit: int) -> str:
    if count > limit:
        raise FormatError(f"a text of {count} bytes, and {limit} is the most")
    return data[start : start + count].decode("utf-8", "backslashreplace")
