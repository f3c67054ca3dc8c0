"""Pods as Knative Serving takes them, which KServe may hand on to it.

They are those of the target ``k8s`` without what Knative does itself (its queue drains before a pod ends, sets ``PORT``
and probes a pod that starts) and without fields that it refuses unless a feature is switched on. Source: Knative's
specification of the API (RevisionSpec), and what its webhook allows (``config-features`` as it is installed).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bentotool.deployspec import DeployService
from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_k8s.manifests.metadata import Group, Member, Object
from bentotool_k8s.manifests.pods import PORT, pod_template
from bentotool_k8s.serverless_options import PLAIN_DEFAULTS

__all__ = ["Scale", "as_one", "feature_notes", "filled", "pod_of", "scale_of"]

_USUAL_TIMEOUT_S = 60.0
_ABOVE_S = 5  # the service's own answer to a request that took too long comes first
_MOST_AT_ONCE = 1000  # Knative's bound where it is not set up otherwise
_OF_POD = ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "imagePullSecrets",
           "nodeSelector", "runtimeClassName")  # fmt: skip
_FEATURES = {
    "node-selector": "kubernetes.podspec-nodeselector", "toleration": "kubernetes.podspec-tolerations",
    "runtime-class": "kubernetes.podspec-runtimeclassname",
}  # fmt: skip


@dataclass(frozen=True)
class Scale:
    """How a Service scales, and for how long it may answer.

    Args:
        most: pods; None: as the cluster says.
        target: requests at once per pod that are aimed at; None: as the cluster says.
        at_once: requests that a pod is sent at once; 0: no bound.
        timeout_s: for a request.
    """

    least: int
    most: int | None
    target: float | None
    at_once: int
    timeout_s: int


def filled(options: DeployOptions) -> DeployOptions:
    """Options with a value for all that makes pods of the target ``k8s``; what ends a pod is left to Knative."""
    ours = {"pre-stop": 0, "drain": 0, "grace": None, "scale-target": None, "spread": "none"}
    own = {key: value for key, value in options.values.items() if key.rpartition(".")[2] != "scale-target"}
    return replace(options, values={**PLAIN_DEFAULTS, **own, **ours})


def scale_of(service: DeployService, values: Mapping[str, Any]) -> Scale:
    """The scaling of a Service, from its traffic settings and the options.

    Raises:
        UsageError: values that exclude each other.
    """
    least, most = int(values["min-scale"]), values["max-scale"]
    if most is not None and most < least:
        raise UsageError(f"{service.name} cannot scale from {least} pods to {most}", hint=f"--max-scale {least}")
    traffic = service.traffic
    given = values["concurrency"]
    at_once = int(given) if given is not None else int(str(traffic.get("max_concurrency") or 0))
    aim = values["scale-target"] or traffic.get("concurrency")
    own = float(str(traffic.get("timeout") or _USUAL_TIMEOUT_S))
    timeout = values["request-timeout"]
    return Scale(
        least,
        int(most) if most is not None else None,
        float(str(aim)) if aim else None,
        min(at_once, _MOST_AT_ONCE),
        math.ceil(float(timeout)) if timeout is not None else math.ceil(own) + _ABOVE_S,
    )


def pod_of(group: Group, member: Member, container_name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metadata and spec of a Service's pods.

    Raises:
        UsageError: a Service that Knative's proxy cannot speak to.
    """
    if member.service.tls:
        raise UsageError(
            f"{member.service.name} speaks HTTPS itself, and Knative's proxy speaks HTTP to its pods",
            hint="leave ssl out of it, or deploy to k8s",
        )
    template = pod_template(group, member)
    pod = template["spec"]
    (container,) = pod["containers"]
    shaped = {
        "name": container_name,
        **{key: container[key] for key in ("image", "imagePullPolicy", "args") if key in container},
        "ports": [{"name": "http1", "containerPort": PORT}],
        "env": [each for each in container["env"] if each["name"] != "PORT"],
        "resources": container["resources"],
        **_probes(member),
        "securityContext": {**_secured(pod["securityContext"]), **container["securityContext"]},
        "volumeMounts": container["volumeMounts"],
    }
    spec = {
        **{key: pod[key] for key in _OF_POD if key in pod},
        "tolerations": [dict(each) for each in member.settings.tolerations],
        "containers": [shaped],
        "volumes": [_readable(each) for each in pod["volumes"]],
    }
    metadata = {"labels": template["metadata"]["labels"], "annotations": template["metadata"]["annotations"]}
    return metadata, {key: value for key, value in spec.items() if value != []}


def _probes(member: Member) -> Object:
    """Ready as the runtime says: without a period Knative asks many times a second while a pod starts. Alive from the
    start on, since the runtime's supervisor answers while the service still loads.
    """
    paths = member.service.probes
    return {
        "readinessProbe": {"httpGet": {"path": paths["readyz"], "port": PORT}},
        "livenessProbe": {
            "httpGet": {"path": paths["livez"], "port": PORT},
            "initialDelaySeconds": 10, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        },
    }  # fmt: skip


def _secured(pod: Mapping[str, Any]) -> dict[str, Any]:
    """What the pod's security context says, for its container: Knative takes no other."""
    return {key: pod[key] for key in ("runAsNonRoot", "runAsUser", "runAsGroup", "seccompProfile")}


def _readable(volume: Mapping[str, Any]) -> dict[str, Any]:
    """A volume that the process can read although nothing gives it to its group."""
    if "secret" not in volume:
        return dict(volume)
    return {**volume, "secret": {**volume["secret"], "defaultMode": 0o444}}


def feature_notes(values: Mapping[str, Any]) -> Sequence[str]:
    """What has to be switched on in the cluster for what is asked for."""
    asked = [name for name in _FEATURES if any(values[key] for key in values if key.rpartition(".")[2] == name)]
    return [f"--{name} needs the feature {_FEATURES[name]} in Knative's config-features" for name in asked]


def as_one(bento: DeployBento) -> DeployBento:
    """A Bento whose entry runs the whole graph in its pods."""
    if not bento.services:
        return bento
    entry, *others = bento.services
    return replace(bento, services=(entry, *(replace(each, target="") for each in others)))
