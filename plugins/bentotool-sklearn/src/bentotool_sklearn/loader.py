"""Loads a scikit-learn model from a skops file, after a check of our own; a pickle only with ``trust=True``.

This file travels in a Bento: standard library, skops and joblib only.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MAX_SCHEMA = 64 * 1024 * 1024  # bytes; a forest of a thousand trees needs a few
MAX_MEMBERS = 200_000
MAX_UNPACKED = 1 << 30  # bytes that a small archive may unpack to; a large one may unpack to MAX_RATIO times its size
MAX_RATIO = 20

# Nodes of the format that make data, or an object of a type that is checked. Not among them: functions, methods,
# partials, # operators and constructors of arbitrary arguments, with which a file of "safe" types can call what it
# likes.
SAFE_NODES = frozenset(
    {
        "BytearrayNode", "BytesNode", "CachedNode", "DatetimeTimedeltaNode", "DefaultDictNode", "DictNode", "JsonNode",
        "ListNode", "LossNode", "MaskedArrayNode", "NdArrayNode", "ObjectNode", "RandomGeneratorNode",
        "RandomStateNode", "SetNode", "SliceNode", "SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode",
        "_DictWithDeprecatedKeysNode",
    }
)  # fmt: skip
SAFE_MODULES = ("sklearn", "numpy", "scipy")
SAFE_BUILTINS = frozenset(
    {
        "bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "set", "slice", "str",
        "tuple", "NoneType",
    }
)  # fmt: skip
SAFE_OTHERS = frozenset(
    {"collections.OrderedDict", "collections.defaultdict", "datetime.datetime", "datetime.timedelta"}
)

# Arrays of these are used as indices without a check, so a hostile file could make scikit-learn read foreign memory.
# No code of # the file's runs, hence not class "pickle"; but the caller has to name them: load_model(...,
# trusted=["…"]).
TO_BE_NAMED = ("sklearn.tree._tree.Tree",)


class InvalidModelError(ValueError):
    """The file is not a skops file, or a damaged one."""


class UnsafeModelError(ValueError):
    """Loading would make objects that nobody vouches for."""

    unsafe = True


def load(path, *, trusted: Iterable[str] = (), trust: bool = False):
    """The estimator of a ``.skops`` file.

    Args:
        path: the file.
        trusted: full names of further types to accept, as the error lists them.
        trust: accept every type; and load a joblib or pickle file, which runs whatever code its author put in.

    Raises UnsafeModelError for types that are not accepted, InvalidModelError for a damaged file.
    """
    path = Path(path)
    if not starts_as_zip(path):
        return _load_pickle(path, trust)
    schema = read_schema(path)
    ours = unknown_types(schema)

    import skops.io

    theirs = skops.io.get_untrusted_types(file=path)
    named = [name for name in TO_BE_NAMED if name in type_names(schema)]
    needed = sorted({*ours, *theirs, *named})
    refused = [name for name in needed if name not in set(trusted)]
    if refused and trust is not True:
        raise UnsafeModelError(
            f"{path.name} holds types that are not known to be safe: {', '.join(refused)}; "
            f"if you trust them, pass trusted={refused!r}"
        )
    return skops.io.load(path, trusted=sorted(theirs))


def _load_pickle(path: Path, trust: bool) -> Any:
    if trust is not True:
        raise UnsafeModelError(f"{path.name} is a pickle, which runs code when it is loaded; trust=True loads it")
    import joblib

    return joblib.load(path)


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


def unknown_types(schema: object) -> list[str]:
    """Names of the types and constructions in an object tree that are not known to be safe."""
    unknown = set()
    for node in nodes(schema):
        module, name = str(node.get("__module__", "")), str(node.get("__class__", ""))
        kind = str(node.get("__loader__", ""))
        if kind not in SAFE_NODES:
            unknown.add(f"{module}.{name} ({kind})")
        elif not _safe(module, name):
            unknown.add(f"{module}.{name}")
    return sorted(unknown)


def _safe(module: str, name: str) -> bool:
    if module == "builtins":
        return name in SAFE_BUILTINS
    return module.partition(".")[0] in SAFE_MODULES or f"{module}.{name}" in SAFE_OTHERS
