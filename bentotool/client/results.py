"""The value of an answer, by what the schema says it is."""

from __future__ import annotations

import io
import itertools
import re
import tempfile
from collections.abc import Mapping
from email.message import Message
from pathlib import Path
from typing import Any

from bentotool.client.routes import Route
from bentotool.errors import RemoteError
from bentotool.sdk.exceptions import ServiceError

__all__ = ["Folder", "decode_item", "decode_value", "takes_tensors"]

_TENSORS = "application/vnd.bentotool.tensors"
_NUMBERS = ["bool", "float16", "float32", "float64", "complex64", "complex128"]
_NUMBERS += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_SAFE = re.compile(r"[^A-Za-z0-9._-]+")


class Folder:
    """Where files of answers are put: the caller's folder, or a temporary one that goes with the client."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = itertools.count(1)

    def save(self, content: bytes, name: str) -> Path:
        """Write a file; never over another one, and never elsewhere, whatever the service calls it."""
        if self._path is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="bentotool-client-")
            self._path = Path(self._temporary.name)
        self._path.mkdir(parents=True, exist_ok=True)
        safe = _SAFE.sub("_", name.replace("\\", "/").rpartition("/")[2]).strip(".")[-100:] or "file"
        while True:
            path = self._path / (safe if (number := next(self._numbers)) == 1 else f"{number}-{safe}")
            try:
                with path.open("xb") as file:
                    file.write(content)
                return path
            except FileExistsError:
                continue

    def close(self) -> None:
        """Remove the temporary folder, if there is one."""
        if self._temporary is not None:
            self._temporary.cleanup()
            self._temporary = None
            self._path = None


def _has_null(value: Any) -> bool:
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def _array(value: Any, schema: Mapping[str, Any]) -> Any:
    import numpy as np

    # null stands for NaN, which JSON does not have
    dtype = schema.get("dtype") if schema.get("dtype") in _NUMBERS else float if _has_null(value) else None
    array = np.asarray(value, dtype=dtype)
    if not isinstance(dtype, str) and schema.get("format") == "torch-tensor" and array.dtype.kind == "f":
        array = array.astype(np.float32)  # as torch makes tensors of numbers
    return _made(array, schema)


def _frame(value: Any, schema: Mapping[str, Any]) -> Any:
    import pandas as pd

    columns = schema.get("columns")
    return pd.DataFrame(value, columns=columns if isinstance(columns, list) else None)


def convert(value: Any, schema: Any) -> Any:
    """A decoded value with its arrays and data frames made; where their package is absent, as plain lists."""
    if not isinstance(schema, Mapping) or value is None:
        return value
    if isinstance(schema.get("anyOf"), list):
        parts = [part for part in schema["anyOf"] if not (isinstance(part, Mapping) and part.get("type") == "null")]
        return convert(value, parts[0]) if len(parts) == 1 else value
    kind = schema.get("type")
    try:
        if kind == "tensor" or schema.get("format") == "numpy-array":
            return _array(value, schema)
        if kind == "dataframe":
            return _frame(value, schema)
    except ImportError:
        return value
    except (ValueError, TypeError, OverflowError) as error:
        raise RemoteError(f"a part of the answer is no {kind}, as it was said to be: {error}"[:500]) from error
    if kind == "array" and isinstance(value, list) and isinstance(schema.get("items"), Mapping):
        return [convert(item, schema["items"]) for item in value]
    if kind == "object" and isinstance(value, dict) and isinstance(schema.get("properties"), Mapping):
        return {key: convert(item, schema["properties"].get(key)) for key, item in value.items()}
    if kind == "object" and isinstance(value, dict) and isinstance(schema.get("additionalProperties"), Mapping):
        return {key: convert(item, schema["additionalProperties"]) for key, item in value.items()}
    return value


def _file(content: bytes, route: Route, headers: Mapping[str, str], folder: Folder) -> Any:
    media = headers.get("content-type", "").partition(";")[0]
    if route.output.get("pil"):
        from PIL import Image

        return Image.open(io.BytesIO(content), formats=[media[6:]] if media.startswith("image/") else None)
    disposition = Message()
    disposition["content-disposition"] = headers.get("content-disposition", "")
    name = disposition.get_filename() or f"{route.name}.{_SAFE.sub('', media.rpartition('/')[2]) or 'bin'}"
    return folder.save(content, name)


def _tensors(content: bytes, route: Route) -> Any:
    """The tensors of an answer at their places: one with no JSON beside it, called ``value``, is the whole answer."""
    import msgspec

    from bentotool.sdk.places import parse_path, place
    from bentotool.sdk.tensors import decode_tensors

    try:
        tensors, rest = decode_tensors(content)
        if rest is None and list(tensors) == ["value"]:
            return convert(tensors["value"].numpy(), route.output)
        whole: dict[str, Any] = {"answer": {} if rest is None else msgspec.json.decode(rest)}
        for name, tensor in tensors.items():
            steps = parse_path(f"answer{name}" if name.startswith("[") else f"answer.{name}")
            if not place(whole, steps, tensor.numpy()):
                raise ValueError(f"{name!r} has no place")
    except (ValueError, RecursionError, ServiceError) as error:
        raise RemoteError(f"{route.name}: the answer is no tensors: {error}") from error
    return convert(whole["answer"], route.output)


def _made(array: Any, schema: Mapping[str, Any]) -> Any:
    if schema.get("format") != "torch-tensor":
        return array
    import torch

    return torch.from_numpy(array.copy())


def takes_tensors(schema: Any) -> bool:
    """Whether an answer of this schema may hold arrays."""
    if isinstance(schema, Mapping):
        return schema.get("type") == "tensor" or any(takes_tensors(part) for part in schema.values())
    return any(map(takes_tensors, schema)) if isinstance(schema, list) else False


def decode_value(route: Route, content: bytes, headers: Mapping[str, str], folder: Folder) -> Any:
    """The value of an answer.

    Raises:
        RemoteError: the body is not what its type says.
    """
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if route.output.get("type") == "file":
        return _file(content, route, headers, folder)
    if media == _TENSORS:
        return _tensors(content, route)
    if route.output.get("type") == "string" and not route.native:
        # BentoML labels a bare text as JSON, or the reverse
        return content if route.output.get("format") == "binary" else content.decode("utf-8", "replace")
    if media == "application/json" or media.endswith("+json"):
        return convert(_json(content, route), route.output)
    if media.startswith("text/") and route.output.get("format") != "binary":
        return content.decode("utf-8", "replace")
    return content


def _json(content: bytes, route: Route) -> Any:
    import msgspec

    if not content:
        return None
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if not route.native:  # BentoML answers Optional[str], Union and Any with the bare text, labelled JSON
            import json

            try:
                return json.loads(content)  # NaN, which it writes
            except ValueError:
                return content.decode("utf-8", "replace")
        raise RemoteError(f"{route.name}: the answer is not JSON: {error}") from error


def decode_item(route: Route, item: Any) -> Any:
    """One item of a stream, decoded already."""
    return convert(item, {key: value for key, value in route.output.items() if key != "is_stream"})
