"""numpy arrays on the wire: nested JSON lists or tensors, checked against the declared dtype and shape."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, get_args, get_origin

import numpy as np

from bentotool.sdk.codecs import Batching, Codec, Describe
from bentotool.sdk.tensors import Tensor
from bentotool.sdk.validators import DType, Shape
from bentotool.sdk.wording import kind_of

__all__ = ["array_schema", "element_types", "fitted", "fitting_shape", "make", "plain"]

_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b", "U": "U", "c": "fiuc"}
"""Kind of the declared dtype → kinds of what came that convert to it without losing their meaning."""
_F4, _F8 = np.dtype("<f4"), np.dtype("<f8")
_PACKED: dict[np.dtype[Any] | None, tuple[str, np.dtype[Any]]] = {_F4: ("f", _F4), _F8: ("d", _F8), None: ("d", _F8)}
"""Declared dtype → code of an element for `struct`, and the dtype of what is made of such elements."""
_WIDEST = 4096
_MOST_AXES = 64
"""As many as an array of numpy has."""
_PADDED, _MOST_PADDED = 16, 64 * 1024 * 1024
"""An array of texts, each as wide as the longest, has so many times their characters, or bytes, at most."""
_JSON = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "U": "string"}

Dimensions = tuple["int | None", ...]


def plain(value: Any) -> Any:
    """A numpy array, scalar or dtype as plain Python."""
    if isinstance(value, np.ndarray):
        return _listed(value)
    if isinstance(value, np.generic):
        return _listed(np.asarray(value))
    raise TypeError(f"{kind_of(value)} cannot be sent as JSON")


def _listed(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind in "mM":  # their tolist gives whole numbers, of a unit that nobody knows
        text = array.astype(str).astype(object)
        text[np.isnat(array)] = None
        return text.tolist()
    if array.dtype.kind == "c":
        raise TypeError("complex numbers have no JSON form")
    return array.tolist()


def _declared_dtype(tp: Any, metadata: tuple[Any, ...]) -> np.dtype[Any] | None:
    declared = None
    for argument in get_args(tp):  # NDArray[np.float32] is ndarray[Any, dtype[float32]]
        if get_origin(argument) is np.dtype:
            (scalar,) = get_args(argument)
            if isinstance(scalar, type) and scalar not in (np.generic, np.number, np.floating, np.integer):
                declared = np.dtype(scalar)
    for item in metadata:
        if isinstance(item, DType):
            named = np.dtype(item.dtype)
            if declared is not None and named != declared:
                raise TypeError(f"the annotation says {declared}, its DType {named}")
            declared = named
    return declared


def fitting_shape(given: tuple[int, ...], declared: Dimensions) -> tuple[int, ...]:
    """The shape that an array is given, so that it has the declared one.

    What fits is taken as it is. A flat list, and one that differs only in dimensions of size 1, is put into the
    declared shape; anything else would mix up its elements.

    Raises:
        ValueError: it does not fit.
    """
    if len(given) == len(declared) and all(w is None or w == g for w, g in zip(declared, given, strict=True)):
        return given
    flat = len(given) == 1
    same = [size for size in given if size != 1] == [
        size for size in (declared if None not in declared else ()) if size != 1
    ]
    count, known = math.prod(given), math.prod(size for size in declared if size is not None)
    unknown = sum(size is None for size in declared)
    if (flat or same) and unknown <= 1 and known and (count == known if not unknown else count % known == 0):
        return tuple(count // known if size is None else size for size in declared)
    wanted = ", ".join("any" if size is None else str(size) for size in declared)
    raise ValueError(f"expected an array of shape ({wanted}), got {given}")


def fitted(value: Any, dtype: np.dtype[Any] | None, shape: Dimensions | None) -> np.ndarray[Any, Any]:
    """An array from what came, of the declared dtype and shape.

    Raises:
        ValueError: it is none, or cannot be of that dtype or shape.
    """
    packed = _packed_rows(value, dtype) if type(value) is list and dtype in _PACKED else None
    if packed is not None:
        return packed if shape is None else packed.reshape(fitting_shape(packed.shape, shape))
    array = _array_of(value, dtype)
    if array.dtype.kind == "O" and dtype is not None:
        array = _with_nan(array) if dtype.kind == "f" else _whole(array, dtype) if dtype.kind in "iu" else array
    if array.dtype.kind not in "fiub" and (dtype is None or array.dtype.kind != dtype.kind):
        array = _other_elements(array, dtype)
    if dtype is not None and array.dtype != dtype:
        # an empty list has no element type of its own
        if array.size and array.dtype.kind not in _KINDS.get(dtype.kind, dtype.kind):
            raise ValueError(f"expected elements of type {dtype}, got {array.dtype}")
        if array.size and dtype.kind in "iu":
            limits = np.iinfo(dtype)
            if array.min() < limits.min or array.max() > limits.max:
                raise ValueError(f"an element does not fit into {dtype}")
        array = _narrowed(array, dtype) if _may_be_too_large(array.dtype, dtype) else array.astype(dtype)
    if shape is not None:
        array = array.reshape(fitting_shape(array.shape, shape))
    return array


def element_types(value: Any, axes: int = _MOST_AXES) -> set[type]:
    """The types of the elements of nested lists.

    Raises:
        ValueError: they are nested deeper than an array has axes.
    """
    found: set[type] = set(map(type, value))
    if list in found:
        if axes <= 1:
            raise ValueError("expected an array with rows of equal length")
        found.discard(list)
        for item in value:
            if type(item) is list:
                found |= element_types(item, axes - 1)
    return found


def _array_of(value: Any, dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    if isinstance(value, Tensor):
        found = value.numpy()
        if value.dtype == "bool" and (found.view(np.uint8) > 1).any():  # numpy would take it for more than true
            raise ValueError("expected true or false, got a byte that is neither 0 nor 1")
        return found
    types: set[type] = set()
    if type(value) is list:
        types = element_types(value)
    elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
        types = set(map(type, value.flat))
    if str in types:
        return _texts(value, dtype)
    try:
        array = np.asarray(value)
        if types == {int} and array.dtype.kind == "f" and dtype is not None and dtype.kind in "iu":
            array = np.asarray(value, dtype=object)  # numpy's fractions for whole numbers above 2**63 are not exact
    except (ValueError, TypeError):
        raise ValueError("expected an array with rows of equal length") from None
    return array


def _texts(value: Any, dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    """Texts as numpy has them, where they are asked for: each takes as much memory as the longest."""
    if dtype is None or dtype.kind not in "UM":
        raise ValueError("expected an array of numbers")
    try:
        array = np.asarray(value, dtype=object)
    except ValueError:
        raise ValueError("expected an array with rows of equal length") from None
    lengths = [len(item) if type(item) is str else -1 for item in array.ravel().tolist()]
    if -1 in lengths:
        raise ValueError("expected an array of texts, with rows of equal length")
    size = 4 * max(lengths, default=0) * len(lengths)
    if size > max(_MOST_PADDED, _PADDED * sum(lengths)):
        raise ValueError("one of the texts is too long for an array of so many")
    return array.astype(str)


def _whole(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Whole numbers of any size; anything else as it is."""
    if array.size and all(type(item) is int for item in array.flat):
        limits = np.iinfo(dtype)
        if array.min() < limits.min or array.max() > limits.max:
            raise ValueError(f"an element does not fit into {dtype}")
        return array.astype(dtype)
    return array


