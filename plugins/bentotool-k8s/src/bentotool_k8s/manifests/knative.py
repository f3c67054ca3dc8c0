"""A Knative Service for each Service of the graph (``serving.knative.dev/v1``)."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from bentotool.deployspec import PublishedImage
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_k8s.manifests import Shape, group_of, notes
from bentotool_k8s.manifests.metadata import Group, Member, Object
from bentotool_k8s.manifests.pods import CONTAINER
from bentotool_k8s.manifests.serverless import Scale, feature_notes, filled, pod_of, scale_of
from bentotool_k8s.manifests.workloads import account

__all__ = ["KNATIVE", "knative_objects"]

_LOCAL = {"networking.knative.dev/visibility": "cluster-local"}
_LONGEST_S = 600  # Knative's bound of a request where it is not set up otherwise


class _Group(Group):
    """Members that call one another through Knative, which starts those that are scaled to zero."""

    def address(self, member: Member) -> str:
        """Knative routes by host: a Service's name alone is none that it knows."""
        return f"http://{member.name}.{self.namespace or 'default'}.svc{member.service.path_prefix}"


def knative_objects(
    bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str = ""
) -> list[Object]:
    """All objects of a deployment: those that are called first.

    Raises:
        UsageError: an option that cannot be.
    """
    group = _group(bento, options, image, namespace)
    return [*account(group), *(_service(group, member, options) for member in reversed(group.members))]


def _group(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str) -> Group:
    made = group_of(bento, filled(options), image, namespace)
    return _Group(**{field.name: getattr(made, field.name) for field in fields(made)})


def _service(group: Group, member: Member, options: DeployOptions) -> Object:
    values = options.of_service(member.service.name)
    scale = scale_of(member.service, values)
    metadata, spec = pod_of(group, member, CONTAINER)
    scaling = _scaling(scale, values, member.settings.startup)
    own = group.metadata(member.name, member)
    local = not member.entry or bool(values["cluster-local"])
    return {
        "apiVersion": "serving.knative.dev/v1",
        "kind": "Service",
        "metadata": {**own, "labels": {**own["labels"], **(_LOCAL if local else {})}},
        "spec": {
            "template": {
                "metadata": {**metadata, "annotations": {**metadata["annotations"], **scaling}},
                "spec": {"containerConcurrency": scale.at_once, "timeoutSeconds": scale.timeout_s, **spec},
            }
        },
    }


def _scaling(scale: Scale, values: dict[str, Any], startup_s: int) -> dict[str, str]:
    delay = values["scale-down-delay"]
    found = {
        "autoscaling.knative.dev/min-scale": str(scale.least),
        "autoscaling.knative.dev/max-scale": str(scale.most) if scale.most is not None else "",
        "autoscaling.knative.dev/target": f"{scale.target:g}" if scale.target is not None else "",
        "autoscaling.knative.dev/scale-down-delay": f"{delay:g}s" if delay is not None else "",
        "serving.knative.dev/progress-deadline": f"{startup_s}s",
    }
    return {name: value for name, value in found.items() if value}


def _url(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str) -> str:
    """Where it answers: Knative tells, once it is there; within the cluster that is known before."""
    if not options.values["cluster-local"]:
        return ""
    group = _group(bento, options, image, namespace)
    return group.address(group.members[0])


def _notes(bento: DeployBento, options: DeployOptions, image: PublishedImage, namespace: str) -> list[str]:
    group = _group(bento, options, image, namespace)
    found = [*notes(group), *feature_notes(options.values)]
    scales = [scale_of(each.service, options.of_service(each.service.name)) for each in group.members]
    if any(scale.timeout_s > _LONGEST_S for scale in scales):
        found.append(f"requests of more than {_LONGEST_S} s: max-revision-timeout-seconds of Knative has to allow them")
    if len(group.members) > 1 and not namespace:
        found.append("the Services find one another in the namespace default: --namespace for another")
    return found


KNATIVE = Shape(
    "knative", knative_objects, _notes, _url,
    {"manifests": "One file for kubectl apply -f", "kustomize": "A Kustomize base, a file for each object"},
)  # fmt: skip
