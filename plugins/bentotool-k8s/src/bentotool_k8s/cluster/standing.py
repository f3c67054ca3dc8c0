"""How deployments are, as the cluster says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bentotool.targetspec import Status
from bentotool_k8s.cluster.api import Api, Object
from bentotool_k8s.cluster.marks import Anchor, find_anchor, find_anchors, selector
from bentotool_k8s.cluster.pods import problem_of
from bentotool_k8s.cluster.refusals import ApiError
from bentotool_k8s.cluster.rollout import condition, deployment_state, deployment_trouble, older_serves, pods_of

__all__ = ["Standing", "all_standing", "look"]

_READY_KINDS = ("serving.knative.dev/", "serving.kserve.io/")


@dataclass(frozen=True)
class Standing:
    """A deployment as it is now.

    Args:
        tag, digest: of what was last asked for, which may still be on its way.
        url: where it answers.
        parts: one line for each that runs.
    """

    name: str
    status: Status
    detail: str
    tag: str = ""
    digest: str = ""
    url: str = ""
    parts: tuple[str, ...] = ()


def look(api: Api, name: str) -> Standing:
    """One deployment."""
    anchor, item = find_anchor(api, name)
    return _standing(api, anchor, known=item is not None)


def all_standing(api: Api, target: str) -> Sequence[Standing]:
    """Those of a target in the namespace."""
    return [_standing(api, anchor, known=True) for anchor in find_anchors(api) if anchor.target in ("", target)]


def _standing(api: Api, anchor: Anchor, *, known: bool) -> Standing:
    labels = selector(anchor.name)
    deployments = api.find("apps/v1", "Deployment", labels)
    others = [
        item
        for version, kind in anchor.kinds
        if version.startswith(_READY_KINDS) and kind != "ServingRuntime" and api.kind(version, kind) is not None
        for item in api.find(version, kind, labels)
    ]
    if not deployments and not others:
        lost = f"nothing runs in namespace {api.namespace}" + (" any more" if known else "")
        return Standing(anchor.name, "missing", lost, anchor.tag, anchor.digest)
    states = [_of_deployment(api, each, labels) for each in deployments]
    states += [_of_condition(each) for each in others]
    order: tuple[Status, ...] = ("unhealthy", "starting", "stopped", "ready")
    status = min((status for status, _, _ in states), key=order.index)
    details = [said for each, said, _ in states if each == status and said]
    if status == "ready" and anchor.state == "applying":
        details = ["a deployment of it was not finished: the same command goes on"]
    return Standing(
        anchor.name, status, details[0] if details else "", anchor.tag, anchor.digest,
        _address(api, anchor, labels) or anchor.url, tuple(line for _, _, line in states),
    )  # fmt: skip


def _of_deployment(api: Api, item: Object, labels: str) -> tuple[Status, str, str]:
    name = str(item["metadata"]["name"])
    done, said = deployment_state(item)
    line = f"{name}: {said}"
    if done:
        if int((item.get("spec") or {}).get("replicas", 1)) == 0:
            return "ready", f"{name} is scaled to zero", f"{name}: scaled to zero"
        return "ready", "", line
    available = int((item.get("status") or {}).get("availableReplicas") or 0)
    trouble = deployment_trouble(item)
    text = trouble.text if trouble is not None else ""
    try:
        sets, pods = api.find("apps/v1", "ReplicaSet", labels), api.find("v1", "Pod", labels)
    except ApiError:  # may see Deployments, and no pods: what is known has to do
        sets, pods = [], []
    if not text:
        found = [problem.text for pod in pods_of(item, sets, pods) if (problem := problem_of(pod)) is not None]
        text = found[0] if found else ""
    detail = f"{name}: {said}" + (f", {text}" if text else "")
    if text and not available:
        return "unhealthy", detail, f"{line}, {text}"
    if text:
        before = "; the version before serves" if older_serves(item, sets, pods) else ""
        return "unhealthy", f"{detail}{before}", f"{line}, {text}"
    return "starting", detail, line


def _of_condition(item: Object) -> tuple[Status, str, str]:
    name, ready = str(item["metadata"]["name"]), condition(item, "Ready")
    said = f"{name}: {ready.get('reason', '')} {ready.get('message', '')}".rstrip(" :")
    if ready.get("status") == "True":
        return "ready", "", f"{name}: ready"
    return ("unhealthy" if ready.get("status") == "False" else "starting"), said, said


def _address(api: Api, anchor: Anchor, labels: str) -> str:
    """That of a load balancer, which is known only once it is there; for others what was planned holds."""
    kinds = dict.fromkeys(kind for _, kind in anchor.kinds)
    for version, kind in anchor.kinds:
        if version.startswith(_READY_KINDS):
            item = api.get(version, kind, anchor.name)  # of a graph, the entry has the deployment's name
            if url := ((item or {}).get("status") or {}).get("url"):
                return str(url)
    if "Ingress" in kinds or "HTTPRoute" in kinds or "Service" not in kinds:
        return ""
    for item in api.find("v1", "Service", labels):
        ports = (item.get("spec") or {}).get("ports") or [{}]
        for each in ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
            if host := each.get("hostname") or each.get("ip"):
                port = ports[0].get("port", 80)
                return f"http://{host}" + ("" if port == 80 else f":{port}")
    return ""
