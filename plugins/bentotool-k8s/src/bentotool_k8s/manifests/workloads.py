"""What runs: a Deployment for each Service, and the account that its pods have."""

from __future__ import annotations

from bentotool.errors import UsageError
from bentotool_k8s.manifests.metadata import Group, Member, Object
from bentotool_k8s.manifests.pods import ending_seconds, pod_template
from bentotool_k8s.settings import pairs

__all__ = ["account", "deployment"]

_HISTORY = 3
_SLACK_S = 120  # for a node to come and the image to be pulled


def account(group: Group) -> list[Object]:
    """A ServiceAccount without rights, unless there is one."""
    if group.values["service-account"]:
        if group.values["service-account-annotation"]:
            raise UsageError(
                "--service-account-annotation is for a ServiceAccount that is made, and --service-account names one",
                hint="leave one of them out",
            )
        return []
    annotations = pairs(group.values["service-account-annotation"], "service-account-annotation")
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": group.metadata(group.account, annotations=annotations),
            "automountServiceAccountToken": False,
        }
    ]


def deployment(group: Group, member: Member) -> Object:
    """The Deployment of a Service. A new pod is ready before an old one ends."""
    settings = member.settings
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    recreate = settings.values["strategy"] == "recreate"
    spec = {
        # where something scales, the number is its own
        **({"replicas": settings.replicas} if settings.max_replicas is None else {}),
        "revisionHistoryLimit": _HISTORY,
        "progressDeadlineSeconds": settings.startup + ending_seconds(settings) + _SLACK_S,
        "selector": {"matchLabels": group.selector(member)},
        "strategy": {"type": "Recreate"} if recreate else rolling,
        "template": pod_template(group, member),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": group.metadata(member.name, member),
        "spec": spec,
    }
