"""How an ONNX model is asked; see :class:`bentotool.predictspec.MakePredictor`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.errors import UsageError
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import ANY_AXES, Predictor

__all__ = ["predictor"]

_TENSOR = re.compile(r"tensor\((\w+)\)")
_CLASSES = re.compile(r"seq\(map\((?:int64|string),tensor\((float|double)\)\)\)")
"""What classifiers made of scikit-learn give unless they are told otherwise: for each row a probability by class."""
_DTYPES = {
    **{name: name for name in ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
    "float16": "float16",
    "float": "float32",
    "double": "float64",
    "string": "str",
}
_NO_ROWS = re.compile(r"seq|len|time|token|step|height|width|chan|node|edge|point", re.IGNORECASE)
"""In the symbol of a first axis: what it counts are no samples."""


def predictor(model: Any, _info: Mapping[str, Any]) -> Predictor:
    """An ``onnxruntime.InferenceSession`` by the names of its inputs and outputs.

    Raises:
        UsageError: it takes or gives what is no array.
    """
    from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

    inputs = tuple(_tensor(node, "takes") for node in model.get_inputs())
    outputs = tuple(_output(node) for node in model.get_outputs())
    names = [spec.name for spec in outputs]

    def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
        try:
            found = model.run(names, dict(arrays))
        except InvalidArgument as error:
            raise ValueError(str(error).partition("] : ")[2] or str(error)) from error
        return {name: _by_class(value) for name, value in zip(names, found, strict=True)}

    return Predictor(inputs, outputs, run, rows=_rows([*inputs, *outputs]))


def _tensor(node: Any, does: str) -> TensorSpec:
    found = _TENSOR.fullmatch(node.type)
    if found is None or found[1] not in _DTYPES:
        raise UsageError(f"it {does} {node.name!r}, a {node.type}, which is no array that travels")
    shape = tuple(size if isinstance(size, str) or (isinstance(size, int) and size >= 0) else None
                  for size in node.shape or ())  # fmt: skip
    return TensorSpec(node.name, _DTYPES[found[1]], shape)


def _output(node: Any) -> TensorSpec:
    classes = _CLASSES.fullmatch(node.type)
    if classes is not None:
        return TensorSpec(node.name, _DTYPES[classes[1]], (None, None))
    spec = _tensor(node, "gives")
    # ONNX Runtime does not tell an output of unknown rank from one of no axis
    return spec if spec.shape else TensorSpec(spec.name, spec.dtype, ANY_AXES)


def _rows(specs: Sequence[TensorSpec]) -> bool:
    """Whether the first axes are free, of one name where they have names, and of none that counts something else."""
    if any(not spec.shape or isinstance(spec.shape[0], int) or spec.shape == ANY_AXES for spec in specs):
        return False
    symbols = {str(spec.shape[0]) for spec in specs if spec.shape[0] is not None}
    return len(symbols) < 2 and not any(_NO_ROWS.search(symbol) for symbol in symbols)


def _by_class(value: Any) -> Any:
    """Probabilities by class, in the order in which the model has its classes, as rows of numbers."""
    if not isinstance(value, list):
        return value
    import numpy as np

    return np.array([list(row.values()) for row in value], dtype=np.float32)
