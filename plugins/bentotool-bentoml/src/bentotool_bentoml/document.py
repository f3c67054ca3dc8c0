"""``model.yaml``: what BentoML 1.4 writes of a model (``_internal/models/model.py``). Read as data, within bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.errors import UsageError
from bentotool.interfaces import JSON

__all__ = ["Document", "read_document"]

_MAX_BYTES = 1 << 20
_MAX_VALUES = 10_000
_MAX_DEPTH = 20
_FRAMEWORKS = {
    "diffusers": "huggingface",
    "picklable_model": "picklable",
    "pytorch": "torch",
    "pytorch_lightning": "torch",
    "torchscript": "torch",
    "transformers": "huggingface",
}
"""Frameworks whose plugin here has another name."""
_CONTEXT = ("framework_versions", "bentoml_version", "python_version")


@dataclass(frozen=True)
class Document:
    """What a ``model.yaml`` says.

    Args:
        framework: name of the framework's plugin here; None for a model of no framework.
        metadata: the model's own, its signatures, and under ``bentoml`` what BentoML knows of its making.
    """

    name: str
    version: str
    framework: str | None
    labels: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, JSON] = field(default_factory=dict)


def read_document(path: Path, left_out: list[str]) -> Document:
    """Read a ``model.yaml``.

    Args:
        left_out: names of files that are not taken over, recorded in the metadata.

    Raises:
        UsageError: it is too large, no YAML, or not what BentoML writes.
    """
    import yaml

    with path.open("rb") as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise _wrong(f"it is larger than {_MAX_BYTES} bytes")
    try:
        content = _Plain().of(yaml.safe_load(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _wrong(" ".join(str(error).split())[:200]) from None
    if not isinstance(content, dict):
        raise _wrong("it is not a mapping")
    name, version, module = (content.get(key) for key in ("name", "version", "module"))
    if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
        raise _wrong("it has no name or version")
    module = module if isinstance(module, str) else ""
    context = _mapping(content, "context")
    made: dict[str, JSON] = {"module": module, **{key: context[key] for key in _CONTEXT if key in context}}
    made |= {key: content[key] for key in ("options", "api_version", "creation_time") if content.get(key)}
    if left_out:
        made["left_out"] = left_out
    metadata: dict[str, JSON] = {**_mapping(content, "metadata"), "bentoml": made}
    if signatures := _mapping(content, "signatures"):
        metadata["signatures"] = signatures
    short = module.rpartition(".")[2]
    labels = {key: str(value) for key, value in _mapping(content, "labels").items()}
    return Document(name, version, _FRAMEWORKS.get(short, short) or None, labels, metadata)


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise _wrong(f"its {key} is not a mapping")
    return value


def _wrong(reason: str) -> UsageError:
    return UsageError(f"model.yaml is not one of BentoML: {reason}", hint="export the model again with BentoML 1.4")


class _Plain:
    """YAML as JSON; counts, because aliases let a small document stand for a huge one."""

    def __init__(self) -> None:
        self._left = _MAX_VALUES

    def of(self, value: object, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH:
            raise ValueError(f"it holds more than {_MAX_VALUES} values, or nests them more than {_MAX_DEPTH} deep")
        if isinstance(value, Mapping):
            return {str(key): self.of(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | set):
            return [self.of(item, depth + 1) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value if value is None or isinstance(value, str | bool | int | float) else str(value)
