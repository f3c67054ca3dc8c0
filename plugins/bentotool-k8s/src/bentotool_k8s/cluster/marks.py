"""What marks that something belongs to a deployment, and the one object that knows all of it.

Every object carries two labels. The *anchor*, a ConfigMap, says which kinds there may be of it (so that nothing else is
searched when something is taken away), whose turn it is (a stamp, made anew by each deployment), and what was in place
last, to go back to. It holds no secret: objects name those, and do not contain any.
"""

from __future__ import annotations

import copy
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bentotool_k8s.cluster.api import MANAGER, Api, Object, kind_of, name_of

__all__ = [
    "DEPLOYMENT",
    "MANAGED_BY",
    "Anchor",
    "anchor_name",
    "find_anchor",
    "find_anchors",
    "is_ours",
    "marked",
    "selector",
]

DEPLOYMENT = "bentotool.io/deployment"
MANAGED_BY = "app.kubernetes.io/managed-by"
_ROLE = "bentotool.io/role"
_PREFIX = "bentotool-"
_LIMIT = 700_000  # of a ConfigMap's 1 MiB


def anchor_name(name: str) -> str:
    return f"{_PREFIX}{name}"


def selector(name: str) -> str:
    """What finds the objects of a deployment."""
    return f"{MANAGED_BY}={MANAGER},{DEPLOYMENT}={name}"


def is_ours(item: Object, name: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    return labels.get(DEPLOYMENT) == name and labels.get(MANAGED_BY) == MANAGER


def marked(item: Object, name: str) -> dict[str, Any]:
    """An object with the labels of its deployment; its pods have them too."""
    found = copy.deepcopy(dict(item))
    labels = {MANAGED_BY: MANAGER, DEPLOYMENT: name}
    meta = found.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), **labels}
    template = (found.get("spec") or {}).get("template")
    if isinstance(template, dict) and isinstance(template.get("spec"), Mapping):
        inner = template.setdefault("metadata", {})
        inner["labels"] = {**(inner.get("labels") or {}), **labels}
    return found


@dataclass(frozen=True)
class Anchor:
    """The state of a deployment in the cluster.

    Args:
        target: what deployed it.
        stamp: of the deployment that has the turn.
        state: ``applying`` until it is over, then ``placed``.
        tag, digest, url: of what was last asked for.
        kinds: there may be objects of these.
        objects: what was in place when a deployment last succeeded; nothing where none has.
    """

    name: str
    target: str = ""
    stamp: str = ""
    state: str = ""
    tag: str = ""
    digest: str = ""
    url: str = ""
    kinds: tuple[tuple[str, str], ...] = ()
    objects: tuple[Object, ...] = field(default=(), repr=False)

    def taken(self, target: str, tag: str, digest: str, url: str, objects: Iterable[Object]) -> Anchor:
        """For a deployment that begins: with a stamp of its own, and the kinds that it brings."""
        kinds = dict.fromkeys((*self.kinds, *map(kind_of, objects)))
        return replace(
            self, target=target, stamp=uuid.uuid4().hex, state="applying", tag=tag, digest=digest, url=url,
            kinds=tuple(kinds),
        )  # fmt: skip

    def to_object(self) -> dict[str, Any]:
        """The ConfigMap."""
        objects = json.dumps(list(self.objects), separators=(",", ":"))
        item = {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": anchor_name(self.name), "labels": {_ROLE: "anchor"}},
            "data": {
                "target": self.target, "stamp": self.stamp, "state": self.state, "tag": self.tag,
                "digest": self.digest, "url": self.url, "kinds": json.dumps(self.kinds),
                "objects": objects if len(objects) < _LIMIT else "[]",
            },
        }  # fmt: skip
        return marked(item, self.name)


def parse_anchor(item: Object) -> Anchor:
    """An anchor as it stands; what cannot be read of it is left out."""
    data = item.get("data") or {}
    texts = {key: str(data.get(key, "")) for key in ("target", "stamp", "state", "tag", "digest", "url")}
    kinds = [(str(each[0]), str(each[1])) for each in _parsed(data.get("kinds")) if len(each) == 2]
    objects = [each for each in _parsed(data.get("objects")) if isinstance(each, dict)]
    return Anchor(name_of(item).removeprefix(_PREFIX), **texts, kinds=tuple(kinds), objects=tuple(objects))


def find_anchor(api: Api, name: str) -> tuple[Anchor, Object | None]:
    """The anchor of a deployment, and its object where there is one."""
    item = api.get("v1", "ConfigMap", anchor_name(name))
    return (parse_anchor(item), item) if item is not None else (Anchor(name), None)


def find_anchors(api: Api) -> Sequence[Anchor]:
    """Those of all deployments of the namespace."""
    return [parse_anchor(each) for each in api.find("v1", "ConfigMap", f"{MANAGED_BY}={MANAGER},{_ROLE}=anchor")]


def _parsed(text: object) -> list[Any]:
    try:
        found = json.loads(str(text or "[]"))
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) else []
