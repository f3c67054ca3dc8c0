"""The object tree of a skops file, read within bounds; standard library only, numpy for the sizes of arrays."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_SCHEMA = 64 * 1024 * 1024  # bytes; a forest of a thousand trees needs ten million
MAX_MEMBERS = 200_000
MAX_UNPACKED = 1 << 30  # bytes that a small archive may unpack to; a large one may unpack to MAX_RATIO times its size
MAX_RATIO = 20


class InvalidModelError(ValueError):
    """The file is not a skops file, or a damaged one."""


def starts_as_zip(path: Path) -> bool:
    """Whether the first bytes are a zip's. ``zipfile.is_zipfile`` looks further and raises for a crafted archive."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_schema(path: Path) -> dict[str, Any]:
    """The object tree of a skops file; InvalidModelError where it is none, within bounds on size."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MAX_MEMBERS:
                raise InvalidModelError(f"more than {MAX_MEMBERS} members")
            unpacked = sum(member.file_size for member in members)
            if unpacked > max(MAX_UNPACKED, MAX_RATIO * path.stat().st_size):
                raise InvalidModelError(f"it would unpack to {unpacked} bytes")
            with archive.open("schema.json") as member:
                text = member.read(MAX_SCHEMA + 1)
    except KeyError:
        raise InvalidModelError("the archive has no schema.json") from None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, InvalidModelError):
            raise
        raise InvalidModelError(f"the archive is damaged: {error}") from None
    except Exception as error:  # zlib, bz2 and lzma each have an error of their own
        raise InvalidModelError(f"the archive is damaged: {type(error).__name__}") from None
    if len(text) > MAX_SCHEMA:
        raise InvalidModelError(f"its schema.json is larger than {MAX_SCHEMA} bytes")
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"its schema.json is not JSON: {error}") from None
    if not isinstance(schema, dict) or not all(isinstance(schema.get(k), str) for k in ("__class__", "__module__")):
        raise InvalidModelError("its schema.json describes no object")
    return schema


def nodes(schema: object) -> Iterator[dict[str, Any]]:
    """All nodes of an object tree, the outer before the inner."""
    level: list[object] = [schema]
    while level:
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                if "__loader__" in item or "__class__" in item:
                    yield item
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
        level = inner


def type_names(schema: object) -> set[str]:
    """Full names of all types in an object tree."""
    return {f"{node.get('__module__')}.{node.get('__class__')}" for node in nodes(schema)}


def name_of(node: dict[str, Any]) -> str:
    """Full name of a node's type."""
    return f"{node.get('__module__')}.{node.get('__class__')}"


def check_sizes(schema: object, archive: zipfile.ZipFile) -> None:
    """Refuse arrays that would take more memory than the archive's bounds; InvalidModelError says which."""
    from numpy.lib import format as npy

    compressed = sum(member.compress_size for member in archive.infolist())
    left = max(MAX_UNPACKED, MAX_RATIO * compressed)
    for node in nodes(schema):
        name = node.get("file")
        if not isinstance(name, str) or node.get("__loader__") not in ("NdArrayNode", "SparseMatrixNode"):
            continue
        try:
            member = archive.getinfo(name)
            with archive.open(member) as file:
                if node["__loader__"] == "SparseMatrixNode":
                    with zipfile.ZipFile(io.BytesIO(file.read())) as inner:
                        left -= sum(item.file_size for item in inner.infolist())
                else:
                    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
                    shape, _, dtype = read(file)
                    size = dtype.itemsize
                    for length in shape:
                        size *= length
                    if size != member.file_size - file.tell():
                        raise ValueError("its size is not what its header says")
        except Exception as error:
            raise InvalidModelError(f"{name} is not an array: {error}") from error
        if left < 0:
            raise InvalidModelError(
                f"{name} would unpack to more than {max(MAX_UNPACKED, MAX_RATIO * compressed)} bytes"
            )
