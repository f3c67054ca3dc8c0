"""One array as ``application/x-npy``: numpy's ``.npy`` format, read without pickle and without evaluating its header.

The format is https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. The standard library alone; numpy
is imported when an array is written.
"""

from __future__ import annotations

import math
import re
import sys
from typing import TYPE_CHECKING, Any

from bentotool.sdk.tensors import Tensor

if TYPE_CHECKING:
    import numpy as np

__all__ = ["MEDIA_TYPE", "read_npy", "write_npy"]

MEDIA_TYPE = "application/x-npy"
_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
_HEADER = re.compile(
    r"\{'descr': '([<>|=])([biufc])(\d{1,2})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,18}, ?)*\d{0,18})\), ?\}[ \n]*"
)
_KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float", "c": "complex"}
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8), "c": (8,)}


def read_npy(body: bytes | bytearray | memoryview) -> Tensor:
    """The array, over the memory of the body where it is in row-major, little-endian order.

    Raises:
        ValueError: not an ``.npy`` body, one with objects in it, or one that contradicts itself.
    """
    view = memoryview(body)
    if bytes(view[:6]) != _MAGIC or len(view) < 12:
        raise ValueError("the body is no .npy array")
    version = view[6]
    if version not in (1, 2, 3):
        raise ValueError(f"version {version} of .npy is not read here")
    start = 10 if version == 1 else 12
    length = int.from_bytes(view[8:start], "little")
    if length > _MAX_HEADER or start + length > len(view):
        raise ValueError("the header of the .npy array is larger than what is there or taken")
    found = _HEADER.fullmatch(bytes(view[start : start + length]).decode("latin-1"))
    if found is None:
        raise ValueError("the header of the .npy array is not one of plain numbers")
    order, kind, size = found.group(1), found.group(2), int(found.group(3))
    if size not in _SIZES[kind]:
        raise ValueError(f"elements of {size} bytes are not read here")
    shape = tuple(int(part) for part in found.group(5).split(",") if part.strip())
    data = view[start + length :]
    if len(shape) > 32 or math.prod(shape) * size != len(data):
        raise ValueError(f"an array of shape {shape} does not have the {len(data)} bytes that are there")
    name = _KINDS[kind] if kind == "b" else f"{_KINDS[kind]}{size * 8}"
    native = "<" if sys.byteorder == "little" else ">"
    if (order in "<|" or (order == "=" and native == "<")) and found.group(4) == "False":
        return Tensor(name, shape, data)
    return _reordered(data, f"{order}{kind}{size}", shape, found.group(4) == "True")


def _reordered(data: memoryview, descr: str, shape: tuple[int, ...], fortran: bool) -> Tensor:
    import numpy as np

    from bentotool.sdk.tensors import tensor_of

    array = np.frombuffer(data, np.dtype(descr)).reshape(shape, order="F" if fortran else "C")
    return tensor_of(array.astype(array.dtype.newbyteorder("<")))


def write_npy(array: np.ndarray[Any, Any]) -> bytes:
    """The array as a ``.npy`` body.

    Raises:
        TypeError: its elements are objects, text or dates.
    """
    import io

    import numpy as np

    if array.dtype.kind not in "biufc":
        raise TypeError(f"an array of {array.dtype} has no binary form")
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=False)
    return buffer.getvalue()
