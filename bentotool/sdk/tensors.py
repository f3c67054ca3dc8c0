"""Named tensors in one body: ``application/vnd.bentotool.tensors``, which is a safetensors file.

The format is https://huggingface.co/docs/safetensors: eight bytes with the length of a JSON header, the header, the
elements of all tensors one after the other in little-endian order. It holds numbers and text, so reading it runs
nothing. What is not a tensor travels beside them as JSON, in the header's ``__metadata__`` under the key ``json``.

The standard library alone; numpy is imported when an array is made of a tensor.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MEDIA_TYPE", "Tensor", "decode_tensors", "encode_tensors", "tensor_of"]

MEDIA_TYPE = "application/vnd.bentotool.tensors"
_MAX_HEADER = 8 * 1024 * 1024
_MAX_DIMENSIONS = 32

_NUMPY = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}
"""Element type in the header → numpy's name."""
_HEADER_NAMES = {name: code for code, name in _NUMPY.items()} | {"bfloat16": "BF16"}
_SIZES = {"BOOL": 1, "BF16": 2} | {code: int(code[1:]) // 8 for code in _NUMPY if code != "BOOL"}


@dataclass(frozen=True)
class Tensor:
    """One tensor as it stands in a body.

    Attributes:
        dtype: of an element, by numpy's name; ``bfloat16`` too.
        shape: size of each dimension.
        data: the elements in row-major, little-endian order.
    """

    dtype: str
    shape: tuple[int, ...]
    data: memoryview

    def numpy(self) -> np.ndarray[Any, Any]:
        """As an array over the same memory; bfloat16, which numpy does not have, is widened to float32."""
        import numpy as np

        if self.dtype == "bfloat16":
            wide = np.frombuffer(self.data, "<u2").astype("<u4") << 16
            return wide.view("<f4").reshape(self.shape)
        return np.frombuffer(self.data, np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)


def tensor_of(array: np.ndarray[Any, Any]) -> Tensor:
    """A numpy array as a tensor; copied only where it is not in row-major, little-endian order.

    Raises:
        TypeError: elements of a type that has no place in the format (text, objects, dates).
    """
    import numpy as np

    if array.dtype.name not in _HEADER_NAMES:
        raise TypeError(f"an array of {array.dtype} has no binary form")
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and sys.byteorder == "big"):
        array = array.astype(array.dtype.newbyteorder("<"))
    shape = array.shape  # ascontiguousarray gives a scalar a dimension
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return Tensor(array.dtype.name, shape, flat.data)


def encode_tensors(tensors: Mapping[str, Tensor], rest: bytes | None = None) -> list[bytes | memoryview]:
    """The pieces of a body, to be sent one after the other; the elements are not copied.

    Args:
        tensors: by name.
        rest: JSON of what is not a tensor.

    Raises:
        TypeError: an element type that the format does not have.
        ValueError: the tensors' names and `rest` are larger than a header may be.
    """
    header: dict[str, Any] = {} if rest is None else {"__metadata__": {"json": rest.decode()}}
    pieces: list[bytes | memoryview] = []
    offset = 0
    # the widest elements come first, so that each tensor starts at a multiple of its element's size
    for name, tensor in sorted(tensors.items(), key=lambda item: -_SIZES.get(_HEADER_NAMES.get(item[1].dtype, ""), 0)):
        if tensor.dtype not in _HEADER_NAMES:
            raise TypeError(f"an array of {tensor.dtype} has no binary form")
        end = offset + tensor.data.nbytes
        entry = {"dtype": _HEADER_NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        header[name] = entry
        pieces.append(tensor.data)
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER:
        raise ValueError(f"a header of {len(text)} bytes is too large for a binary body")
    return [len(text).to_bytes(8, "little") + text, *pieces]


def decode_tensors(body: bytes | bytearray | memoryview) -> tuple[dict[str, Tensor], bytes | None]:
    """The tensors of a body, over its memory, and the JSON beside them.

    Every number in the header is checked against the body before memory is touched.

    Raises:
        ValueError: not a safetensors body, or one that contradicts itself.
    """
    view = memoryview(body)
    if len(view) < 8:
        raise ValueError("the body ends before its header")
    length = int.from_bytes(view[:8], "little")
    if length > _MAX_HEADER or length > len(view) - 8:
        raise ValueError(f"the header has {length} bytes, more than there are or than are taken")
    try:
        header = json.loads(bytes(view[8 : 8 + length]), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the header cannot be read: {error}") from None
    if not isinstance(header, dict):
        raise ValueError("the header is not an object")
    metadata = header.pop("__metadata__", None) or {}
    rest = metadata.get("json") if isinstance(metadata, dict) else None
    if rest is not None and not isinstance(rest, str):
        raise ValueError("the header's metadata is not text")
    data = view[8 + length :]
    found = {name: _tensor(name, entry, data) for name, entry in header.items()}
    _check_layout((entry["data_offsets"] for entry in header.values()), len(data))
    return found, None if rest is None else rest.encode("utf-8", "surrogatepass")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _is_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _tensor(name: str, entry: Any, data: memoryview) -> Tensor:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} has no dtype, shape and data_offsets")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _SIZES:
        raise ValueError(f"tensor {name!r} has elements of type {code!r}, which are not read here")
    if not _is_sizes(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ValueError(f"tensor {name!r} has no shape of at most {_MAX_DIMENSIONS} sizes")
    if not _is_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= len(data):
        raise ValueError(f"tensor {name!r} does not lie in the body")
    if math.prod(shape) * _SIZES[code] != offsets[1] - offsets[0]:
        raise ValueError(f"tensor {name!r} of shape {tuple(shape)} does not have as many bytes as it says")
    return Tensor(_NUMPY.get(code, "bfloat16"), tuple(shape), data[offsets[0] : offsets[1]])


def _check_layout(ranges: Iterable[list[int]], size: int) -> None:
    """No bytes that belong to two tensors, and none that belong to no tensor."""
    position = 0
    for start, end in sorted(ranges):
        if start != position:
            raise ValueError("the tensors of the body overlap or leave gaps")
        position = end
    if position != size:
        raise ValueError("the body goes on after its last tensor")
