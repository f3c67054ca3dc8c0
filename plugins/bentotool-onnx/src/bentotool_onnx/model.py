"""The parts of an ONNX ModelProto that a model store wants to know.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from bentotool.interfaces import TensorSpec
from bentotool_onnx.wire import BYTES, VARINT, Field, WireError, WireReader

_MAX_DEPTH = 32  # graphs within graphs (loops, conditions), types within types
_MAX_IR_VERSION = 1000
_EXTERNAL = 1

_DTYPES = (
    *("undefined", "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "str", "bool", "float16"),
    *("float64", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz"),
    *(
        "float8_e5m2",
        "float8_e5m2fnuz",
        "uint4",
        "int4",
        "float4_e2m1",
        "float8_e8m0",
        "uint2",
        "int2",
        "float6_e2m3",
        "float6_e3m2",
    ),
)


@dataclass(frozen=True)
class ExternalData:
    """Weights in another file: ``location`` as the model writes it, with what it needs there, in bytes."""

    location: str
    offset: int
    length: int


@dataclass(frozen=True)
class OnnxModel:
    """What was read; see :func:`read_model`."""

    ir_version: int
    producer: str
    opsets: dict[str, int]
    graph: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    properties: dict[str, str]
    external: tuple[ExternalData, ...]


@dataclass
class _Graph:
    name: str = ""
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    initializers: set[str] = field(default_factory=set)


def read_model(file: BinaryIO, size: int) -> OnnxModel:
    """Read the structure of an ONNX file of ``size`` bytes; WireError where it is none."""
    return _ModelReader(WireReader(file, size)).model()


class _ModelReader:
    def __init__(self, wire: WireReader) -> None:
        self._wire = wire
        self._external: dict[ExternalData, None] = {}
        self._ir_version = 0
        self._producer = {2: "", 3: ""}
        self._opsets: dict[str, int] = {}
        self._properties: dict[str, str] = {}
        self._main: _Graph | None = None

    def model(self) -> OnnxModel:
        for item in self._wire.fields(0, self._wire.size):
            if item.number == 25:
                self._nodes(item, 7, 0)
            elif item.number == 7:
                self._main = self._graph(item, 0)
            else:
                self._header(item)
        graph = self._main
        if not 0 < self._ir_version < _MAX_IR_VERSION:
            raise WireError("it states no IR version")
        if graph is None:
            raise WireError("it has no graph")
        if not self._opsets:
            raise WireError("it imports no operator set")
        if not graph.outputs:
            raise WireError("its graph has no outputs")
        return OnnxModel(
            ir_version=self._ir_version,
            producer=" ".join(part for part in self._producer.values() if part),
            opsets=self._opsets,
            graph=graph.name,
            inputs=tuple(spec for spec in graph.inputs if spec.name not in graph.initializers),
            outputs=tuple(graph.outputs),
            properties=self._properties,
            external=tuple(self._external),
        )

    def _header(self, item: Field) -> None:
        if item.number == 1:
            self._ir_version = _number(item)
        elif item.number in self._producer:
            self._producer[item.number] = self._wire.text(item)
        elif item.number == 8:
            domain, version = self._opset(item)
            self._opsets[domain] = version
        elif item.number == 14:
            key, value = self._entry(item)
            self._properties[key] = value

    def _inside(self, item: Field) -> Iterator[Field]:
        if item.kind != BYTES:
            raise WireError(f"a number where a message should be at byte {item.start}")
        return self._wire.fields(item.start, item.end)

    def _opset(self, item: Field) -> tuple[str, int]:
        domain, version = "", 0
        for part in self._inside(item):
            if part.number == 1:
                domain = self._wire.text(part)
            elif part.number == 2:
                version = _number(part)
        return domain or "ai.onnx", version

    def _entry(self, item: Field) -> tuple[str, str]:
        texts = {1: "", 2: ""}
        for part in self._inside(item):
            if part.number in texts:
                texts[part.number] = self._wire.text(part)
        return texts[1], texts[2]

    def _graph(self, item: Field, depth: int) -> _Graph:
        if depth > _MAX_DEPTH:
            raise WireError(f"graphs nested more than {_MAX_DEPTH} deep")
        graph = _Graph()
        for part in self._inside(item):
            if part.number == 1:
                self._node(part, depth)
            elif part.number == 2:
                graph.name = self._wire.text(part)
            elif part.number == 5:
                graph.initializers.add(self._tensor(part))
            elif part.number == 15:
                graph.initializers.add(self._sparse(part))
            elif part.number in (11, 12) and depth == 0:
                (graph.inputs if part.number == 11 else graph.outputs).append(self._value(part))
        return graph

    def _nodes(self, item: Field, number: int, depth: int) -> None:
        for part in self._inside(item):
            if part.number == number:
                self._node(part, depth)

    def _node(self, item: Field, depth: int) -> None:
        """Weights may also hide in a node's attributes: tensors (5, 10), graphs (6, 11), sparse tensors (22, 23)."""
        for part in self._inside(item):
            if part.number != 5:
                continue
            for value in self._inside(part):
                if value.number in (5, 10) and value.kind == BYTES:
                    self._tensor(value)
                elif value.number in (6, 11) and value.kind == BYTES:
                    self._graph(value, depth + 1)
                elif value.number in (22, 23) and value.kind == BYTES:
                    self._sparse(value)

    def _sparse(self, item: Field) -> str:
        name = ""
        for part in self._inside(item):
            if part.number == 1:
                name = self._tensor(part)
            elif part.number == 2:
                self._tensor(part)
        return name

    def _tensor(self, item: Field) -> str:
        name, location, entries = "", 0, {}
        for part in self._inside(item):
            if part.number == 8:
                name = self._wire.text(part)
            elif part.number == 13:
                key, value = self._entry(part)
                entries[key] = value
            elif part.number == 14:
                location = _number(part)
        if location == _EXTERNAL or entries:
            self._external[_external(name, entries)] = None
        return name

    def _value(self, item: Field) -> TensorSpec:
        name, dtype = "", "undefined"
        shape: tuple[int | str | None, ...] = ()
        for part in self._inside(item):
            if part.number == 1:
                name = self._wire.text(part)
            elif part.number == 2:
                dtype, shape = self._type(part, 0)
        return TensorSpec(name, dtype, shape)

    def _type(self, item: Field, depth: int) -> tuple[str, tuple[int | str | None, ...]]:
        if depth > _MAX_DEPTH:
            raise WireError(f"types nested more than {_MAX_DEPTH} deep")
        for part in self._inside(item):
            if part.number in (1, 8):
                return self._tensor_type(part)
            if part.number == 5:
                return self._map_type(part, depth), ()
            if part.number in (4, 9):
                inner = next((self._type(i, depth + 1)[0] for i in self._inside(part) if i.number == 1), "undefined")
                return f"{'sequence' if part.number == 4 else 'optional'}({inner})", ()
        return "undefined", ()

    def _map_type(self, item: Field, depth: int) -> str:
        key, value = "undefined", "undefined"
        for part in self._inside(item):
            if part.number == 1:
                key = _dtype(_number(part))
            elif part.number == 2:
                value = self._type(part, depth + 1)[0]
        return f"map({key},{value})"

    def _tensor_type(self, item: Field) -> tuple[str, tuple[int | str | None, ...]]:
        dtype = "undefined"
        shape: list[int | str | None] = []
        for part in self._inside(item):
            if part.number == 1:
                dtype = _dtype(_number(part))
            elif part.number == 2:
                shape = [self._dimension(dim) for dim in self._inside(part) if dim.number == 1]
        return dtype, tuple(shape)

    def _dimension(self, item: Field) -> int | str | None:
        for part in self._inside(item):
            if part.number == 1:
                length = _number(part)
                return length if length < 1 << 63 else None  # a negative length, which some writers put for "unknown"
            if part.number == 2:
                return self._wire.text(part) or None
        return None


def _number(item: Field) -> int:
    if item.kind != VARINT:
        raise WireError(f"no number where one should be at byte {item.start}")
    return item.value


def _dtype(code: int) -> str:
    return _DTYPES[code] if code < len(_DTYPES) else f"unknown({code})"


def _external(name: str, entries: dict[str, str]) -> ExternalData:
    numbers = {}
    for key in ("offset", "length"):
        text = entries.get(key, "0")
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise WireError(f"the {key} of external tensor {name!r} is {text!r}")
        numbers[key] = int(text)
    return ExternalData(entries.get("location", ""), numbers["offset"], numbers["length"])
