"""Reads a TFLite model, a flatbuffer, bounds-checked; weights are never read.

Sources: https://flatbuffers.dev/internals/ and tensorflow/compiler/mlir/lite/schema/schema.fbs, whose order of fields
the numbers below are. Offsets may point anywhere, also several at the same place, so the number of reads and the text
that is kept are limited.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bentotool.interfaces import TensorSpec

_MAX_READS = 2_000_000
_MAX_TEXT = 1024 * 1024  # bytes of names, all together
_MAX_AXES = 64
_WINDOW = 4096
_CUSTOM = 32  # BuiltinOperator.CUSTOM

_DTYPES = (
    *("float32", "float16", "int32", "uint8", "int64", "str", "bool", "int16", "complex64", "int8", "float64"),
    *("complex128", "uint64", "resource", "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4"),
)


class FlatError(Exception):
    """The bytes are not what they should be; the text says what and where."""


@dataclass(frozen=True)
class LiteModel:
    """What was read.

    Args:
        inputs, outputs: of the first subgraph, with the names of the first signature where there is one.
        signatures: names of the signatures.
        builtin: number of different operations of TFLite's own.
        custom: names of the others; those of TensorFlow start with ``Flex``.
        operators: number of operations, all subgraphs together.
    """

    version: int
    description: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    signatures: tuple[str, ...]
    builtin: int
    custom: tuple[str, ...]
    operators: int
    subgraphs: int


def read_lite(path: Path) -> LiteModel:
    """Read and check the structure of a file; FlatError where it is no TFLite model."""
    with path.open("rb") as file:
        return _ModelReader(_Flat(file, path.stat().st_size)).model()


class _Table(NamedTuple):
    at: int
    vtable: int
    fields: int
    size: int


class _Flat:
    """Tables, vectors and texts of a flatbuffer of ``size`` bytes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self._window = b""
        self._start = 0
        self._reads_left = _MAX_READS
        self._text_left = _MAX_TEXT

    def number(self, letter: str, at: int) -> int:
        """A number in little-endian order; ``letter`` is struct's."""
        width = struct.calcsize("<" + letter)
        if not 0 <= at <= self.size - width:
            raise FlatError(f"truncated at byte {self.size}: something lies at byte {at}")
        self._reads_left -= 1
        if self._reads_left < 0:
            raise FlatError(f"more than {_MAX_READS} values")
        offset = at - self._start
        if not 0 <= offset <= len(self._window) - width:
            self._file.seek(at)
            self._window, self._start, offset = self._file.read(_WINDOW), at, 0
            if len(self._window) < width:
                raise FlatError(f"truncated at byte {at + len(self._window)}")
        value: int = struct.unpack_from("<" + letter, self._window, offset)[0]
        return value

    def follow(self, at: int) -> int:
        """Where the offset at a place leads."""
        target = at + self.number("I", at)
        if target == at or target >= self.size:
            raise FlatError(f"an offset at byte {at} leads to byte {target} of {self.size}")
        return target

    def table(self, at: int) -> _Table:
        vtable = at - self.number("i", at)
        length, size = self.number("H", vtable), self.number("H", vtable + 2)
        if length < 4 or length % 2 or vtable + length > self.size or size < 4 or at + size > self.size:
            raise FlatError(f"a damaged table at byte {at}")
        return _Table(at, vtable, (length - 4) // 2, size)

    def place(self, table: _Table, field: int) -> int | None:
        """Where a field of a table lies; None where it is left out."""
        if field >= table.fields:
            return None
        offset = self.number("H", table.vtable + 4 + 2 * field)
        if offset >= table.size:
            raise FlatError(f"a field outside of its table at byte {table.at}")
        return table.at + offset if offset else None

    def value(self, table: _Table, field: int, letter: str, default: int = 0) -> int:
        at = self.place(table, field)
        return default if at is None else self.number(letter, at)

    def vector(self, table: _Table, field: int, width: int) -> tuple[int, int]:
        """Start and number of the items of a vector; all of them lie inside the file."""
        at = self.place(table, field)
        if at is None:
            return 0, 0
        start = self.follow(at)
        count = self.number("I", start)
        if count * width > self.size - start - 4:
            raise FlatError(f"truncated at byte {self.size}: {count} items at byte {start}")
        return start + 4, count

    def tables(self, table: _Table, field: int) -> list[int]:
        """Places of the tables of a vector."""
        start, count = self.vector(table, field, 4)
        if count > self._reads_left:
            raise FlatError(f"{count} items at byte {start}, more than {_MAX_READS} values")
        return [self.follow(start + 4 * index) for index in range(count)]

    def text(self, table: _Table, field: int) -> str:
        start, count = self.vector(table, field, 1)
        self._text_left -= count
        if self._text_left < 0:
            raise FlatError(f"more than {_MAX_TEXT} bytes of names")
        self._file.seek(start)
        return self._file.read(count).decode("utf-8", "replace")


class _Graph(NamedTuple):
    tensors: list[int]
    inputs: list[int]
    outputs: list[int]
    operators: int


class _ModelReader:
    def __init__(self, flat: _Flat) -> None:
        self._flat = flat

    def model(self) -> LiteModel:
        flat = self._flat
        if flat.number("I", 4) != int.from_bytes(b"TFL3", "little"):
            raise FlatError("it does not have TFL3 at byte 4")
        root = flat.table(flat.follow(0))
        version = flat.value(root, 0, "I")
        if version != 3:
            raise FlatError(f"it states version {version}; 3 is known")
        codes = [self._code(flat.table(at)) for at in flat.tables(root, 1)]
        buffers = self._buffers(root)
        graphs = [self._graph(flat.table(at), len(codes), buffers) for at in flat.tables(root, 2)]
        if not graphs or not graphs[0].outputs:
            raise FlatError("it has no graph with outputs")
        signatures = [self._signature(flat.table(at)) for at in flat.tables(root, 7)]
        names = next((names for _, subgraph, names in signatures if subgraph == 0), ({}, {}))
        return LiteModel(
            version=version,
            description=flat.text(root, 3),
            inputs=self._specs(graphs[0], graphs[0].inputs, names[0]),
            outputs=self._specs(graphs[0], graphs[0].outputs, names[1]),
            signatures=tuple(name for name, _, _ in signatures),
            builtin=len({code for code, _ in codes if code != _CUSTOM}),
            custom=tuple(sorted({name for code, name in codes if code == _CUSTOM})),
            operators=sum(graph.operators for graph in graphs),
            subgraphs=len(graphs),
        )

    def _code(self, table: _Table) -> tuple[int, str]:
        # the first field could hold 127 operations, and the fourth holds the others
        code = max(self._flat.value(table, 0, "b"), self._flat.value(table, 3, "i"))
        return code, self._flat.text(table, 1) if code == _CUSTOM else ""

    def _buffers(self, root: _Table) -> int:
        places = self._flat.tables(root, 4)
        for at in places:
            table = self._flat.table(at)
            self._flat.vector(table, 0, 1)
            # of a model of more than 2 GiB, the weights lie behind the flatbuffer
            offset, size = self._flat.value(table, 1, "Q"), self._flat.value(table, 2, "Q")
            if offset > 1 and offset + size > self._flat.size:
                raise FlatError(f"truncated at byte {self._flat.size}: {size} bytes of weights at byte {offset}")
        return len(places)

    def _graph(self, table: _Table, codes: int, buffers: int) -> _Graph:
        flat = self._flat
        tensors = flat.tables(table, 0)
        for at in tensors:
            if flat.value(flat.table(at), 2, "I") >= max(buffers, 1):
                raise FlatError(f"a tensor without its buffer at byte {at}")
        operators = flat.tables(table, 3)
        for at in operators:
            if flat.value(flat.table(at), 0, "I") >= codes:
                raise FlatError(f"an operation of no known kind at byte {at}")
        ends = [self._integers(table, field) for field in (1, 2)]
        if any(not 0 <= index < len(tensors) for index in (*ends[0], *ends[1])):
            raise FlatError(f"an input or output that is no tensor, of the graph at byte {table.at}")
        return _Graph(tensors, ends[0], ends[1], len(operators))

    def _integers(self, table: _Table, field: int) -> list[int]:
        start, count = self._flat.vector(table, field, 4)
        if count > 1 << 16:
            raise FlatError(f"{count} numbers at byte {start}")
        return [self._flat.number("i", start + 4 * index) for index in range(count)]

    def _signature(self, table: _Table) -> tuple[str, int, tuple[dict[int, str], dict[int, str]]]:
        """Name, subgraph, and the names of inputs and outputs by tensor."""
        names = (self._names(table, 0), self._names(table, 1))
        return self._flat.text(table, 2), self._flat.value(table, 4, "I"), names

    def _names(self, table: _Table, field: int) -> dict[int, str]:
        maps = [self._flat.table(at) for at in self._flat.tables(table, field)]
        return {self._flat.value(item, 1, "I"): self._flat.text(item, 0) for item in maps}

    def _specs(self, graph: _Graph, indexes: list[int], names: dict[int, str]) -> tuple[TensorSpec, ...]:
        return tuple(self._spec(self._flat.table(graph.tensors[index]), names.get(index, "")) for index in indexes)

    def _spec(self, table: _Table, name: str) -> TensorSpec:
        code = self._flat.value(table, 1, "b")
        shape = self._integers(table, 7) or self._integers(table, 0)
        if len(shape) > _MAX_AXES:
            raise FlatError(f"a tensor of {len(shape)} axes at byte {table.at}")
        dtype = _DTYPES[code] if 0 <= code < len(_DTYPES) else f"unknown({code})"
        axes = tuple(length if length >= 0 else None for length in shape)
        return TensorSpec(name or self._flat.text(table, 3), dtype, axes)
