"""What a plan changes at its target, value by value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bentotool.interfaces import JSON
from bentotool.targetspec import Plan, PlannedResource

__all__ = ["Change", "differences", "differences_document"]


@dataclass(frozen=True)
class Change:
    """One value of a resource that is not as it will be.

    Args:
        path: where it stands, keys joined by dots; ``[]`` for one of a list, whose order does not count, ``[NAME]``
            where what is in it has names.
        now: what stands; None: nothing.
        then: what will; None: nothing.
    """

    path: str
    now: JSON
    then: JSON

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"path": self.path, "now": self.now, "then": self.then}


def differences(plan: Plan) -> Iterator[tuple[PlannedResource, list[Change]]]:
    """Each resource that is made, changed or taken away, with what changes of it; those that stay are left out.

    A resource that takes the place of another is a change of that one, whatever the two are called.
    """
    replaced = {(each.kind, each.replaces) for each in plan.resources if each.replaces}
    for resource in plan.resources:
        if resource.action == "delete":
            if (resource.kind, resource.name) not in replaced:
                yield resource, []
        elif resource.now is not None:
            if changes := list(_compare(resource.now, resource.spec, "")):
                yield resource, changes
        elif resource.action != "keep":
            yield resource, []


def differences_document(plan: Plan) -> dict[str, Any]:
    """What ``--diff --json`` prints."""
    found = [
        {**{key: value for key, value in resource.to_dict().items() if key != "spec"},
         "changes": [change.to_dict() for change in changes]}
        for resource, changes in differences(plan)
    ]  # fmt: skip
    return {
        "name": plan.name, "target": plan.target, "tag": plan.bento.tag, "digest": plan.bento.digest,
        "changed": bool(found), "resources": found, "notes": list(plan.notes),
    }  # fmt: skip


def _compare(now: Any, then: Any, path: str) -> Iterator[Change]:
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for key in [*then, *(key for key in now if key not in then)]:
            yield from _compare(now.get(key), then.get(key), f"{path}.{key}" if path else str(key))
    elif _named(now) and _named(then) and now and then:
        names = list(dict.fromkeys(each["name"] for each in (*then, *now)))
        before, after = ({each["name"]: each for each in side} for side in (now, then))
        for name in names:
            yield from _compare(before.get(name), after.get(name), f"{path}[{name}]")
    elif isinstance(now, (list, tuple)) and isinstance(then, (list, tuple)):
        yield from (Change(f"{path}[]", None, each) for each in then if each not in now)
        yield from (Change(f"{path}[]", each, None) for each in now if each not in then)
    elif now != then and not (_empty(now) and _empty(then)):
        yield Change(path, now, then)


def _named(value: Any) -> bool:
    """A list of things that each have a name of their own, such as the containers of a pod."""
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, Mapping) for each in value):
        return False
    names = [each.get("name") for each in value]
    return all(isinstance(name, str) for name in names) and len({*names}) == len(names)


def _empty(value: Any) -> bool:
    return value is None or value in ({}, [], "")
