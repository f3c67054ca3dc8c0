"""What a stored Bento holds, as values: files, packages, APIs and the rest of its config.

Bentos come from registries too, so nothing here is believed to have the form that a build gives it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.media import API, CODE, LOCK
from bentotool.errors import VerificationError
from bentotool.oci.tar import untar

__all__ = ["CodeEntry", "Contents", "Package", "Route", "contents_of", "project_name"]

_APP, _HOME = "home/bento/app/", "home/bento/"
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*(?:\[[\w.,-]+\])?)(?:==| @ )([^\s;\\]+)")
_DEPTH = 6


def project_name(entry: str) -> str | None:
    """A file of the code layer as its project calls it; a framework's loader by its place; None for ``bento.json``."""
    if entry.startswith(_APP):
        return entry[len(_APP) :]
    name = entry.removeprefix(_HOME)
    return None if name == "bento.json" else name


@dataclass(frozen=True)
class CodeEntry:
    """One file; ``size`` in bytes."""

    path: str
    size: int
    digest: str


@dataclass(frozen=True)
class Package:
    """One package of the lock; ``version`` is its address where it is no release."""

    name: str
    version: str


@dataclass(frozen=True)
class Route:
    """One API.

    Args:
        input, output: what it takes and gives, in short.
        traits: ``batchable``, ``task``, ``stream``.
    """

    method: str
    route: str
    name: str
    input: str
    output: str
    traits: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """All of a Bento.

    Args:
        documents: the API documents, ``{"openapi", "schema"}``.
    """

    files: tuple[CodeEntry, ...]
    packages: tuple[Package, ...]
    routes: tuple[Route, ...]
    envs: tuple[Mapping[str, str], ...]
    image: Mapping[str, Any]
    lock: Mapping[str, Any]
    runtime: Mapping[str, Any]
    documents: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "files": [asdict(file) for file in self.files],
            "packages": [asdict(package) for package in self.packages],
            "apis": [{**asdict(route), "traits": list(route.traits)} for route in self.routes],
            "envs": [dict(env) for env in self.envs],
            "image": dict(self.image),
            "lock": dict(self.lock),
            "runtime": dict(self.runtime),
            "api": dict(self.documents),
        }


def contents_of(store: BentoStore, bento: StoredBento) -> Contents:
    """Read all that a Bento holds.

    Raises:
        NotFoundError: a layer that it names is not in the store.
        VerificationError: a layer is damaged, or its config is not of the form.
    """
    try:
        documents = store.api(bento) if _has(bento, API) else {}
        lock = store.requirements(bento) if _has(bento, LOCK) else ""
    except (ValueError, RecursionError):
        raise VerificationError(f"the lock or API documents of Bento {bento.tag} are damaged") from None
    config, where = bento.config, f"the config of Bento {bento.tag}"
    envs = config.get("envs", [])
    if not isinstance(envs, list) or not all(isinstance(env, Mapping) and _texts(env) for env in envs):
        raise VerificationError(f"{where}: envs are not in the expected form")
    return Contents(
        _files(store, bento),
        _packages(lock),
        _routes(documents),
        tuple(envs),
        _table(config, "image", where),
        _table(config, "lock", where),
        _table(config, "runtime", where),
        documents,
    )


def _has(bento: StoredBento, media_type: str) -> bool:
    """Whether there is such a layer: a Bento that another tool made may lack one, and is shown all the same."""
    return any(layer.media_type == media_type for layer in bento.manifest.layers)


def _texts(table: Mapping[Any, Any]) -> bool:
    return all(isinstance(key, str) and isinstance(value, str) for key, value in table.items())


def _table(config: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = config.get(key, {})
    if not isinstance(value, Mapping):
        raise VerificationError(f"{where}: {key} is not a table")
    return value


def _files(store: BentoStore, bento: StoredBento) -> tuple[CodeEntry, ...]:
    found: list[CodeEntry] = []
    if not _has(bento, CODE):
        return ()
    with store.layout.open_layer(bento.layer(CODE)) as stream:
        for entry, pieces in untar(stream):
            digest = hashlib.sha256()
            for piece in pieces:
                digest.update(piece)
            name = project_name(entry.name)
            if name is not None:
                found.append(CodeEntry(name, entry.size, f"sha256:{digest.hexdigest()}"))
    return tuple(found)


def _packages(lock: str) -> tuple[Package, ...]:
    pins = (_PIN.match(line) for line in lock.splitlines())
    return tuple(Package(pin[1], pin[2]) for pin in pins if pin)


def _routes(documents: Mapping[str, Any]) -> tuple[Route, ...]:
    schema = documents.get("schema")
    routes = schema.get("routes") if isinstance(schema, Mapping) else ()
    return tuple(_route(item) for item in routes if isinstance(item, Mapping)) if isinstance(routes, list) else ()


def _route(item: Mapping[str, Any]) -> Route:
    given, answer = item.get("input"), item.get("output")
    given = given if isinstance(given, Mapping) else {}
    output = answer if isinstance(answer, Mapping) else {}
    parts = (("batchable", item.get("batchable")), ("task", item.get("is_task")), ("stream", output.get("is_stream")))
    traits = tuple(name for name, value in parts if value is True)
    method, route, name = (
        str(item.get(key, default)) for key, default in (("method", "POST"), ("route", ""), ("name", ""))
    )
    return Route(method, route, name, _inputs(given), _shape(answer), traits)


def _inputs(schema: Mapping[str, Any]) -> str:
    """``(x: number, names: list[string] = ...)``, or the one value that is the whole body."""
    properties, required = schema.get("properties"), schema.get("required")
    if schema.get("root_input") is True or not isinstance(properties, Mapping):
        return _shape(schema)
    needed = [name for name in required if name in properties] if isinstance(required, list) else []
    rest = [name for name in properties if name not in needed]  # those in alphabetical order, as they were written
    parts = (f"{name}: {_shape(properties[name])}{' = …' if name in rest else ''}" for name in (*needed, *rest))
    return f"({', '.join(parts)})"


def _shape(schema: Any, depth: int = 0) -> str:
    """A JSON schema in a few words."""
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return "any"
    if isinstance(schema.get("$ref"), str):
        return str(schema["$ref"].rpartition("/")[2])
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return " | ".join(dict.fromkeys(_shape(item, depth + 1) for item in schema[key]))
    kind = schema.get("type")
    if kind == "array" and isinstance(schema.get("items"), Mapping):
        return f"list[{_shape(schema['items'], depth + 1)}]"
    if kind == "object" and isinstance(schema.get("title"), str) and schema.get("properties"):
        return str(schema["title"])
    if isinstance(schema.get("media_type"), str) and kind in (None, "string") and not schema.get("is_stream"):
        return str(schema["media_type"])
    named = schema.get("format") if kind in ("string", "file", "tensor", "dataframe") else None
    return str(named or kind or schema.get("title") or "any") if isinstance(kind, (str, type(None))) else "any"
