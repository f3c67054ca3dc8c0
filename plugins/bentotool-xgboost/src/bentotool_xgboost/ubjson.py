"""Reads Universal Binary JSON as XGBoost writes it, bounds-checked.

Source: https://ubjson.org and src/common/json.cc of XGBoost. Numbers are big-endian. A typed array is kept as an
``array.array``, so that a model takes as much memory as it has bytes, and not a multiple.
"""

from __future__ import annotations

import struct
import sys
from array import array
from typing import Any, BinaryIO

_MAX_DEPTH = 32
_MAX_ITEMS = 10_000_000  # values outside typed arrays
_MAX_KEY = 4096
_INTEGERS = {"i": ">b", "U": ">B", "I": ">h", "l": ">i", "L": ">q"}
_NUMBERS = {**_INTEGERS, "d": ">f", "D": ">d"}
_CONSTANTS = {"Z": None, "T": True, "F": False}


class FormatError(Exception):
    """The bytes are not what they should be; the message says what."""


def read_ubjson(file: BinaryIO, size: int) -> Any:
    """The document of a file of ``size`` bytes; FormatError where it is none."""
    reader = _Reader(file, size)
    document = reader.value(reader.marker(), 0)
    if reader.at != size:
        raise FormatError(f"{size - reader.at} bytes follow the document")
    return document


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self.at = 0
        self._items_left = _MAX_ITEMS

    def marker(self) -> str:
        return self._take(1).decode("latin-1")

    def value(self, marker: str, depth: int) -> Any:
        if not self._items_left or depth > _MAX_DEPTH:
            raise FormatError(f"more than {_MAX_ITEMS} values, or nested more than {_MAX_DEPTH} deep")
        self._items_left -= 1
        if marker in _NUMBERS:
            return self._number(_NUMBERS[marker])
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if marker == "S":
            return self._text(self._size)
        if marker == "{":
            return self._object(depth)
        if marker == "[":
            return self._array(depth)
        raise FormatError(f"marker {marker!r} at byte {self.at - 1}")

    def _take(self, count: int) -> bytes:
        if count > self._size - self.at:
            raise FormatError(f"truncated at byte {self._size}: {count} bytes are missing at byte {self.at}")
        data = self._file.read(count)
        if len(data) < count:
            raise FormatError(f"truncated at byte {self.at + len(data)}")
        self.at += count
        return data

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _length(self, marker: str) -> int:
        if marker not in _INTEGERS:
            raise FormatError(f"marker {marker!r} where a length should be at byte {self.at - 1}")
        length = int(self._number(_INTEGERS[marker]))
        if not 0 <= length <= self._size - self.at:
            raise FormatError(f"a length of {length} at byte {self.at}, more than there is")
        return length

    def _text(self, limit: int, marker: str = "") -> str:
        length = self._length(marker or self.marker())
        if length > limit:
            raise FormatError(f"a key of {length} bytes at byte {self.at}")
        return self._take(length).decode("utf-8", "backslashreplace")

    def _object(self, depth: int) -> dict[str, Any]:
        table: dict[str, Any] = {}
        while (marker := self.marker()) != "}":
            key = self._text(_MAX_KEY, marker)
            if key in table:
                raise FormatError(f"it has the key {key!r:.60} twice")
            table[key] = self.value(self.marker(), depth + 1)
        return table

    def _array(self, depth: int) -> Any:
        marker = self.marker()
        if marker == "$":
            return self._typed_array()
        if marker == "#":
            return [self.value(self.marker(), depth + 1) for _ in range(self._length(self.marker()))]
        items = []
        while marker != "]":
            items.append(self.value(marker, depth + 1))
            marker = self.marker()
        return items

    def _typed_array(self) -> Any:
        kind = self.marker()
        if kind not in _NUMBERS or self.marker() != "#":
            raise FormatError(f"a typed array of {kind!r} at byte {self.at}")
        count = self._length(self.marker())
        values = array(_NUMBERS[kind][1])
        values.frombytes(self._take(count * values.itemsize))
        if sys.byteorder == "little":
            values.byteswap()
        return values
