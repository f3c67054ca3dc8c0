"""What mounted applications say of themselves, as a part of their service's OpenAPI document: FastAPI's do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.sdk.mounting import Mount

__all__ = ["add_mounts"]

_log = logging.getLogger("bentotool.service")
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def add_mounts(document: dict[str, Any], mounts: Sequence[Mount], prefix: str) -> None:
    """Put the paths and components of mounted applications into a document.

    An application that describes itself in another version of OpenAPI, or fails to, is left out.

    Args:
        document: of the service; it is changed.
        prefix: the service's own.
    """
    for mount in mounts:
        found = _described(mount)
        if found is None:
            continue
        names = _own_names(mount, found, document)
        for kind, entries in found.get("components", {}).items():
            place = document["components"].setdefault(kind, {})
            for name, entry in entries.items():
                place[names.get((kind, name), name)] = _renamed(entry, names)
        taken = {
            operation.get("operationId")
            for item in document["paths"].values()
            for operation in item.values()
            if isinstance(operation, Mapping)
        }
        for path, item in found.get("paths", {}).items():
            own = _renamed(item, names)
            for method in _METHODS:
                operation = own.get(method)
                if isinstance(operation, dict) and operation.get("operationId") in taken - {None}:
                    operation["operationId"] = f"{mount.name}__{operation['operationId']}"
            document["paths"].setdefault(f"{prefix}{mount.path}{path}", own)


def _described(mount: Mount) -> dict[str, Any] | None:
    describe = getattr(mount.app, "openapi", None)
    if not callable(describe):
        return None
    try:
        found = describe()
    except Exception:
        _log.exception("the application mounted at %s does not describe itself", mount.path or "/")
        return None
    if not isinstance(found, dict) or not str(found.get("openapi", "")).startswith("3.1"):
        return None
    return found


def _own_names(mount: Mount, found: Mapping[str, Any], document: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    """New names for components whose names mean something else in the document."""
    names: dict[tuple[str, str], str] = {}
    for kind, entries in found.get("components", {}).items():
        place = document["components"].get(kind, {})
        for name, entry in entries.items():
            if name in place and place[name] != entry:
                names[kind, name] = f"{mount.name}__{name}"
    return names


def _renamed(value: Any, names: Mapping[tuple[str, str], str]) -> Any:
    """A copy whose references follow the new names."""
    if isinstance(value, Mapping):
        return {key: _reference(each, names) if key == "$ref" else _renamed(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_renamed(each, names) for each in value]
    return value


def _reference(target: Any, names: Mapping[tuple[str, str], str]) -> Any:
    parts = str(target).split("/")
    if len(parts) == 4 and parts[:2] == ["#", "components"] and (parts[2], parts[3]) in names:
        return "/".join([*parts[:3], names[parts[2], parts[3]]])
    return _renamed(target, names)
