"""Reads the header of a GGUF file, bounds-checked; tensors are never read.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Values that are not asked for (vocabularies,
mostly) are skipped by seeking. Chat templates are programs in Jinja's language: their length is told, nothing
renders them.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import BinaryIO

from bentotool.interfaces import JSON
from bentotool_huggingface.safetensors import FormatError

_MAX_KEYS = 100_000
_MAX_TENSORS = 1_000_000
_MAX_NAME = 65_535  # bytes; the format's own limit for keys
_MAX_KEPT = 4096  # bytes of a text that is kept
_MAX_TEXT = 64 * 1024 * 1024  # bytes of keys, names and texts, all together
_MAX_ITEMS = 8_000_000  # texts within arrays, all together; the largest vocabularies have 300,000
_MAX_AXES = 8
_MAX_DEPTH = 4
_MAX_TYPE = 1000  # of a tensor; those above 39 are of later versions, and of unknown size
_MAX_ALIGNMENT = 1 << 20
_STRING, _ARRAY = 8, 9

# Value types other than text and arrays: struct's letter.
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

# Tensor types: name, elements of a block, bytes of a block (ggml.h and ggml-common.h).
_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}

# general.file_type (llama.h, enum llama_ftype).
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
}

_FACTS = ("name", "basename", "size_label", "license", "description")
_LENGTHS = ("context_length", "embedding_length", "block_count")


@dataclass(frozen=True)
class Gguf:
    """What was read.

    Args:
        facts: architecture, name, quantisation, context length and the like.
        shards: of how many files this is one; 1 for a model of one file.
    """

    facts: Mapping[str, JSON]
    shards: int


def read_gguf(path: Path, *, shard: bool = False) -> Gguf:
    """Read and check the header of a file; FormatError where it is not one.

    Args:
        shard: whether it is a further file of a model, which need not state the architecture.
    """
    with path.open("rb") as file:
        return _Reader(file, path.stat().st_size).read(shard=shard)


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._size = size
        self._at = 0
        self._items_left = _MAX_ITEMS
        self._text_left = _MAX_TEXT

    def read(self, *, shard: bool) -> Gguf:
        if self._take(4) != b"GGUF":
            raise FormatError("it does not start with GGUF")
        version = self._number("I")
        if version not in (2, 3):
            raise FormatError(f"it states version {version}; 2 and 3 are known, in little-endian order")
        tensors, keys = self._number("Q"), self._number("Q")
        if keys > min(_MAX_KEYS, self._left // 13):
            raise FormatError(f"it claims {keys} keys, more than fit")
        if tensors > min(_MAX_TENSORS, self._left // 24):
            raise FormatError(f"it claims {tensors} tensors, more than fit")
        values: dict[str, JSON] = {}
        for _ in range(keys):
            key = self._text(_MAX_NAME)
            if key in values:
                raise FormatError(f"it has the key {key!r:.80} twice")
            values[key] = self._value(self._number("I"), 0)
        parameters, types = self._tensors(tensors, values)
        if shard:
            values.setdefault("general.architecture", "shard")
        return _summary(version, values, tensors, parameters, types)

    @property
    def _left(self) -> int:
        return self._size - self._at

    def _take(self, count: int) -> bytes:
        if count > self._left:
            raise FormatError(f"truncated at byte {self._size}: {count} bytes are missing at byte {self._at}")
        data = self._file.read(count)
        if len(data) < count:
            raise FormatError(f"truncated at byte {self._at + len(data)}")
        self._at += count
        return data

    def _skip(self, count: int) -> None:
        if count > self._left:
            raise FormatError(f"truncated at byte {self._size}: {count} bytes are missing at byte {self._at}")
        self._at += count
        self._file.seek(self._at)

    def _number(self, letter: str) -> int:
        value: int = struct.unpack("<" + letter, self._take(struct.calcsize("<" + letter)))[0]
        return value

    def _text(self, limit: int) -> str:
        length = self._number("Q")
        if length > limit:
            raise FormatError(f"a name of {length} bytes at byte {self._at}")
        self._keep(length)
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError(f"text that is not UTF-8 before byte {self._at}") from None

    def _keep(self, length: int) -> None:
        self._text_left -= length
        if self._text_left < 0:
            raise FormatError(f"more than {_MAX_TEXT} bytes of names and texts")

    def _value(self, kind: int, depth: int) -> JSON:
        """A number or short text; for a long text or an array, its length."""
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind == _STRING:
            length = self._number("Q")
            if length > _MAX_KEPT:
                self._skip(length)
                return length
            self._keep(length)
            return self._take(length).decode("utf-8", "replace")
        if kind != _ARRAY:
            raise FormatError(f"value type {kind} at byte {self._at}")
        if depth == _MAX_DEPTH:
            raise FormatError(f"arrays nested more than {_MAX_DEPTH} deep")
        return self._array(depth)

    def _array(self, depth: int) -> int:
        kind, count = self._number("I"), self._number("Q")
        if kind in _NUMBERS:
            self._skip(count * struct.calcsize("<" + _NUMBERS[kind]))
            return count
        if count > min(self._items_left, self._left // 8):
            raise FormatError(f"an array of {count} items at byte {self._at}, more than fit")
        self._items_left -= count
        for _ in range(count):
            if kind == _STRING:
                self._skip(self._number("Q"))
            else:
                self._value(kind, depth + 1)
        return count

    def _tensors(self, count: int, values: Mapping[str, JSON]) -> tuple[int, Counter[str]]:
        """Check where the tensors lie; gives the number of elements, and bytes by type."""
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment % 8:
            raise FormatError(f"it states the alignment {alignment!r:.40}")
        spans, parameters, types, names = [], 0, Counter[str](), set()
        for _ in range(count):
            name = self._text(_MAX_NAME)
            if name in names:
                raise FormatError(f"it has the tensor {name!r:.80} twice")
            names.add(name)
            axes = self._number("I")
            if axes > _MAX_AXES:
                raise FormatError(f"tensor {name!r:.80} has {axes} axes")
            shape = [self._number("Q") for _ in range(axes)]
            kind, offset = self._number("I"), self._number("Q")
            if kind > _MAX_TYPE:
                raise FormatError(f"tensor {name!r:.80} is of an unknown type {kind}")
            if offset % alignment:
                raise FormatError(f"tensor {name!r:.80} does not lie on a multiple of {alignment} bytes")
            label, block, width = _TYPES.get(kind, (f"type {kind}", 1, 0))  # a later type's size is not known
            elements = prod(shape)
            if elements % block or (shape and shape[0] % block):
                raise FormatError(f"tensor {name!r:.80} has {elements} elements, not whole blocks of {block}")
            length = elements // block * width
            spans.append((offset, offset + length, name))
            parameters += elements
            types[label] += length
        self._check_spans(sorted(spans), -(-self._at // alignment) * alignment)
        return parameters, types

    def _check_spans(self, spans: list[tuple[int, int, str]], start: int) -> None:
        end = 0
        for begin, stop, name in spans:
            if begin < end:
                raise FormatError(f"tensor {name!r:.80} overlaps the one before it")
            end = stop
            if start + stop > self._size:
                raise FormatError(f"tensor {name!r:.80} ends at byte {start + stop} and the file has {self._size}")


def _summary(version: int, values: Mapping[str, JSON], tensors: int, parameters: int, types: Counter[str]) -> Gguf:
    architecture = values.get("general.architecture")
    if not isinstance(architecture, str) or not architecture:
        raise FormatError("it states no architecture")
    facts: dict[str, JSON] = {"architecture": architecture, "gguf_version": version}
    for key in _FACTS:
        if isinstance(text := values.get(f"general.{key}"), str):
            facts[key] = text
    for key in _LENGTHS:
        if isinstance(number := values.get(f"{architecture}.{key}"), int):
            facts[key] = number
    file_type = values.get("general.file_type")
    if isinstance(file_type, int) and file_type in _FILE_TYPES:
        facts["quantization"] = _FILE_TYPES[file_type]
    elif types:
        facts["quantization"] = types.most_common(1)[0][0]
    facts |= {"tensors": tensors, "parameters": parameters}
    if isinstance(tokenizer := values.get("tokenizer.ggml.model"), str):
        facts["tokenizer"] = tokenizer
    if "tokenizer.chat_template" in values:
        facts["chat_template"] = True
    shards = values.get("split.count", 1)
    return Gguf(facts, shards if isinstance(shards, int) and shards > 1 else 1)
