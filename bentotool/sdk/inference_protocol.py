"""Tensors as the Open Inference Protocol writes them: JSON that describes them, then their bytes one after the other.

https://github.com/kserve/open-inference-protocol, with its binary tensor data extension: the header
``Inference-Header-Content-Length`` says how many bytes are JSON. A tensor without bytes of its own has its elements in
the JSON, as ``data``. Texts are ``BYTES``: each is its length, as four little-endian bytes, and UTF-8.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from bentotool.sdk.tensors import Tensor

if TYPE_CHECKING:
    import numpy as np

__all__ = ["LENGTH_HEADER", "InferenceRequest", "datatype_of", "read_inference", "write_inference"]

LENGTH_HEADER = b"inference-header-content-length"
_MAX_HEADER = 64 * 1024 * 1024
_TYPES = {
    "BOOL": ("bool", 1),
    "UINT8": ("uint8", 1),
    "UINT16": ("uint16", 2),
    "UINT32": ("uint32", 4),
    "UINT64": ("uint64", 8),
    "INT8": ("int8", 1),
    "INT16": ("int16", 2),
    "INT32": ("int32", 4),
    "INT64": ("int64", 8),
    "FP16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "FP32": ("float32", 4),
    "FP64": ("float64", 8),
}
_NAMES = {name: code for code, (name, _) in _TYPES.items()}
_TEXTS = "BYTES"
_LENGTH = 4


def datatype_of(dtype: str) -> str:
    """The protocol's word for a type of elements, by numpy's name; ``BYTES`` for ``str``.

    Raises:
        TypeError: it has none.
    """
    if dtype not in _NAMES and dtype != "str":
        raise TypeError(f"an array of {dtype} has no form in the Open Inference Protocol")
    return _NAMES.get(dtype, _TEXTS)


@dataclass(frozen=True)
class InferenceRequest:
    """What a request asks.

    Attributes:
        tensors: by name; arrays where they came as JSON.
        id: to be sent back.
        binary: the answer's tensors as bytes, too.
        outputs: the names of those that are asked for, and whether as bytes; empty for all.
    """

    tensors: dict[str, Any]
    id: str | None
    binary: bool
    outputs: dict[str, bool] = field(default_factory=dict)

    def in_bytes(self, output: str) -> bool:
        """Whether one of the answer's tensors is to come as bytes."""
        return self.outputs.get(output, self.binary)


