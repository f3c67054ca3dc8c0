"""torch tensors on the wire. Imported only when a service's annotation comes from torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bentotool.sdk.arrays import array_schema, fitted, fitting_shape
from bentotool.sdk.codecs import Batching, Codec
from bentotool.sdk.tensors import Tensor
from bentotool.sdk.validators import DType, Shape
from bentotool.sdk.wording import kind_of

__all__ = ["make", "plain", "tensor_of"]


def plain(value: Any) -> Any:
    """A tensor as nested lists; a dtype or a device by its name."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().tolist()
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix("torch.")
    if isinstance(value, torch.Size):
        return list(value)
    raise TypeError(f"{kind_of(value)} cannot be sent as JSON")


def tensor_of(value: torch.Tensor) -> Tensor:
    """As it stands in a binary body; copied only from another device or out of another order."""
    found = value.detach().cpu().contiguous().resolve_conj().resolve_neg()
    data = memoryview(found.reshape(-1).view(torch.uint8).numpy()) if found.numel() else memoryview(b"")
    return Tensor(str(found.dtype).removeprefix("torch."), tuple(found.shape), data)


def _from_wire(value: Any, dtype: torch.dtype | None) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, Tensor) and value.dtype == "bfloat16":
        if not value.data.nbytes:
            return torch.empty(value.shape, dtype=torch.bfloat16)
        return torch.frombuffer(bytearray(value.data), dtype=torch.bfloat16).reshape(value.shape)
    array = fitted(value, None, None)
    if dtype is not None and not (isinstance(value, (Tensor, np.ndarray))):
        # a list has torch's own reading: 32 bit numbers, as torch.tensor makes them
        return torch.tensor(array.tolist(), dtype=dtype) if dtype is torch.bfloat16 else torch.from_numpy(array)
    if not isinstance(value, (Tensor, np.ndarray)) and array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _converted(found: torch.Tensor, dtype: torch.dtype | None, shape: tuple[int | None, ...] | None) -> torch.Tensor:
    if dtype is not None and found.dtype != dtype:
        if found.numel() and found.dtype.is_floating_point and not (dtype.is_floating_point or dtype.is_complex):
            raise ValueError(f"expected elements of type {dtype}, got {found.dtype}")
        if found.numel() and not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool):
            limits = torch.iinfo(dtype)
            if found.min() < limits.min or found.max() > limits.max:
                raise ValueError(f"an element does not fit into {dtype}")
        found = found.to(dtype)
    return found if shape is None else found.reshape(fitting_shape(tuple(found.shape), shape))


def _batching(dimension: int) -> Batching:
    def key(value: torch.Tensor) -> object:
        return (value.dtype, value.device, *value.shape[:dimension], "*", *value.shape[dimension + 1 :])

    def count(value: torch.Tensor) -> int:
        if value.ndim <= dimension:
            raise ValueError(f"expected a tensor with a batch dimension {dimension}, got shape {tuple(value.shape)}")
        return int(value.shape[dimension])

    def merge(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dimension)

    def split(merged: Any, counts: Sequence[int]) -> list[Any]:
        return list(torch.as_tensor(merged).split(list(counts), dim=dimension))

    return Batching(count, key, merge, split)


def make(tp: Any, metadata: tuple[Any, ...]) -> Codec | None:
    """The codec of ``torch.Tensor``, with ``DType`` and ``Shape``."""
    if not (isinstance(tp, type) and issubclass(tp, torch.Tensor)):
        return None
    name = next((item.dtype for item in metadata if isinstance(item, DType)), None)
    shape = next((item.dimensions for item in metadata if isinstance(item, Shape)), None)
    dtype = None if name is None else getattr(torch, name, None)
    if name is not None and not isinstance(dtype, torch.dtype):
        raise TypeError(f"torch has no dtype {name!r}")
    kind = None
    if dtype is not None:
        kind = "f" if dtype.is_floating_point else "b" if dtype == torch.bool else "i"

    def prepare(value: Any) -> torch.Tensor:
        if not isinstance(value, (torch.Tensor, np.ndarray)):
            raise ValueError(f"{kind_of(value)} is not a tensor")
        return _converted(torch.as_tensor(value), dtype, shape)

    return Codec(
        Any,
        array_schema("torch-tensor", name, kind, shape),
        load=lambda value: _converted(_from_wire(value, dtype), dtype, shape),
        dump=lambda value: plain(prepare(value)),
        prepare=prepare,
        batching=_batching,
        arrays=True,
        foreign=True,
    )
