"""Reads the header of a safetensors file, bounds-checked; tensors are never read.

Source: https://huggingface.co/docs/safetensors#format. A length of 8 bytes, a JSON object that gives each tensor's
dtype, shape and place, then the tensors one after the other, with neither gap nor overlap, up to the file's end.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from bentotool.interfaces import TensorSpec

MAX_HEADER = 100_000_000  # bytes; the format's own limit
_MAX_CONTAINERS = 1_000_000  # objects and lists in a header: three for a tensor, and some 300 bytes of memory for each
_MAX_AXES = 32
_MAX_AXIS = 1 << 48

# Bits of one element.
_DTYPES: Mapping[str, tuple[str, int]] = {
    "BOOL": ("bool", 8),
    "F4": ("float4_e2m1", 4),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "U8": ("uint8", 8),
    "I8": ("int8", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E8M0": ("float8_e8m0", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "I16": ("int16", 16),
    "U16": ("uint16", 16),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "I32": ("int32", 32),
    "U32": ("uint32", 32),
    "F32": ("float32", 32),
    "C64": ("complex64", 64),
    "F64": ("float64", 64),
    "I64": ("int64", 64),
    "U64": ("uint64", 64),
}


class FormatError(Exception):
    """The bytes are not what they should be; the text says what."""


@dataclass(frozen=True)
class Safetensors:
    """What was read: the tensors in the order of the header, and the free-text metadata."""

    tensors: tuple[TensorSpec, ...]
    metadata: Mapping[str, str]


def starts_as_safetensors(path: Path) -> bool:
    """Whether a file starts with the length of a header that fits into it, and an object of JSON."""
    with path.open("rb") as file:
        head = file.read(10)
    fits = int.from_bytes(head[:8], "little") <= min(MAX_HEADER, path.stat().st_size - 8)
    return len(head) == 10 and fits and head[8:9] == b"{" and head[9:10] in b'"} \t\r\n'


def read_safetensors(path: Path) -> Safetensors:
    """Read and check the header of a file; FormatError where it is not one."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise FormatError(f"it has {size} bytes, fewer than a header's length takes")
        length = int.from_bytes(start, "little")
        if length > MAX_HEADER:
            raise FormatError(f"it claims a header of {length} bytes; {MAX_HEADER} is the most")
        if length > size - 8:
            raise FormatError(f"it claims a header of {length} bytes and has {size - 8}")
        text = file.read(length)
    if not text.startswith(b"{"):
        raise FormatError("its header is not a JSON object")
    return _checked(_parse(text), size - 8 - length)


def _parse(text: bytes) -> dict[str, Any]:
    def without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise FormatError("its header names a tensor twice")
        return table

    if text.count(b"[") + text.count(b"{") > _MAX_CONTAINERS:  # as objects they would take gigabytes
        raise FormatError(f"its header has more than {_MAX_CONTAINERS} objects and lists")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=without_repetition)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"its header is not JSON: {_line(error)}") from None
    if not isinstance(header, dict):
        raise FormatError("its header is not a JSON object")
    return header


def _checked(header: dict[str, Any], size: int) -> Safetensors:
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("its metadata is not a mapping of text to text")
    specs, spans = [], []
    for name, entry in header.items():
        spec, span = _tensor(name, entry)
        specs.append(spec)
        spans.append((*span, name))
    end = 0
    for begin, stop, name in sorted(spans):
        if begin != end:
            problem = "overlaps the one before it" if begin < end else "leaves a gap before it"
            raise FormatError(f"tensor {name!r:.80} {problem}")
        end = stop
    if end != size:
        raise FormatError(f"its tensors take {end} bytes and it has {size}")
    return Safetensors(tuple(specs), metadata)


def _tensor(name: str, entry: object) -> tuple[TensorSpec, tuple[int, int]]:
    where = f"tensor {name!r:.80}"
    if not isinstance(entry, dict):
        raise FormatError(f"{where} is not described by an object")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise FormatError(f"{where} has the unknown dtype {dtype!r:.40}")
    if not isinstance(shape, list) or len(shape) > _MAX_AXES or not all(_is_size(axis, _MAX_AXIS) for axis in shape):
        raise FormatError(f"{where} has no valid shape")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(at, 1 << 63) for at in offsets):
        raise FormatError(f"{where} has no valid offsets")
    begin, end = offsets
    numpy_name, bits = _DTYPES[dtype]
    needed = prod(shape) * bits
    if needed % 8 or end - begin != needed // 8:
        raise FormatError(f"{where} needs {needed / 8:g} bytes and is given {end - begin}")
    return TensorSpec(name, numpy_name, tuple(shape)), (begin, end)


def _is_size(value: object, limit: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit


def _line(error: BaseException) -> str:
    return str(error).replace("\n", " ")[:200]
