"""Reads protobuf's wire format from a file, bounds-checked and in constant memory.

Source: https://protobuf.dev/programming-guides/encoding/. Fields that are not asked for (weights, mostly) are
skipped by seeking, so constants cost nothing. Whatever the bytes are, reading ends:
every field lies inside its parent, their number is limited, and so is the text that is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_MAX_FIELDS = 10_000_000  # a node has about twelve; half a minute of reading
_MAX_TEXT = 64 * 1024 * 1024  # bytes of names that are read, all together
_WINDOW = 16 * 1024
_MAX_VARINT_BYTES = 10


class WireError(Exception):
    """The bytes are not what they should be; the text says what and where."""


class Field(NamedTuple):
    """One field of a message.

    ``value`` is the number of a VARINT field, else 0; ``start`` and ``end`` (bytes from the file's start) span the
    content.
    """

    number: int
    kind: int
    value: int
    start: int
    end: int


class WireReader:
    """Fields and texts of a file of ``size`` bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self._window = b""
        self._window_start = 0
        self._fields_left = _MAX_FIELDS
        self._text_left = _MAX_TEXT

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message between two positions."""
        position = start
        while position < end:
            if not self._fields_left:
                raise WireError(f"more than {_MAX_FIELDS} fields")
            self._fields_left -= 1
            field = self._field(position, end)
            yield field
            position = field.end

    def inside(self, field: Field) -> Iterator[Field]:
        """The fields of the message that a field holds."""
        if field.kind != BYTES:
            raise WireError(f"a number where a message should be at byte {field.start}")
        return self.fields(field.start, field.end)

    def number(self, field: Field) -> int:
        """The signed 64-bit number that a field holds."""
        if field.kind != VARINT:
            raise WireError(f"no number where one should be at byte {field.start}")
        return field.value - (1 << 64) if field.value >> 63 else field.value

    def text(self, field: Field) -> str:
        """A field's content as UTF-8 text."""
        length = field.end - field.start
        if field.kind != BYTES:
            raise WireError(f"a number where text should be at byte {field.start}")
        if length > self._text_left:
            raise WireError(f"more than {_MAX_TEXT} bytes of names and metadata")
        self._text_left -= length
        try:
            return self._bytes(field.start, length).decode("utf-8")
        except UnicodeDecodeError:
            raise WireError(f"text that is not UTF-8 at byte {field.start}") from None

    def _field(self, position: int, end: int) -> Field:
        key, at = self._varint(position, end)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise WireError(f"field number {number} at byte {position}")
        if kind == VARINT:
            value, stop = self._varint(at, end)
            return Field(number, kind, value, at, stop)
        if kind == BYTES:
            length, at = self._varint(at, end)
        elif kind in _FIXED_SIZES:
            length = _FIXED_SIZES[kind]
        else:  # 3 and 4 were groups, which TensorFlow never used
            raise WireError(f"wire type {kind} at byte {position}")
        if length > end - at:
            where = f"truncated at byte {self.size}" if end == self.size else f"ends at byte {end}"
            raise WireError(f"{where}: a field at byte {position} is {length} bytes long")
        return Field(number, kind, 0, at, at + length)

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for index in range(_MAX_VARINT_BYTES):
            if position >= end:
                raise WireError(f"truncated at byte {end}" if end == self.size else f"a field ends early at byte {end}")
            byte = self._byte(position)
            position += 1
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value & 0xFFFF_FFFF_FFFF_FFFF, position
        raise WireError(f"a number of more than 64 bits at byte {position - _MAX_VARINT_BYTES}")

    def _byte(self, position: int) -> int:
        offset = position - self._window_start
        if not 0 <= offset < len(self._window):
            self._window = self._bytes(position, min(_WINDOW, self.size - position))
            self._window_start, offset = position, 0
        return self._window[offset]

    def _bytes(self, start: int, length: int) -> bytes:
        self._file.seek(start)
        data = self._file.read(length)
        if len(data) < length:
            raise WireError(f"truncated at byte {start + len(data)}")
        return data
