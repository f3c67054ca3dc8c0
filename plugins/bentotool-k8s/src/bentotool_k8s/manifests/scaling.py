"""How many pods there are: HorizontalPodAutoscaler or ScaledObject, and PodDisruptionBudget.

Sources: the ``autoscaling/v2`` API; KEDA's reference of ``ScaledObject`` and of its ``cpu`` and ``prometheus`` scalers.
"""

from __future__ import annotations

from typing import Any

from bentotool_k8s.manifests.metadata import Group, Member, Object
from bentotool_k8s.settings import Settings

__all__ = ["budget", "scaler"]

_PROGRESS = "bentotool_service_request_in_progress"
"""The runtime's own gauge: requests being answered."""
_CPU_PERCENT, _REQUESTS = 80, 10
_POLL_S = 15


def budget(group: Group, member: Member) -> list[Object]:
    """A PodDisruptionBudget where there can be several pods: nodes that are emptied take one at a time."""
    if not member.settings.several:
        return []
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": group.metadata(member.name, member),
            "spec": {
                "maxUnavailable": 1,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": group.selector(member)},
            },
        }
    ]


def scaler(group: Group, member: Member) -> list[Object]:
    """What scales the Service, where that is asked for."""
    if member.settings.max_replicas is None:
        return []
    return [_scaled(group, member) if member.settings.values["scaler"] == "keda" else _horizontal(group, member)]


def _target(member: Member) -> Object:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "name": member.name}


def _level(member: Member) -> float:
    """The level that is kept: percent of CPU, or requests of a pod."""
    values, declared = member.settings.values, member.service.traffic.get("concurrency")
    if values["scale-target"] is not None:
        return float(values["scale-target"])
    if values["scale-on"] == "cpu":
        return _CPU_PERCENT
    return declared if isinstance(declared, (int, float)) and declared > 0 else _REQUESTS


def _horizontal(group: Group, member: Member) -> Object:
    settings, level = member.settings, _level(member)
    if settings.values["scale-on"] == "cpu":
        cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": round(level)}}
        metric: Object = {"type": "Resource", "resource": cpu}
    else:
        average = {"type": "AverageValue", "averageValue": f"{level:g}"}
        metric = {"type": "Pods", "pods": {"metric": {"name": _PROGRESS}, "target": average}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": group.metadata(member.name, member),
        "spec": {
            "scaleTargetRef": _target(member),
            "minReplicas": settings.min_replicas,
            "maxReplicas": settings.max_replicas,
            "metrics": [metric],
        },
    }


def _scaled(group: Group, member: Member) -> Object:
    settings = member.settings
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": group.metadata(member.name, member),
        "spec": {
            "scaleTargetRef": _target(member),
            "pollingInterval": _POLL_S,
            "cooldownPeriod": int(settings.values["cooldown"]),
            "minReplicaCount": settings.min_replicas,
            "maxReplicaCount": settings.max_replicas,
            "triggers": [_trigger(group, member, settings.values, settings)],
        },
    }


def _trigger(group: Group, member: Member, values: Any, settings: Settings) -> Object:
    level = f"{_level(member):g}"
    if values["scale-on"] == "cpu":
        return {"type": "cpu", "metricType": "Utilization", "metadata": {"value": level}}
    return {
        "type": "prometheus",
        "metadata": {
            "serverAddress": str(values["prometheus"]),
            "query": str(values["scale-query"] or _query(group, member)),
            "threshold": level,
            **({"activationThreshold": "0"} if settings.min_replicas == 0 else {}),
        },
    }


def _query(group: Group, member: Member) -> str:
    """Requests in progress in all pods of the Service; pods are told by how their Deployment names them."""
    space = f'namespace="{group.namespace}",' if group.namespace else ""
    return f'sum({_PROGRESS}{{{space}pod=~"{member.name}-[0-9a-f]+-[0-9a-z]+"}})'
