"""The parts of a SavedModel that a model store wants to know.

Field numbers are those of tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
tensorflow/core/framework/{graph,node_def,function,attr_value,tensor_shape}.proto. A message that a file gives twice
is read twice, as TensorFlow merges the two: no node is overlooked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from bentotool.interfaces import TensorSpec
from bentotool_tensorflow.loader import CONDITIONAL, outward
from bentotool_tensorflow.wire import BYTES, Field, WireError, WireReader

_MAX_REASONS = 20
_MAX_KEPT = 1024 * 1024  # bytes of tags, names of signatures and tensors, and assets, all together
_MAX_AXES = 256  # TensorFlow's own limit is 254

# tensorflow/core/framework/types.proto
_DTYPES = (
    *("undefined", "float32", "float64", "int32", "uint8", "int16", "int8", "str", "complex64", "int64", "bool"),
    *("qint8", "quint8", "qint32", "bfloat16", "qint16", "quint16", "uint16", "complex128", "float16", "resource"),
    *("variant", "uint32", "uint64", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz"),
    *("float8_e5m2fnuz", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"),
)


@dataclass
class Signature:
    """One function that a model offers, with its tensors by name."""

    inputs: dict[str, TensorSpec] = field(default_factory=dict)
    outputs: dict[str, TensorSpec] = field(default_factory=dict)
    method: str = ""


@dataclass
class MetaGraph:
    """One graph of a SavedModel.

    Args:
        ops: how often each operation occurs, functions included.
        reasons: why it does more than compute.
        assets: file names in ``assets/``, as the graph writes them.
    """

    tags: list[str] = field(default_factory=list)
    tensorflow_version: str = ""
    signatures: dict[str, Signature] = field(default_factory=dict)
    ops: Counter[str] = field(default_factory=Counter)
    functions: int = 0
    reasons: dict[str, None] = field(default_factory=dict)
    assets: list[str] = field(default_factory=list)


def read_saved_model(file: BinaryIO, size: int) -> list[MetaGraph]:
    """The graphs of a ``saved_model.pb`` of ``size`` bytes; WireError where it is none."""
    graphs, version = _Reader(WireReader(file, size)).read()
    if not graphs:
        raise WireError("it has no graph")
    if version not in (0, 1):
        raise WireError(f"it states schema version {version}")
    if not any(graph.tags and (graph.ops or graph.functions) for graph in graphs):
        raise WireError("its graphs have no tags or no operations")
    return graphs


class _Reader:
    def __init__(self, wire: WireReader) -> None:
        self._wire = wire
        self._kept_left = _MAX_KEPT

    def read(self) -> tuple[list[MetaGraph], int]:
        graphs, version = [], 0
        for item in self._wire.fields(0, self._wire.size):
            if item.number == 1:
                version = self._wire.number(item)
            elif item.number == 2:
                graphs.append(self._meta_graph(item))
        return graphs, version

    def _meta_graph(self, item: Field) -> MetaGraph:
        graph = MetaGraph()
        for part in self._wire.inside(item):
            if part.number == 1:
                self._info(part, graph)
            elif part.number == 2:
                self._graph_def(part, graph)
            elif part.number == 5:
                key, values = self._entry(part)
                for value in values:
                    self._signature(value, graph.signatures.setdefault(key, Signature()))
            elif part.number == 6:
                graph.assets += [self._kept(name) for name in self._wire.inside(part) if name.number == 2]
        return graph

    def _info(self, item: Field, graph: MetaGraph) -> None:
        for part in self._wire.inside(item):
            if part.number == 4:
                graph.tags.append(self._kept(part))
            elif part.number == 5:
                graph.tensorflow_version = self._kept(part)

    def _graph_def(self, item: Field, graph: MetaGraph) -> None:
        for part in self._wire.inside(item):
            if part.number == 1:
                self._node(part, graph)
            elif part.number == 2:
                for function in self._wire.inside(part):
                    if function.number == 1:
                        graph.functions += 1
                        for inner in self._wire.inside(function):
                            if inner.number == 3:
                                self._node(inner, graph)

    def _node(self, item: Field, graph: MetaGraph) -> None:
        op, attributes = "", []
        for part in self._wire.inside(item):
            if part.number == 2:
                op = self._wire.text(part)
            elif part.number == 5:
                attributes.append(part)
        graph.ops[op] += 1
        reason = outward(op, lambda name: self._texts(attributes, name) if op in CONDITIONAL else [])
        if reason and len(graph.reasons) < _MAX_REASONS:
            graph.reasons[reason] = None

    def _texts(self, attributes: list[Field], name: str) -> list[bytes] | None:
        found = []
        for item in attributes:
            key, values = self._entry(item)
            for part in (part for value in values for part in self._wire.inside(value) if key == name):
                if part.number != 2 or part.kind != BYTES:
                    return None
                found.append(self._wire.text(part).encode())
        return found

    def _entry(self, item: Field) -> tuple[str, list[Field]]:
        """Key and values of an entry of a map with text for keys."""
        key, values = "", []
        for part in self._wire.inside(item):
            if part.number == 1:
                key = self._kept(part)
            elif part.number == 2:
                values.append(part)
        return key, values

    def _kept(self, item: Field) -> str:
        """A text that goes into the description of the model."""
        self._kept_left -= item.end - item.start
        if self._kept_left < 0:
            raise WireError(f"more than {_MAX_KEPT} bytes of names")
        return self._wire.text(item)

    def _signature(self, item: Field, signature: Signature) -> None:
        for part in self._wire.inside(item):
            if part.number in (1, 2):
                key, values = self._entry(part)
                table = signature.inputs if part.number == 1 else signature.outputs
                table[key] = self._tensor(key, values)
            elif part.number == 3:
                signature.method = self._kept(part)

    def _tensor(self, name: str, values: list[Field]) -> TensorSpec:
        dtype = "undefined"
        shape: tuple[int | str | None, ...] = ()
        for part in self._parts(values):
            if part.number == 2:
                dtype = _dtype(self._wire.number(part))
            elif part.number == 3:
                shape = self._shape(part)
            elif part.number == 5:
                dtype = "composite"
        return TensorSpec(name, dtype, shape)

    def _parts(self, values: list[Field]) -> Iterator[Field]:
        for value in values:
            yield from self._wire.inside(value)

    def _shape(self, item: Field) -> tuple[int | str | None, ...]:
        axes: list[int | str | None] = []
        for part in self._wire.inside(item):
            if part.number == 2:
                axes.append(self._axis(part))
            elif part.number == 3 and self._wire.number(part):
                return ("...",)
            if len(axes) > _MAX_AXES:
                raise WireError(f"a tensor of more than {_MAX_AXES} axes at byte {item.start}")
        return tuple(axes)

    def _axis(self, item: Field) -> int | str | None:
        size, name = 0, ""
        for part in self._wire.inside(item):
            if part.number == 1:
                size = self._wire.number(part)
            elif part.number == 2:
                name = self._kept(part)
        return size if size >= 0 else name or None


def _dtype(code: int) -> str:
    return _DTYPES[code] if 0 <= code < len(_DTYPES) else f"unknown({code})"