def _may_be_too_large(given: np.dtype[Any], dtype: np.dtype[Any]) -> bool:
    """Whole numbers of 64 bits do fit into floats of 32."""
    widest: int = given.itemsize if given.kind == "f" else _F4.itemsize
    size: int = dtype.itemsize
    return dtype.kind == "f" and size < widest


def _narrowed(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        made = array.astype(dtype)
    infinite = np.isinf(made)
    if infinite.any() and not np.isinf(array[infinite]).all():
        raise ValueError(f"an element does not fit into {dtype}")
    return made


@lru_cache(maxsize=256)
def _packer(code: str, size: int) -> Callable[..., bytes]:
    return struct.Struct(f"<{size}{code}").pack


def _packed_rows(rows: list[Any], dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any] | None:
    """Rows of as many numbers each, of which the first is none that stands for a truth value; None for anything else.

    Three times as fast as numpy, which looks at each element twice, and the larger part of what a request costs.
    """
    try:
        size = len(rows[0])
        if size > _WIDEST:
            return None
        for row in rows:
            if type(row) is not list or len(row) != size or type(row[0]) is not float:
                return None
        code, made_of = _PACKED[dtype]
        pack = _packer(code, size)
        # of something that can be written to, so that the array can be too
        made = bytearray(pack(*rows[0])) if len(rows) == 1 else bytearray().join([pack(*row) for row in rows])
    except (struct.error, OverflowError, IndexError, TypeError):
        return None
    return np.frombuffer(made, made_of).reshape(len(rows), size)


def _with_nan(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers with null among them, which stands for NaN, as it does in answers; anything else as it is."""
    if array.size and all(item is None or type(item) in (int, float) for item in array.flat):
        try:
            return array.astype(np.float64)
        except OverflowError:
            return array
    return array


def _other_elements(array: np.ndarray[Any, Any], dtype: np.dtype[Any] | None) -> np.ndarray[Any, Any]:
    """Dates are text in JSON; complex numbers come in binary."""
    if array.dtype.kind == "U" and dtype is not None and dtype.kind == "M":
        try:
            return array.astype(dtype)
        except ValueError:
            raise ValueError(f"expected dates of type {dtype}") from None
    if array.dtype.kind == "c" and dtype is None:
        return array
    raise ValueError("expected an array of numbers")


def _dumper(dtype: np.dtype[Any] | None, shape: Dimensions | None) -> Callable[[Any], np.ndarray[Any, Any]]:
    def prepare(value: Any) -> np.ndarray[Any, Any]:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            raise ValueError("not an array of numbers")
        if dtype is not None and array.dtype != dtype:
            array = array.astype(dtype, casting="same_kind")
        if shape is not None and array.shape != fitting_shape(array.shape, shape):
            raise ValueError(f"an array of shape {array.shape} is not of shape {shape}")
        return array

    return prepare


def array_schema(form: str, name: str | None, kind: str | None, shape: Dimensions | None) -> Describe:
    """The schema of an array: BentoML's, or nested lists.

    Args:
        form: ``numpy-array`` or ``torch-tensor``.
        name: of the dtype, where one is declared.
        kind: of the dtype, as numpy's one letter.
        shape: as declared.
    """

    def describe(_template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        if tensors:
            named: dict[str, Any] = {"type": "tensor", "format": form}
            if name is not None:
                named["dtype"] = name
            if shape is not None:
                named["shape"] = [-1 if size is None else size for size in shape]
            return named, {}
        element: dict[str, Any] = {}
        if kind in _JSON:
            # NaN and infinity have no JSON form and are sent as null
            element = {"type": ["number", "null"] if kind == "f" else _JSON[kind]}
        if shape is None:  # of any depth, which JSON Schema has no short word for; a number is an array of no dimension
            scalars = element.get("type", ["number", "boolean", "null"])
            return {"type": ["array", *([scalars] if isinstance(scalars, str) else scalars)], "items": {}}, {}
        for size in reversed(shape):
            element = {"type": "array", "items": element}
            if size is not None:
                element |= {"minItems": size, "maxItems": size}
        return element, {}

    return describe


def _batching(dimension: int) -> Batching:
    def key(array: np.ndarray[Any, Any]) -> object:
        return (array.dtype.str, *array.shape[:dimension], "*", *array.shape[dimension + 1 :])

    def count(array: np.ndarray[Any, Any]) -> int:
        if array.ndim <= dimension:
            raise ValueError(f"expected an array with a batch dimension {dimension}, got shape {array.shape}")
        return int(array.shape[dimension])

    def merge(parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=dimension)

    def split(merged: Any, counts: Sequence[int]) -> list[Any]:
        array, before, ends = np.asarray(merged), (slice(None),) * dimension, list(accumulate(counts, initial=0))
        return [array[where] for where in ((*before, slice(start, end)) for start, end in pairwise(ends))]

    return Batching(count, key, merge, split)


def make(tp: Any, metadata: tuple[Any, ...]) -> Codec | None:
    """The codec of ``np.ndarray``, ``NDArray[dtype]``, their ``Annotated`` forms, and of numpy's scalars."""
    if tp is not np.ndarray and get_origin(tp) is not np.ndarray:
        if isinstance(tp, type) and issubclass(tp, np.generic):
            return Codec(Any, lambda _template, _tensors: ({}, {}), load=tp, dump=plain, foreign=True)
        return None
    dtype = _declared_dtype(tp, metadata)
    shape = next((item.dimensions for item in metadata if isinstance(item, Shape)), None)
    prepare = _dumper(dtype, shape)
    name, kind = (None, None) if dtype is None else (dtype.name, dtype.kind)
    return Codec(
        Any,
        array_schema("numpy-array", name, kind, shape),
        load=lambda value: fitted(value, dtype, shape),
        dump=lambda value: _listed(prepare(value)),
        prepare=prepare,
        batching=_batching,
        arrays=True,
        foreign=True,
    )
