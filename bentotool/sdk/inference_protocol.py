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

__all__ = ["LENGTH_HEADER", "InferenceRequest", "datatype_of", "header_length", "read_inference", "write_inference"]

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
_ELEMENTS: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float, type(None)},  # null stands for NaN, as it does in answers
}
"""Kind of numpy's type → types of the elements in JSON that mean one of it."""
_WORDS = {str: "a text", bool: "true or false", int: "a number", float: "a fraction", dict: "an object"}


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


def header_length(raw: bytes | None, size: int) -> int:
    """How many bytes of a body are JSON.

    Args:
        raw: the header that says so; None where there is none, and all are.
        size: of the body.

    Raises:
        ValueError: it is no such number.
    """
    if raw is None:
        return size
    if not raw.isdigit() or len(raw) > 20 or not 0 < int(raw) <= min(size, _MAX_HEADER):
        raise ValueError("Inference-Header-Content-Length does not lie in the body")
    return int(raw)


def read_inference(body: bytes | bytearray | memoryview, length: bytes | None) -> InferenceRequest:
    """Read a request.

    Args:
        body: all of it.
        length: the header that says how much of it is JSON, where there is one.

    Raises:
        ValueError: not of this form, or it contradicts itself.
    """
    view = memoryview(body)
    position = header_length(length, len(view))
    try:
        head = msgspec.json.decode(view[:position])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the inference header is not JSON: {error}") from None
    if not isinstance(head, dict) or not isinstance(head.get("inputs"), list):
        raise ValueError("the inference header has no inputs")
    tensors: dict[str, Any] = {}
    for entry in head["inputs"]:
        name, value, position = _input(entry, view, position)
        if name in tensors:
            raise ValueError(f"input {name!r} is there twice")
        tensors[name] = value
    if position != len(view):
        raise ValueError("the body goes on after its last tensor")
    identity = head.get("id")
    if not isinstance(identity, str | None):
        raise ValueError("the id is not a text")
    all_binary = _flag(head, "the request", "binary_data_output", False)
    wanted = _outputs(head.get("outputs"), all_binary)
    return InferenceRequest(tensors, identity, all_binary or any(wanted.values()), wanted)


def _outputs(given: Any, all_binary: bool) -> dict[str, bool]:
    """The outputs that are asked for, and whether as bytes."""
    if given is None:
        return {}
    if not isinstance(given, list):
        raise ValueError("the outputs are not a list")
    wanted: dict[str, bool] = {}
    for entry in given:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise ValueError("an output has no name")
        if entry["name"] in wanted:
            raise ValueError(f"output {entry['name']!r} is there twice")
        wanted[entry["name"]] = _flag(entry, f"output {entry['name']!r}", "binary_data", all_binary)
    return wanted


def _parameter(entry: dict[str, Any], where: str, name: str) -> Any:
    parameters = entry.get("parameters")
    if not isinstance(parameters, dict | None):
        raise ValueError(f"the parameters of {where} are not an object")
    return None if parameters is None else parameters.get(name)


def _flag(entry: dict[str, Any], where: str, name: str, default: bool) -> bool:
    found = _parameter(entry, where, name)
    if not isinstance(found, bool | None):
        raise ValueError(f"{name} of {where} is not true or false")
    return default if found is None else found


def _input(entry: Any, view: memoryview, position: int) -> tuple[str, Any, int]:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ValueError("an input has no name")
    name, code, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    if not isinstance(code, str) or (code not in _TYPES and code != _TEXTS):
        raise ValueError(f"input {name!r} has elements of type {code!r}, which are not read here")
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"input {name!r} has no shape")
    length = _parameter(entry, f"input {name!r}", "binary_data_size")
    if code == _TEXTS:
        return _texts(name, entry, shape, view[position:], length, position)
    kind, size = _TYPES[code]
    if length is None:
        data = entry.get("data")
        if kind == "bfloat16":
            raise ValueError(f"input {name!r} is of BF16, which travels as bytes alone")
        if not isinstance(data, list):
            raise ValueError(f"input {name!r} has no data")
        return name, _from_list(name, data, code, tuple(shape)), position
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


def _from_list(name: str, data: list[Any], code: str, shape: tuple[int, ...]) -> Any:
    import numpy as np

    from bentotool.sdk.arrays import element_types, fitted

    dtype = np.dtype(_TYPES[code][0])
    try:
        wrong = element_types(data) - _ELEMENTS[dtype.kind]
        if wrong:
            raise ValueError(f"{_WORDS.get(min(wrong, key=str), 'null')} is among its elements")
        array = fitted(data, dtype, None)
        if array.ndim > 1 and [size for size in array.shape if size != 1] != [size for size in shape if size != 1]:
            raise ValueError(f"its lists are of shape {array.shape}")
        if array.size != math.prod(shape):
            raise ValueError(f"it has {array.size} element{'s' if array.size != 1 else ''}")
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"input {name!r} is no {code} of shape {shape}: {error}") from None


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
