"""How an ONNX model is asked; see :class:`bentotool.predictspec.MakePredictor`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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
_PREFIX = re.compile(r"\[ONNXRuntimeError\] : \d+ : \w+ : ")
_OPERATOR = re.compile(
    r"Non-zero status code returned while running (\S+) node\. Name:'.*?' Status Message: ", re.DOTALL
)
_SOURCE = re.compile(r"\S+\.(?:h|cc|hpp|cpp|cu|cuh):\d+ ")
_FUNCTION = re.compile(r"[^()]*::[^()]*\([^()]*\)(?: const)? |\w+ (?=\w)")
"""The function that speaks: with its arguments, or its bare name."""
_MACHINE = re.compile(
    r"allocat|out of memory|cuda|cudnn|cublas|tensorrt|\bhip\b|EP_FAIL|miopen|rocblas|device", re.IGNORECASE
)
_ROWS = 3
_NO_ROWS = re.compile(r"seq|len|time|token|step|height|width|chan|node|edge|point", re.IGNORECASE)
"""In the symbol of a first axis: what it counts are no samples."""


def predictor(model: Any, _info: Mapping[str, Any]) -> Predictor:
    """An ``onnxruntime.InferenceSession`` by the names of its inputs and outputs.

    Raises:
        UsageError: it takes or gives what is no array.
    """
    from onnxruntime import RunOptions

    quiet = RunOptions()
    quiet.log_severity_level = 4  # what a request is refused for is told to who sent it, and not on standard error
    inputs = tuple(_tensor(node, "takes") for node in model.get_inputs())
    outputs = tuple(_output(node) for node in model.get_outputs())
    names = [spec.name for spec in outputs]

    def run(arrays: Mapping[str, Any]) -> dict[str, Any]:
        try:
            found = model.run(names, dict(arrays), quiet)
        except Exception as error:  # its own have no base in common
            if not _PREFIX.match(str(error)):
                raise
            raise _failure(str(error)) from error
        return {name: _by_class(value) for name, value in zip(names, found, strict=True)}

    return Predictor(inputs, outputs, run, rows=_rows([*inputs, *outputs]) and _one_by_one(run, inputs, outputs))


def _failure(text: str) -> Exception:
    """What an operator of the graph refuses is the fault of the input, unless it speaks of memory or of a device."""
    if text.startswith("[ONNXRuntimeError] : 2 ") or (_OPERATOR.search(text) and not _MACHINE.search(text)):
        return ValueError(_said(text))
    return RuntimeError(_said(text))


def _said(text: str) -> str:
    """The part of ONNX Runtime's message that says what is wrong, and in which operator."""
    text = " ".join(_PREFIX.sub("", text, count=1).split())
    operator = _OPERATOR.search(text)
    if operator is None:
        return text
    said = text[operator.end() :]
    if (source := _SOURCE.match(said)) is not None:
        said = said[source.end() :]
        _condition, was, meaning = said.partition(" was false. ")
        function = _FUNCTION.match(said)
        said = meaning if was else said[function.end() :] if function is not None else said
    return f"{operator[1]}: {said}"


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
    """Whether the first axes are free, of one name where they have names, and of none that counts something else.

    Where they have no names, :func:`_one_by_one` looks further.
    """
    if any(not spec.shape or isinstance(spec.shape[0], int) or spec.shape == ANY_AXES for spec in specs):
        return False
    symbols = {str(spec.shape[0]) for spec in specs if spec.shape[0] is not None}
    return len(symbols) < 2 and not any(_NO_ROWS.search(symbol) for symbol in symbols)


def _one_by_one(
    run: Callable[[Mapping[str, Any]], Mapping[str, Any]], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> bool:
    """Whether a model whose first axes have no names answers each of some rows as it answers that row alone.

    One whose axes all have names is not asked: it says so. One that refuses the rows made up here is not known to.
    """
    if all(spec.shape[0] is not None for spec in (*inputs, *outputs)):
        return True
    rows = {spec.name: _made_up(spec) for spec in inputs}
    try:
        alone = [run({name: array[number : number + 1] for name, array in rows.items()}) for number in range(_ROWS)]
        for start in (0, 1):
            found = run({name: array[start:] for name, array in rows.items()})
            for name, array in found.items():
                if len(array) != _ROWS - start:
                    return False
                each = [one[name] for one in alone[start:]]
                if not all(_alike(array[number : number + 1], one) for number, one in enumerate(each)):
                    return False
    except (ValueError, RuntimeError, TypeError):
        return False
    return True


def _made_up(spec: TensorSpec) -> Any:
    """Three rows: of ones, of zeros and of ones and zeros; 1 for each length that is free."""
    import numpy as np

    shape = [_ROWS, *(size if isinstance(size, int) else 1 for size in spec.shape[1:])]
    rows = np.ones(shape, dtype=object if spec.dtype == "str" else spec.dtype)
    rows[1] = 0
    rows.reshape(_ROWS, -1)[2, 1::2] = 0
    return rows.astype(str).astype(object) if spec.dtype == "str" else rows


def _alike(one: Any, other: Any) -> bool:
    import numpy as np

    if one.shape != other.shape or one.dtype.kind != "f":
        return np.array_equal(one, other)
    return np.allclose(one, other, rtol=1e-2, atol=1e-3, equal_nan=True)


def _by_class(value: Any) -> Any:
    """Probabilities by class, in the order in which the model has its classes, as rows of numbers."""
    if not isinstance(value, list):
        return value
    import numpy as np

    return np.array([list(row.values()) for row in value], dtype=np.float32)
