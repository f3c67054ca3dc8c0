"""What changed between two Bentos: files, packages, models, configuration and API, as values to print."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bentotool.build.bentos import BentoStore, StoredBento
from bentotool.build.contents import project_name
from bentotool.build.media import CODE
from bentotool.oci.tar import untar

__all__ = ["SECTIONS", "BentoDiff", "Change", "FilePatch", "diff_bentos", "patch_files"]

SECTIONS = ("files", "packages", "models", "config", "api")
_PATCH_LIMIT = 256 << 10
_CONFIG_KEYS = ("service", "python", "platform", "description")
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*(?:\[[\w.,-]+\])?)(?:==| @ )([^\s;\\]+)")


@dataclass(frozen=True)
class Change:
    """One difference.

    Args:
        name: of the file, package, model, key or route.
        old: what the first Bento has, as short text; None where it has nothing.
        new: the same of the second.
        parts: what differs inside, for routes: ``input``, ``output``, …
    """

    name: str
    old: str | None
    new: str | None
    parts: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``added``, ``removed`` or ``changed``."""
        return "added" if self.old is None else "removed" if self.new is None else "changed"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"change": self.kind, **asdict(self), "parts": list(self.parts)}


@dataclass(frozen=True)
class FilePatch:
    """A text file's difference as a unified diff."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class BentoDiff:
    """All differences of two Bentos, each section sorted by name."""

    files: tuple[Change, ...]
    packages: tuple[Change, ...]
    models: tuple[Change, ...]
    config: tuple[Change, ...]
    api: tuple[Change, ...]

    def __bool__(self) -> bool:
        return any(getattr(self, section) for section in SECTIONS)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {section: [change.to_dict() for change in getattr(self, section)] for section in SECTIONS}


def diff_bentos(store: BentoStore, old: StoredBento, new: StoredBento) -> BentoDiff:
    """Compare two Bentos by content; their names, versions and times do not count.

    Raises:
        VerificationError: a layer is damaged.
        NotFoundError: a layer is not in the store.
    """
    return BentoDiff(
        files=_changes(_files(store, old), _files(store, new)),
        packages=_package_changes(store.requirements(old), store.requirements(new)),
        models=_changes(_models(old), _models(new)),
        config=_changes(_config(old), _config(new)),
        api=_api_changes(store.api(old), store.api(new)),
    )


def patch_files(store: BentoStore, old: StoredBento, new: StoredBento, changes: tuple[Change, ...]) -> list[FilePatch]:
    """Unified diffs of the changed files that are text of at most 256 KiB."""
    wanted = frozenset(change.name for change in changes)
    before, after = dict(_texts(store, old, wanted)), dict(_texts(store, new, wanted))
    patches = []
    for change in changes:
        left = before.get(change.name) if change.old is not None else ""
        right = after.get(change.name) if change.new is not None else ""
        if left is not None and right is not None:
            lines = difflib.unified_diff(
                left.splitlines(),
                right.splitlines(),
                f"{old.tag}/{change.name}",
                f"{new.tag}/{change.name}",
                lineterm="",
            )
            patches.append(FilePatch(change.name, tuple(lines)))
    return patches


def _changes(old: Mapping[str, str], new: Mapping[str, str]) -> tuple[Change, ...]:
    names = sorted(old.keys() | new.keys())
    return tuple(Change(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name))


def _files(store: BentoStore, bento: StoredBento) -> dict[str, str]:
    found = {}
    with store.layout.open_layer(bento.layer(CODE)) as stream:
        for entry, pieces in untar(stream):
            digest = hashlib.sha256()
            for piece in pieces:
                digest.update(piece)
            name = project_name(entry.name)
            if name is not None:
                found[name] = f"{entry.size} bytes, {digest.hexdigest()[:12]}"
    return found


def _texts(store: BentoStore, bento: StoredBento, wanted: frozenset[str]) -> Iterator[tuple[str, str]]:
    with store.layout.open_layer(bento.layer(CODE)) as stream:
        for entry, pieces in untar(stream):
            name = project_name(entry.name)
            if name is None or name not in wanted or entry.size > _PATCH_LIMIT:
                for _ in pieces:
                    pass
                continue
            content = b"".join(pieces)
            if b"\0" not in content:
                try:
                    yield name, content.decode()
                except UnicodeDecodeError:
                    continue


def _package_changes(old: str, new: str) -> tuple[Change, ...]:
    """Versions that differ; where one version has other files in each lock, their hashes tell the two apart."""
    before, after = _packages(old), _packages(new)
    found = []
    for name in sorted(before.keys() | after.keys()):
        (left, left_files), (right, right_files) = before.get(name, (None, "")), after.get(name, (None, ""))
        if left != right:
            found.append(Change(name, left, right))
        elif left_files != right_files:
            found.append(Change(name, f"{left}, files {left_files}", f"{right}, files {right_files}"))
    return tuple(found)


def _packages(lock: str) -> dict[str, tuple[str, str]]:
    """Version, and a digest of the hashes, of each package of a lock."""
    found: dict[str, tuple[str, list[str]]] = {}
    hashes: list[str] = []
    for line in lock.splitlines():
        pin = _PIN.match(line)
        if pin:
            hashes = []
            found[pin[1]] = (pin[2], hashes)
        hashes += re.findall(r"sha256:([0-9a-f]{64})", line) if not line.startswith("#") else []
    return {
        name: (version, hashlib.sha256(" ".join(sorted(files)).encode()).hexdigest()[:8])
        for name, (version, files) in found.items()
    }


def _models(bento: StoredBento) -> dict[str, str]:
    return {model.alias: f"{model.name}:{model.version}, {model.digest[7:19]}" for model in bento.models}


def _config(bento: StoredBento) -> dict[str, str]:
    found = {name: str(getattr(bento, name)) for name in _CONFIG_KEYS if getattr(bento, name)}
    found |= {f"labels.{name}": value for name, value in bento.labels.items()}
    for env in bento.config.get("envs", ()):
        found[f"envs.{env.get('name')}"] = f"{env.get('value', '')!r} ({env.get('stage', 'all')})"
    for name, value in bento.config.get("image", {}).items():
        found[f"image.{name}"] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    for argument in bento.arguments:
        value = json.dumps(argument["value"], ensure_ascii=False) if "value" in argument else "default"
        found[f"arguments.{argument['name']}"] = f"{argument['type']} ({'secret' if argument['secret'] else value})"
    runtime = bento.config.get("runtime", {})
    found["runtime"] = f"{runtime.get('version')}, {str(runtime.get('digest'))[7:19]}"
    return found


def _api_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    before, after = _routes(old), _routes(new)
    found = []
    for name in sorted(before.keys() | after.keys()):
        left, right = before.get(name), after.get(name)
        if left == right:
            continue
        keys = sorted((left or {}).keys() | (right or {}).keys())
        parts = tuple(key for key in keys if left and right and left.get(key) != right.get(key))
        found.append(Change(name, _signature(left), _signature(right), parts))
    return tuple(found)


def _routes(documents: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    schema = documents.get("schema")
    routes = schema.get("routes", ()) if isinstance(schema, Mapping) else ()
    return {f"{route.get('method', 'POST')} {route.get('route')}": dict(route) for route in routes}


def _signature(route: Mapping[str, Any] | None) -> str | None:
    if route is None:
        return None
    given = route.get("input") or {}
    inputs = ", ".join(f"{name}: {_type(value)}" for name, value in (given.get("properties") or {}).items())
    return f"({inputs}) -> {_type(route.get('output'))}"


def _type(schema: Any) -> str:
    return str(schema.get("type") or schema.get("title") or "any") if isinstance(schema, Mapping) else "any"
