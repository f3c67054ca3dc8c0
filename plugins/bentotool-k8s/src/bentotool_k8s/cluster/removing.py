"""Taking away what a deployment made, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from bentotool.errors import RemoteError
from bentotool_k8s.cluster.api import MANAGER, Api, Object, kind_of, name_of, title
from bentotool_k8s.cluster.marks import anchor_name, find_anchor, is_ours, selector

__all__ = ["remove_all", "remove_others"]

# where no anchor says which kinds there are; the ones that bring requests in go first
_KINDS = (
    ("gateway.networking.k8s.io/v1", "HTTPRoute"), ("networking.k8s.io/v1", "Ingress"),
    ("keda.sh/v1alpha1", "ScaledObject"), ("autoscaling/v2", "HorizontalPodAutoscaler"),
    ("policy/v1", "PodDisruptionBudget"), ("serving.kserve.io/v1beta1", "InferenceService"),
    ("serving.kserve.io/v1alpha1", "ServingRuntime"), ("serving.knative.dev/v1", "Service"),
    ("apps/v1", "Deployment"), ("v1", "Service"), ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "ServiceAccount"), ("v1", "ConfigMap"),
)  # fmt: skip
_ORDER = [kind for _, kind in _KINDS]
_GONE_S = 120.0


def found_of(api: Api, name: str, kinds: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """The objects of a deployment that are there, in the order in which they go; without its anchor.

    What carries its labels but was not applied by us, such as a copy that somebody made, is none of it.
    """
    found: list[dict[str, Any]] = []
    for api_version, kind in sorted(kinds, key=lambda each: _ORDER.index(each[1]) if each[1] in _ORDER else -1):
        if api.kind(api_version, kind) is None:
            continue
        items = api.find(api_version, kind, selector(name))
        found += [each for each in items if _applied(each) and name_of(each) != anchor_name(name)]
    return found


def _applied(item: Object) -> bool:
    entries = item["metadata"].get("managedFields") or ()
    return any(each.get("manager") == MANAGER and each.get("operation") == "Apply" for each in entries)


def remove_others(
    api: Api, name: str, kinds: Iterable[tuple[str, str]], keep: Sequence[Object],
    allowed: Callable[[], None] = lambda: None,
) -> list[str]:  # fmt: skip
    """Remove what a deployment no longer has.

    Args:
        kinds: there may be objects of these.
        allowed: asked before each; it raises where nothing more is to be removed.

    Returns:
        What was removed, in words.
    """
    kept = {(*kind_of(each), name_of(each)) for each in keep}
    removed = []
    for item in found_of(api, name, kinds):
        if (*kind_of(item), name_of(item)) in kept:
            continue
        allowed()
        if api.delete(item):
            removed.append(title(item))
    return removed


def remove_all(api: Api, name: str) -> list[str]:
    """Remove all that a deployment made, and wait until it is gone; the anchor goes last.

    Raises:
        RemoteError: something does not go; the same command goes on.
    """
    anchor, anchor_item = find_anchor(api, name)
    if anchor_item is not None and not is_ours(anchor_item, name):
        anchor_item = None
    kinds = dict.fromkeys((*anchor.kinds, *_KINDS)) if anchor_item is None else dict.fromkeys(anchor.kinds)
    items = found_of(api, name, kinds)
    for item in items:
        if not item["metadata"].get("deletionTimestamp"):
            api.delete(item, foreground=item["kind"] == "Deployment")
    _wait_gone(api, name, items)
    removed = [title(item) for item in items]
    if anchor_item is not None and api.delete(anchor_item):
        removed.append(title(anchor_item))
    return removed


def _wait_gone(api: Api, name: str, items: Collection[Object]) -> None:
    """Until neither the objects nor their pods are there: only then a name is free again."""
    deadline = time.monotonic() + _GONE_S
    left = list(items)
    while left:
        there = ((each, api.get(*kind_of(each), name_of(each))) for each in left)
        left = [each for each, now in there if now and now["metadata"]["uid"] == each["metadata"]["uid"]]
        if left and time.monotonic() > deadline:
            held = ", ".join(map(title, left))
            raise RemoteError(
                f"{held} is still there after {_GONE_S:g} s: its pods end, or something holds it (metadata.finalizers)",
                hint=f"give the same command again; kubectl get pods -n {api.namespace} -l {selector(name)}",
            )
        if left:
            time.sleep(0.5)
