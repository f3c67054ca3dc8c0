"""Values that msgspec does not know, in messages between services: arrays, tensors, frames, images, paths.

Each becomes an extension ``[kind, ...]`` of the message; large ones keep their bytes in the message's body, from which
they are read in place. A library is touched only where it is imported already, or where what came is of its making.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import msgspec

from bentotool.sdk.exceptions import ServiceError
from bentotool.sdk.wording import kind_of

__all__ = ["Buffers", "WireError", "dump_foreign", "load_extension"]

_EXTENSION = 1
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|c(?:8|16)|[SU]\d{1,6}|[mM]8(?:\[\w{1,8}\])?)", re.ASCII)
_TENSOR_DTYPES = frozenset(
    [
        "bool",
        "uint8",
        "int8",
        "int16",
        "int32",
        "int64",
        "float16",
        "float32",
        "float64",
        "bfloat16",
        "complex64",
        "complex128",
    ]
)
_IMAGE_MODES = {"1": 0, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I": 4, "F": 4, "HSV": 3, "YCbCr": 3, "LAB": 3}
_MAX_DIMENSIONS = 32


class WireError(ServiceError):
    """A value that cannot be sent to another service, or a message that is not in order (500)."""

    code = "wire"


class Buffers:
    """Collects the large pieces of one message."""

    def __init__(self) -> None:
        self.pieces: list[memoryview] = []

    def add(self, data: Any) -> int:
        """Take bytes along; give their number."""
        self.pieces.append(memoryview(data).cast("B"))
        return len(self.pieces) - 1


def _tagged(*fields: Any) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_EXTENSION, msgspec.msgpack.encode(fields))


def _dump_array(value: Any, buffers: Buffers) -> msgspec.msgpack.Ext:
    import numpy as np

    if value.dtype.hasobject or not _DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"an array of {value.dtype} cannot be sent to another service")
    plain = np.ascontiguousarray(value).reshape(-1).view(np.uint8) if value.size else np.empty(0, np.uint8)
    return _tagged("array", value.dtype.str, list(value.shape), buffers.add(plain))


def _dump_tensor(value: Any, buffers: Buffers) -> msgspec.msgpack.Ext:
    import torch

    name = str(value.dtype).removeprefix("torch.")
    if name not in _TENSOR_DTYPES:
        raise TypeError(f"a tensor of {name} cannot be sent to another service")
    plain = value.detach().cpu().contiguous().reshape(-1)
    data = plain.view(torch.uint8).numpy() if plain.numel() else b""
    return _tagged("tensor", name, list(value.shape), buffers.add(data))


def _dump_numpy(value: Any, buffers: Buffers) -> Any:
    import numpy as np

    if isinstance(value, np.ndarray):
        return _dump_array(value, buffers)
    if isinstance(value, np.generic):
        return value.item() if value.dtype.kind in "biufSU" else _dump_array(np.asarray(value), buffers)
    raise TypeError(f"{kind_of(value)} cannot be sent to another service")


def _dump_pandas(value: Any, buffers: Buffers) -> Any:
    import pandas as pd

    if not isinstance(value, (pd.DataFrame, pd.Series)):
        raise TypeError(f"a pandas {type(value).__qualname__} cannot be sent to another service")
    if isinstance(value.index, pd.MultiIndex):
        raise TypeError("a frame with an index of several levels cannot be sent to another service")

    def column(data: Any) -> Any:
        if _DTYPE.fullmatch(getattr(data.dtype, "str", "")):
            return [data.dtype.str, data.to_numpy()]
        plain = data.astype(object)
        return [str(data.dtype), plain.where(plain.notna(), None).tolist()]

    index = value.index
    place = [index.start, index.stop, index.step] if isinstance(index, pd.RangeIndex) else column(index.to_series())
    isframe = isinstance(value, pd.DataFrame)
    columns = [column(value.iloc[:, i]) for i in range(value.shape[1])] if isframe else [column(value)]
    names = value.columns.tolist() if isframe else [value.name]
    inner = msgspec.msgpack.encode([names, columns, place], enc_hook=lambda item: dump_foreign(item, buffers))
    return _tagged("frame" if isframe else "series", msgspec.Raw(inner))


def _dump_image(value: Any, buffers: Buffers) -> Any:
    from PIL import Image

    if not isinstance(value, Image.Image):
        raise TypeError(f"{kind_of(value)} cannot be sent to another service")
    if value.mode not in _IMAGE_MODES:
        value = value.convert("RGBA" if "transparency" in value.info else "RGB")
    return _tagged("image", value.mode, list(value.size), buffers.add(value.tobytes()))


def _dump_model(value: Any, _buffers: Buffers) -> Any:
    if hasattr(value, "model_dump"):
        return {name: getattr(value, name) for name in type(value).model_fields} | (value.model_extra or {})
    raise TypeError(f"{kind_of(value)} cannot be sent to another service")


_FAMILIES: dict[str, Callable[[Any, Buffers], Any]] = {
    "numpy": _dump_numpy,
    "torch": _dump_tensor,
    "pandas": _dump_pandas,
    "PIL": _dump_image,
    "pydantic": _dump_model,
}


def dump_foreign(value: Any, buffers: Buffers) -> Any:
    """What stands for a value in a message. Raises: TypeError: it cannot be sent."""
    if isinstance(value, PurePath):
        return _tagged("path", str(value))
    if isinstance(value, complex):
        return _tagged("complex", value.real, value.imag)
    for base in type(value).__mro__:
        dump = _FAMILIES.get(base.__module__.partition(".")[0])
        if dump is not None:
            return dump(value, buffers)
    raise TypeError(f"{kind_of(value)} cannot be sent to another service")


def _shape(shape: Any) -> tuple[int, ...]:
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_DIMENSIONS
        or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape)
    ):
        raise WireError("a message has an array of no shape")
    return tuple(shape)


def _load_array(views: list[memoryview], dtype: str, shape: Any, number: int) -> Any:
    import numpy as np

    if not _DTYPE.fullmatch(dtype):
        raise WireError(f"a message has an array of {dtype[:40]!r}")
    kind, size = np.dtype(dtype), _shape(shape)
    view = views[number]
    if kind.itemsize == 0 or math.prod(size) * kind.itemsize != view.nbytes:
        raise WireError("a message has an array whose bytes are not as many as its shape says")
    return np.frombuffer(view, dtype=kind).reshape(size)


def _load_tensor(views: list[memoryview], dtype: str, shape: Any, number: int) -> Any:
    size, view = _shape(shape), views[number]
    if dtype not in _TENSOR_DTYPES:
        raise WireError(f"a message has a tensor of {dtype[:40]!r}")
    import torch

    kind = getattr(torch, dtype)
    if math.prod(size) * kind.itemsize != view.nbytes:
        raise WireError("a message has a tensor whose bytes are not as many as its shape says")
    if not view.nbytes:
        return torch.empty(size, dtype=kind)
    return torch.frombuffer(view, dtype=kind).reshape(size)


def _load_pandas(views: list[memoryview], isframe: bool, inner: Any) -> Any:
    import pandas as pd

    names, columns, place = inner

    def column(item: Any) -> Any:
        dtype, data = item
        if not isinstance(dtype, str) or not re.fullmatch(r"[\w<>|=\[\], /+:.-]{1,100}", dtype):
            raise WireError("a message has a column of no type")
        return pd.Series(data) if _DTYPE.fullmatch(dtype) else pd.Series(data, dtype=dtype)

    if len(place) == 3:
        index: Any = pd.RangeIndex(*place)
    else:
        index = pd.Index(column(place))
    made = [column(item).set_axis(index) for item in columns]
    if not isframe:
        return made[0].rename(names[0])
    frame = pd.concat(made, axis=1) if made else pd.DataFrame(index=index)
    frame.columns = pd.Index(names)
    return frame


def _load_image(views: list[memoryview], mode: str, size: Any, number: int) -> Any:
    width, height = _shape(size)
    channels = _IMAGE_MODES.get(mode)
    if channels is None:
        raise WireError(f"a message has an image of mode {mode[:20]!r}")
    expected = (width + 7) // 8 * height if mode == "1" else width * height * channels
    if views[number].nbytes != expected:
        raise WireError("a message has an image whose bytes are not as many as its size says")
    from PIL import Image

    return Image.frombytes(mode, (width, height), bytes(views[number]))


def load_extension(code: int, data: memoryview, views: list[memoryview]) -> Any:
    """The value that an extension stands for. Raises: WireError: it is none."""
    if code != _EXTENSION:
        raise WireError(f"a message has an extension {code}")
    fields = msgspec.msgpack.decode(data, ext_hook=lambda inner, rest: load_extension(inner, rest, views))
    try:
        kind, *rest = fields
        if kind == "path":
            return Path(rest[0])
        if kind == "complex":
            return complex(*rest)
        if kind in ("frame", "series"):
            return _load_pandas(views, kind == "frame", *rest)
        if kind in ("array", "tensor", "image"):
            *_, number = rest
            if not isinstance(number, int) or not 0 <= number < len(views):
                raise WireError("a message names bytes that it does not have")
            loader = {"array": _load_array, "tensor": _load_tensor, "image": _load_image}[kind]
            return loader(views, *rest)
    except WireError:
        raise
    except ImportError as error:
        raise WireError(f"a value from another service needs {error.name}, which is not installed here") from error
    except Exception as error:  # whatever a library says to what it cannot make
        raise WireError(f"a message is not in order: {type(error).__name__}: {error}") from error
    raise WireError("a message has a value of no known kind")
