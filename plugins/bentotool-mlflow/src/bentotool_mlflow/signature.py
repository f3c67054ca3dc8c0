"""MLflow's signature of a model: JSON texts in ``MLmodel`` that describe columns, tensors and parameters.

Source: https://mlflow.org/docs/latest/ml/model/signatures/ and mlflow/types/schema.py of MLflow.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from bentotool.interfaces import JSON, TensorSpec
from bentotool_mlflow.loader import InvalidModelError

_MAX_COLUMNS = 1000
_MAX_TEXT = 200
_COLUMN_TYPES = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "str",
    "binary": "bytes",
    "datetime": "datetime64[ns]",
}


def read_schema(signature: Mapping[str, Any], key: str) -> tuple[TensorSpec, ...]:
    """Inputs or outputs, up to a thousand; none where nothing is said."""
    items = _items(signature, key)
    alone = key.rstrip("s")
    return tuple(
        _spec(item, alone if len(items) == 1 else f"{alone}_{number}")
        for number, item in enumerate(items[:_MAX_COLUMNS])
    )


def read_params(signature: Mapping[str, Any]) -> list[JSON]:
    """Parameters of inference: name, type and default of each."""
    found: list[JSON] = []
    for item in _items(signature, "params")[:_MAX_COLUMNS]:
        param: dict[str, JSON] = {"name": _text(item.get("name")), "type": _type(item)}
        default = item.get("default")
        if isinstance(default, bool | int | str) or default is None:
            param["default"] = default[:_MAX_TEXT] if isinstance(default, str) else default
        elif isinstance(default, float):
            param["default"] = default if math.isfinite(default) else repr(default)
        found.append(param)
    return found


def _items(signature: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    text = signature.get(key)
    if text is None:
        return []
    try:
        items = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        items = None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidModelError(f"MLmodel: {key} of the signature are not a list in JSON")
    return items


def _spec(item: Mapping[str, Any], unnamed: str) -> TensorSpec:
    name = _text(item.get("name")) or unnamed
    tensor = item.get("tensor-spec")
    if item.get("type") != "tensor":
        return TensorSpec(name, _type(item), (None,))
    if not isinstance(tensor, dict):
        raise InvalidModelError(f"MLmodel: the signature says nothing of tensor {name!r}")
    shape = tensor.get("shape")
    if not isinstance(shape, list) or not all(isinstance(axis, int) and -1 <= axis < 1 << 62 for axis in shape):
        raise InvalidModelError(f"MLmodel: the signature gives tensor {name!r} no shape")
    return TensorSpec(name, _text(tensor.get("dtype")) or "object", tuple(None if axis < 0 else axis for axis in shape))


def _type(item: Mapping[str, Any]) -> str:
    kind = item.get("type", item.get("dtype"))
    return _COLUMN_TYPES.get(kind, kind[:_MAX_TEXT]) if isinstance(kind, str) else "object"


def _text(value: object) -> str:
    """A name; columns of a table may be called by numbers."""
    return str(value)[:_MAX_TEXT] if isinstance(value, str | int) else ""
