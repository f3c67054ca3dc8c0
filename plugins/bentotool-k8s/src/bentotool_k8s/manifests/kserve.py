"""A KServe InferenceService (``serving.kserve.io/v1beta1``), with a ServingRuntime (``v1alpha1``) where asked for.

Its pods run the whole graph: KServe knows one predictor, and calls within a graph are the runtime's.
"""

from __future__ import annotations

from typing import Any

from bentotool.deployspec import PublishedImage
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_k8s.manifests import Shape, group_of
from bentotool_k8s.manifests.metadata import Group, Object
from bentotool_k8s.manifests.serverless import Scale, as_one, filled, pod_of, scale_of
from bentotool_k8s.manifests.workloads import account

__all__ = ["KSERVE", "kserve_objects"]

_CONTAINER = "kserve-container"
"""KServe finds the container that answers by this name."""
_FORMAT, _VERSION = "bentotool", "1"
_OF_RUNTIME = ("imagePullSecrets", "nodeSelector", "tolerations", "volumes")
_MODE = "serving.kserve.io/deploymentMode"


def kserve_objects(
    bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str = ""
) -> list[Object]:
    """All objects of a deployment.

    Raises:
        UsageError: an option that cannot be.
    """
    group = group_of(as_one(bento), filled(options), image, namespace)
    member = group.members[0]
    values = options.of_service(member.service.name)
    metadata, spec = pod_of(group, member, _CONTAINER)
    # what pods are marked with goes with the predictor: its labels and annotations are theirs
    predictor = {**_scaling(scale_of(member.service, values), values), "annotations": dict(metadata["annotations"])}
    made = account(group)
    if values["serving-runtime"]:
        made.append(_runtime(group, spec))
        predictor |= {key: value for key, value in spec.items() if key not in (*_OF_RUNTIME, "containers")}
        predictor["model"] = {"modelFormat": {"name": _FORMAT, "version": _VERSION}, "runtime": group.options.name}
    else:
        predictor |= spec
    mode = values["deployment-mode"]
    about = group.metadata(group.options.name, member, annotations={_MODE: mode} if mode else {})
    return [
        *made,
        {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": about,
            "spec": {"predictor": predictor},
        },
    ]


def _runtime(group: Group, spec: dict[str, Any]) -> Object:
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": group.metadata(group.options.name, group.members[0]),
        "spec": {
            "supportedModelFormats": [{"name": _FORMAT, "version": _VERSION, "autoSelect": False}],
            "multiModel": False,
            "containers": spec["containers"],
            **{key: spec[key] for key in _OF_RUNTIME if key in spec},
        },
    }


def _scaling(scale: Scale, values: dict[str, Any]) -> dict[str, Any]:
    """KServe's own fields. By requests it scales only over Knative, so that is left out unless asked for."""
    aimed = {"scaleMetric": "concurrency", "scaleTarget": int(scale.target or 0)} if values["scale-target"] else {}
    return {
        "minReplicas": scale.least,
        **({"maxReplicas": scale.most} if scale.most is not None else {}),
        **aimed,
        **({"containerConcurrency": scale.at_once} if scale.at_once else {}),
        "timeout": scale.timeout_s,
    }


def _url(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str) -> str:
    """KServe tells, once it is there."""
    return ""


def _notes(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str) -> list[str]:
    found = []
    if len(bento.services) > 1:
        names = ", ".join(each.name for each in bento.services)
        entry = bento.services[0].name
        found.append(f"each pod runs all services of the graph, within the resources of {entry}: {names}")
    given = {*options.env, *(text.partition("=")[0] for text in options.values["secret-env"])}
    for service in bento.services:
        missing = [name for name, value in service.envs.items() if value is None and name not in given]
        if missing:
            found.append(f"{service.name} expects {', '.join(missing)}: --secret-env {missing[0]}=SECRET/KEY, or --env")
    return found


KSERVE = Shape(
    "kserve", kserve_objects, _notes, _url,
    {"manifests": "One file for kubectl apply -f", "kustomize": "A Kustomize base, a file for each object"},
)  # fmt: skip