def read_inference(body: bytes | bytearray | memoryview, header_length: int) -> InferenceRequest:
    """Read a request.

    Raises:
        ValueError: not of this form, or it contradicts itself.
    """
    view = memoryview(body)
    if not 0 < header_length <= min(len(view), _MAX_HEADER):
        raise ValueError("Inference-Header-Content-Length does not lie in the body")
    try:
        head = msgspec.json.decode(view[:header_length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the inference header is not JSON: {error}") from None
    if not isinstance(head, dict) or not isinstance(head.get("inputs"), list):
        raise ValueError("the inference header has no inputs")
    position = header_length
    tensors: dict[str, Any] = {}
    for entry in head["inputs"]:
        name, value, position = _input(entry, view, position)
        if name in tensors:
            raise ValueError(f"input {name!r} is there twice")
        tensors[name] = value
    if position != len(view):
        raise ValueError("the body goes on after its last tensor")
    outputs: Any = head.get("outputs")
    each = outputs if isinstance(outputs, list) else []
    all_binary = _flag(head, "binary_data_output")
    wanted = {
        entry["name"]: _flag(entry, "binary_data") if _parameter(entry, "binary_data") is not None else all_binary
        for entry in each
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    }
    binary = all_binary or any(_flag(output, "binary_data") for output in each)
    identity = head.get("id")
    return InferenceRequest(tensors, identity if isinstance(identity, str) else None, binary, wanted)


def _parameter(entry: Any, name: str) -> Any:
    parameters = entry.get("parameters") if isinstance(entry, dict) else None
    return parameters.get(name) if isinstance(parameters, dict) else None


def _flag(entry: Any, name: str) -> bool:
    return bool(_parameter(entry, name))


def _input(entry: Any, view: memoryview, position: int) -> tuple[str, Any, int]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError("an input has no name")
    name, code, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    if not isinstance(code, str) or (code not in _TYPES and code != _TEXTS):
        raise ValueError(f"input {name!r} has elements of type {code!r}, which are not read here")
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"input {name!r} has no shape")
    length = _parameter(entry, "binary_data_size")
    if code == _TEXTS:
        return _texts(name, entry, shape, view[position:], length, position)
    kind, size = _TYPES[code]
    if length is None:
        data = entry.get("data")
        if not isinstance(data, list) or kind == "bfloat16":
            raise ValueError(f"input {name!r} has no data")
        return name, _from_list(name, data, kind, tuple(shape)), position
    if type(length) is not int or length != math.prod(shape) * size or position + length > len(view):
        raise ValueError(f"input {name!r} does not have as many bytes as it says")
    return name, Tensor(kind, tuple(shape), view[position : position + length]), position + length


def _texts(
    name: str, entry: Any, shape: list[int], rest: memoryview, length: Any, position: int
) -> tuple[str, Any, int]:
    import numpy as np

    if length is None:
        data = entry.get("data")
        found = _flat(data) if isinstance(data, list) else [None]
    elif type(length) is int and 0 <= length <= len(rest):
        found, position = _read_texts(name, rest[:length]), position + length
    else:
        raise ValueError(f"input {name!r} does not have as many bytes as it says")
    if not all(isinstance(text, str) for text in found) or len(found) != math.prod(shape):
        raise ValueError(f"input {name!r} is not {math.prod(shape)} texts")
    return name, np.array(found, dtype=object).reshape(shape), position


def _flat(data: list[Any]) -> list[Any]:
    while data and all(isinstance(item, list) for item in data):
        data = [inner for item in data for inner in item]
    return data


def _read_texts(name: str, data: memoryview) -> list[str]:
    texts, start = [], 0
    while start < len(data):
        size = int.from_bytes(data[start : start + _LENGTH], "little")
        start, end = start + _LENGTH, start + _LENGTH + size
        if end > len(data):
            raise ValueError(f"input {name!r} does not have as many bytes as it says")
        try:
            texts.append(bytes(data[start:end]).decode())
        except UnicodeDecodeError:
            raise ValueError(f"input {name!r} has bytes that are not texts in UTF-8") from None
        start = end
    return texts


def _from_list(name: str, data: list[Any], kind: str, shape: tuple[int, ...]) -> Any:
    import numpy as np

    try:
        return np.asarray(data, np.dtype(kind)).reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"input {name!r} is not an array of {kind} of shape {shape}: {error}") from None


def write_inference(
    model: str,
    tensors: Mapping[str, Tensor | np.ndarray[Any, Any]],
    request: InferenceRequest,
    version: str | None = None,
) -> tuple[list[bytes | memoryview], int]:
    """The pieces of an answer, and how long its JSON is.

    Args:
        model: its name.
        tensors: by name; texts as an array.
        request: what is answered.
        version: of the model.

    Raises:
        TypeError: an element type that the protocol does not have.
    """
    outputs: list[dict[str, Any]] = []
    pieces: list[bytes | memoryview] = []
    for name, tensor in tensors.items():
        code = datatype_of(tensor.dtype) if isinstance(tensor, Tensor) else _TEXTS
        entry: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "datatype": code}
        if request.in_bytes(name):
            piece = tensor.data if isinstance(tensor, Tensor) else _written_texts(tensor)
            entry["parameters"] = {"binary_data_size": memoryview(piece).nbytes}
            pieces.append(piece)
        else:
            entry["data"] = _elements(tensor) if isinstance(tensor, Tensor) else tensor.ravel().tolist()
        outputs.append(entry)
    head: dict[str, Any] = {"model_name": model}
    if version is not None:
        head["model_version"] = version
    head["outputs"] = outputs
    if request.id is not None:
        head["id"] = request.id
    text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode()
    return [text, *pieces], len(text)


def _written_texts(array: np.ndarray[Any, Any]) -> bytes:
    made = bytearray()
    for text in array.ravel().tolist():
        encoded = str(text).encode()
        made += len(encoded).to_bytes(_LENGTH, "little") + encoded
    return bytes(made)


def _elements(tensor: Tensor) -> list[Any]:
    import numpy as np

    flat = tensor.numpy().ravel()
    if flat.dtype.kind == "f" and not np.isfinite(flat).all():
        return [value if math.isfinite(value) else None for value in flat.tolist()]
    return list(flat.tolist())
