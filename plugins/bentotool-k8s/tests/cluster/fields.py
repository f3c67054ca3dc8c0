"""Server-side apply as the API server does it: who set which field, conflicts, and what goes when it is left out.

A path is a tuple of elements ``f:NAME`` (a field), ``k:{...}`` (an item of a list, by its keys) as in ``FieldsV1``; an
item's own path stands for its being there. Lists that are not known to be merged by keys are one value.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

KEYS = {
    "containers": ("name",), "initContainers": ("name",), "env": ("name",), "volumes": ("name",),
    "volumeMounts": ("mountPath",), "conditions": ("type",), "imagePullSecrets": ("name",),
}  # fmt: skip
ATOMIC = ("selector", "matchLabels", "nodeSelector", "securityContext")
IGNORED = {"apiVersion", "kind", "status"}
IGNORED_META = {
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields",
    "deletionTimestamp", "deletionGracePeriodSeconds",
}  # fmt: skip
Path = tuple[str, ...]


def keys_of(name: str, items: Any) -> tuple[str, ...]:
    if name == "ports" and items and all(isinstance(each, dict) for each in items):
        return ("containerPort", "protocol") if "containerPort" in items[0] else ("port", "protocol")
    return KEYS.get(name, ())


def element(keys: tuple[str, ...], item: dict[str, Any]) -> str:
    return "k:" + json.dumps({key: item[key] for key in keys}, sort_keys=True)


def paths(item: dict[str, Any]) -> dict[Path, Any]:
    """Every field of an object with its value."""
    found: dict[Path, Any] = {}
    for key, value in item.items():
        if key == "metadata":
            for inner, text in value.items():
                if inner not in IGNORED_META:
                    found.update(_walk(("f:metadata", f"f:{inner}"), inner, text))
        elif key not in IGNORED:
            found.update(_walk((f"f:{key}",), key, value))
    return found


def _walk(path: Path, name: str, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value and name not in ATOMIC:
        for key, inner in value.items():
            yield from _walk((*path, f"f:{key}"), key, inner)
    elif isinstance(value, list) and (keys := keys_of(name, value)):
        for each in value:
            place = (*path, element(keys, each))
            yield place, None
            for key, inner in each.items():
                yield from _walk((*place, f"f:{key}"), key, inner)
    else:
        yield path, value


def tree(found: set[Path]) -> dict[str, Any]:
    """``FieldsV1`` of a set of paths."""
    root: dict[str, Any] = {}
    for path in sorted(found):
        node = root
        for part in path:
            node = node.setdefault(part, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return root


def untree(fields: dict[str, Any], path: Path = ()) -> Iterator[Path]:
    children = {key: inner for key, inner in fields.items() if key != "."}
    if path and ("." in fields or not children):
        yield path
    for key, inner in children.items():
        yield from untree(inner, (*path, key))


def merge(live: Any, applied: Any, name: str = "") -> Any:
    if isinstance(live, dict) and isinstance(applied, dict) and name not in ATOMIC:
        both = {**live, **{key: merge(live.get(key), value, key) for key, value in applied.items()}}
        return both
    if isinstance(live, list) and isinstance(applied, list) and (keys := keys_of(name, applied or live)):
        index = {element(keys, each): each for each in live}
        for each in applied:
            index[element(keys, each)] = merge(index.get(element(keys, each)), each)
        return list(index.values())
    return copy.deepcopy(applied)


def without(item: Any, path: Path, name: str = "") -> Any:
    """The object with one field or item taken out; a map that becomes empty goes too."""
    head, rest = path[0], path[1:]
    if head.startswith("f:") and isinstance(item, dict) and head[2:] in item:
        key = head[2:]
        inner = without(item[key], rest, key) if rest else None
        item = {**item, key: inner}
        if inner in (None, {}, []):
            item.pop(key)
    elif head.startswith("k:") and isinstance(item, list) and item:
        keys = tuple(json.loads(head[2:]))
        kept = []
        for each in item:
            if element(keys, each) != head:
                kept.append(each)
            elif rest:
                kept.append(without(each, rest))
        return kept
    return item


class Conflict(Exception):
    def __init__(self, found: list[tuple[Path, str]]) -> None:
        super().__init__("conflict")
        self.found = found

    def causes(self) -> list[dict[str, str]]:
        return [
            {"reason": "FieldManagerConflict", "message": f'conflict with "{who}" using apps/v1', "field": dotted(path)}
            for path, who in self.found
        ]


def dotted(path: Path) -> str:
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += f".{part[2:]}"
        else:
            text += "[" + ",".join(f'{key}="{value}"' for key, value in json.loads(part[2:]).items()) + "]"
    return text


def managers_of(item: dict[str, Any]) -> dict[tuple[str, str], set[Path]]:
    entries = item["metadata"].get("managedFields") or []
    return {(each["manager"], each["operation"]): set(untree(each["fieldsV1"])) for each in entries}


def record(item: dict[str, Any], managers: dict[tuple[str, str], set[Path]]) -> None:
    item["metadata"]["managedFields"] = [
        {"manager": who, "operation": how, "apiVersion": item["apiVersion"], "fieldsType": "FieldsV1",
         "fieldsV1": tree(found)}
        for (who, how), found in managers.items() if found
    ]  # fmt: skip


def apply(live: dict[str, Any] | None, applied: dict[str, Any], manager: str, *, force: bool) -> dict[str, Any]:
    """What becomes of an object when ``applied`` is applied by a manager.

    Raises:
        Conflict: it has values that other managers have set in another way.
    """
    wanted = paths(applied)
    if live is None:
        made = copy.deepcopy(applied)
        record(made, {(manager, "Apply"): set(wanted)})
        return made
    managers, present, me = managers_of(live), paths(live), (manager, "Apply")
    conflicts = [
        (path, who)
        for path, value in wanted.items()
        for (who, how), owned in managers.items()
        if (who, how) != me and path in owned and present.get(path) != value
    ]
    if conflicts and not force:
        raise Conflict(conflicts)
    for path, _ in conflicts:
        for key, owned in managers.items():
            if key != me:
                owned.discard(path)
    merged = merge(live, applied)
    gone = managers.get(me, set()) - set(wanted)
    for path in sorted(gone, key=len):
        if any(path[:end] in gone for end in range(1, len(path))):  # the item that it is in goes
            continue
        if not any(path in owned for key, owned in managers.items() if key != me):
            merged = without(merged, path)
    managers[me] = set(wanted)
    record(merged, managers)
    return merged
