"""What applying an object would change of the one that stands there.

Compared is what the server makes of it in a dry run, so that what it fills in, or writes in another way (``1000m`` as
``1``), is no difference. Which fields are ours, to be taken away when we no longer name them, stands in
``metadata.managedFields`` (format ``FieldsV1``, see server-side apply).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.interfaces import JSON
from bentotool_k8s.cluster.api import MANAGER, Object

__all__ = ["as_asked_for", "owned", "same"]

_SERVERS = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


def same(live: Object, then: Object) -> bool:
    """Whether nothing changes, the server's own bookkeeping left aside."""
    return _bare(live) == _bare(then)


def _bare(item: Object) -> dict[str, Any]:
    meta = {key: value for key, value in item["metadata"].items() if key not in _SERVERS}
    annotations = {
        key: value
        for key, value in (meta.get("annotations") or {}).items()
        if key != "deployment.kubernetes.io/revision"
    }
    meta = {**{key: value for key, value in meta.items() if key != "annotations"}, "annotations": annotations}
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": meta}


def as_asked_for(live: Object, wanted: Object, then: Object) -> dict[str, JSON]:
    """What stands there, in the form of what is wanted: fields that both have, and ours that are wanted no more.

    Args:
        then: what the server would make of ``wanted``.
    """
    found: dict[str, JSON] = _merged(_projected(live, wanted, then), owned(live))
    return found


def _projected(live: Any, wanted: Any, then: Any) -> Any:
    if live == then:
        return wanted
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        other = then if isinstance(then, Mapping) else {}
        return {key: _projected(live[key], wanted[key], other.get(key)) for key in wanted if key in live}
    if _named(wanted) and _named(live) and wanted:
        by_name = {each["name"]: each for each in live}
        others = {each["name"]: each for each in then} if _named(then) else {}
        return [
            _projected(by_name[each["name"]], each, others.get(each["name"]))
            for each in wanted
            if each["name"] in by_name
        ]
    return live


def _merged(shown: Any, ours: Any) -> Any:
    """``shown``, and what of ours is not in it."""
    if isinstance(shown, Mapping) and isinstance(ours, Mapping):
        more = {key: value for key, value in ours.items() if key not in shown}
        return {**{key: _merged(value, ours[key]) if key in ours else value for key, value in shown.items()}, **more}
    if _named(shown) and _named(ours):
        mine = {each["name"]: each for each in ours}
        there = {each["name"] for each in shown}
        kept = [_merged(each, mine[each["name"]]) if each["name"] in mine else each for each in shown]
        return [*kept, *(each for each in ours if each["name"] not in there)]
    return shown


def owned(live: Object) -> dict[str, Any]:
    """The fields of an object that are ours, with their values."""
    found: dict[str, Any] = {}
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and not entry.get("subresource"):
            found = _picked(live, entry.get("fieldsV1") or {})
    return found if isinstance(found, dict) else {}


def _picked(value: Any, fields: Mapping[str, Any]) -> Any:
    children = {key: inner for key, inner in fields.items() if key != "."}
    if not children:
        return value
    if isinstance(value, Mapping):
        names = {key[2:]: inner for key, inner in children.items() if key.startswith("f:")}
        return {key: _picked(value[key], inner) for key, inner in names.items() if key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _items(value, children)
    return value


def _items(value: Sequence[Any], children: Mapping[str, Any]) -> list[Any]:
    found = []
    for each in value:
        for key, inner in children.items():
            if key.startswith("k:") and isinstance(each, Mapping):
                wanted = _parsed(key[2:])
                if isinstance(wanted, dict) and all(each.get(name) == item for name, item in wanted.items()):
                    found.append({**wanted, **_picked(each, inner)} if inner else each)
            elif key.startswith("v:") and _parsed(key[2:]) == each:
                found.append(each)
    return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _named(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(each, Mapping) and "name" in each for each in value)
