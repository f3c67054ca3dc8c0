"""numpy arrays on the wire: nested JSON lists, checked against the declared dtype and shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args, get_origin

import numpy as np

from bentotool.sdk.codecs import Batching, Codec, Describe
from bentotool.sdk.validators import DType, Shape

__all__ = ["make", "plain"]

_KINDS = {"f": "fiu", "i": "iu", "u": "iu", "b": "b", "U": "U", "c": "fiuc"}
"""Kind of the declared dtype → kinds of JSON input that convert to it without losing their meaning."""
_JSON = {"f": "number", "i": "integer", "u": "integer", "b": "boolean", "U": "string"}


def plain(value: Any) -> Any:
    """A numpy array, scalar or dtype as plain Python."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    raise TypeError(f"a {type(value).__qualname__} cannot be sent as JSON")


def _declared_dtype(tp: Any, metadata: tuple[Any, ...]) -> np.dtype[Any] | None:
    for item in metadata:
        if isinstance(item, DType):
            return np.dtype(item.dtype)
    for argument in get_args(tp):  # NDArray[np.float32] is ndarray[Any, dtype[float32]]
        if get_origin(argument) is np.dtype:
            (scalar,) = get_args(argument)
            if isinstance(scalar, type) and scalar not in (np.generic, np.number, np.floating, np.integer):
                return np.dtype(scalar)
    return None


def _check_shape(array: np.ndarray[Any, Any], shape: tuple[int | None, ...] | None) -> None:
    if shape is None:
        return
    if len(array.shape) != len(shape) or any(w is not None and w != g for w, g in zip(shape, array.shape, strict=True)):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"expected an array of shape ({wanted}), got {array.shape}")


def _loader(dtype: np.dtype[Any] | None, shape: tuple[int | None, ...] | None) -> Any:
    def load(value: Any) -> np.ndarray[Any, Any]:
        try:
            array = np.asarray(value)
        except ValueError:
            raise ValueError("expected an array with rows of equal length") from None
        if array.dtype.kind not in "fiub" and (dtype is None or array.dtype.kind != dtype.kind):
            raise ValueError("expected an array of numbers")
        if dtype is not None and array.dtype != dtype:
            # an empty list has no element type of its own
            if array.size and array.dtype.kind not in _KINDS.get(dtype.kind, dtype.kind):
                raise ValueError(f"expected elements of type {dtype}, got {array.dtype}")
            if (
                array.size
                and dtype.kind in "iu"
                and (array.min() < np.iinfo(dtype).min or array.max() > np.iinfo(dtype).max)
            ):
                raise ValueError(f"an element does not fit into {dtype}")
            array = array.astype(dtype)
        _check_shape(array, shape)
        return array

    return load


def _dumper(dtype: np.dtype[Any] | None, shape: tuple[int | None, ...] | None) -> Any:
    def dump(value: Any) -> Any:
        array = np.asarray(value)
        if array.dtype.kind == "O":
            raise ValueError("not an array of numbers")
        if dtype is not None and array.dtype != dtype:
            array = array.astype(dtype, casting="same_kind")
        _check_shape(array, shape)
        return array.tolist()

    return dump


def _describer(dtype: np.dtype[Any] | None, shape: tuple[int | None, ...] | None) -> Describe:
    def describe(_template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        if tensors:
            named: dict[str, Any] = {"type": "tensor", "format": "numpy-array"}
            if dtype is not None:
                named["dtype"] = dtype.name
            if shape is not None:
                named["shape"] = [-1 if size is None else size for size in shape]
            return named, {}
        element: dict[str, Any] = {}
        if dtype is not None and dtype.kind in _JSON:
            # NaN and infinity have no JSON form and are sent as null
            element = {"type": ["number", "null"] if dtype.kind == "f" else _JSON[dtype.kind]}
        if shape is None:
            return {"type": "array", "items": {}}, {}
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
        return list(np.split(np.asarray(merged), np.cumsum(counts)[:-1], axis=dimension))

    return Batching(count, key, merge, split)


def make(tp: Any, metadata: tuple[Any, ...]) -> Codec | None:
    """The codec of ``np.ndarray``, ``NDArray[dtype]`` and their ``Annotated`` forms; None for containers of them."""
    if tp is not np.ndarray and get_origin(tp) is not np.ndarray:
        if isinstance(tp, type) and issubclass(tp, np.generic):
            return Codec(Any, lambda _template, _tensors: ({}, {}), load=tp, dump=plain)
        return None
    dtype = _declared_dtype(tp, metadata)
    shape = next((item.dimensions for item in metadata if isinstance(item, Shape)), None)
    return Codec(
        Any, _describer(dtype, shape), load=_loader(dtype, shape), dump=_dumper(dtype, shape), batching=_batching
    )
