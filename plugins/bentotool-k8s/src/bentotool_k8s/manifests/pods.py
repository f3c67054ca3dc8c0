"""The pods of a Service: probes, end, resources, places, volumes. They keep to Pod Security "restricted"."""

from __future__ import annotations

import math

from bentotool.errors import UsageError
from bentotool.targetoptions import DEPENDS_VARIABLE, depends_variable
from bentotool_k8s.manifests.metadata import Group, Member, Object
from bentotool_k8s.settings import Settings, pairs

__all__ = ["CONTAINER", "PORT", "ending_seconds", "pod_template"]

CONTAINER = "bento"
PORT = 3000
"""Where the server in an image of ours listens."""
PORT_NAME = "http"

_SLACK_S = 10  # to end after the last request
_PROBE_S, _STARTING_S = 5, 2
_OWN = ("PORT", "BENTOTOOL_HOST", "BENTOTOOL_DRAIN_DELAY", "BENTOTOOL_GRACE", "BENTOTOOL_WORKERS")
_SECRETS = "/run/secrets"


def ending_seconds(settings: Settings) -> int:
    """How long a pod may take to end: the runtime's drain, whole, and what comes before and after it."""
    return settings.pre_stop + math.ceil(settings.drain + settings.grace) + _SLACK_S


def pod_template(group: Group, member: Member) -> Object:
    """The template of a workload's pods."""
    settings, values = member.settings, member.settings.values
    volumes, mounts = _volumes(group, member)
    container = {
        "name": CONTAINER,
        "image": group.image.reference,
        "imagePullPolicy": group.values["pull-policy"],
        **({"args": list(member.service.arguments)} if member.alone and not member.entry else {}),
        "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
        "env": _environment(group, member),
        "resources": {
            "requests": dict(settings.requests),
            **({"limits": dict(settings.limits)} if settings.limits else {}),
        },
        **_probes(member),
        "lifecycle": _lifecycle(settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": mounts,
    }
    container = {key: value for key, value in container.items() if value not in ({}, [])}
    user = int(group.values["user"])
    spec = {
        "serviceAccountName": group.account,
        "automountServiceAccountToken": bool(group.values["token"]),
        "enableServiceLinks": False,  # variables of other Services, which may hide those of this one
        "terminationGracePeriodSeconds": ending_seconds(settings),
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "fsGroup": user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": [{"name": name} for name in group.values["pull-secret"]],
        "priorityClassName": values["priority-class"],
        "runtimeClassName": values["runtime-class"],
        **_places(group, member),
        "containers": [container],
        "volumes": volumes,
    }  # fmt: skip
    metadata = group.metadata("", member)
    annotations = {**pairs(group.values["annotation"], "annotation"), **group.told}
    return {
        "metadata": {"labels": metadata["labels"], "annotations": annotations},
        "spec": {key: value for key, value in spec.items() if value not in (None, "", {}, [], ())},
    }


def _environment(group: Group, member: Member) -> list[Object]:
    """Variables by name. What the user sets wins over the service's own, and nothing wins over how it is served."""
    settings, given = member.settings, dict(group.options.env)
    if taken := sorted(set(_OWN) & given.keys()):
        raise UsageError(
            f"--env {taken[0]} is set by the deployment itself", hint="leave it out; see --help for options"
        )
    addresses = {each.service.name: group.address(each) for each in group.members if each.name in member.calls}
    depends = depends_variable(addresses, given)
    given.pop(DEPENDS_VARIABLE, None)
    ours = {
        "PORT": str(PORT),
        "BENTOTOOL_DRAIN_DELAY": f"{settings.drain:g}",
        "BENTOTOOL_GRACE": f"{settings.grace:g}",
        **({"BENTOTOOL_WORKERS": str(settings.workers)} if settings.workers else {}),
    }
    if depends:
        ours[DEPENDS_VARIABLE] = depends
    declared = {} if member.entry else {name: value for name, value in member.service.envs.items() if value is not None}
    secret = {each.name: each for each in settings.secret_variables}
    if twice := sorted(secret.keys() & {*given, *ours}):
        raise UsageError(f"variable {twice[0]} is set twice", hint="as --env, or as --secret-env")
    plain = {**declared, **given, **ours}
    return [
        *({"name": name, "value": plain[name]} for name in sorted(plain.keys() - secret.keys())),
        *(
            {"name": name, "valueFrom": {"secretKeyRef": {"name": each.secret, "key": each.key}}}
            for name, each in sorted(secret.items())
        ),
    ]


def _probes(member: Member) -> Object:
    """Started when it was ready once; alive while the server answers; ready while it says so."""
    settings, paths = member.settings, member.service.probes
    scheme = {"scheme": "HTTPS"} if member.service.tls else {}

    def asking(path: str, **how: int) -> Object:
        return {"httpGet": {"path": path, "port": PORT_NAME, **scheme}, "timeoutSeconds": _PROBE_S, **how}

    tries = max(1, math.ceil(settings.startup / _STARTING_S))
    return {
        "startupProbe": asking(paths["readyz"], periodSeconds=_STARTING_S, failureThreshold=tries),
        "livenessProbe": asking(paths["livez"], periodSeconds=10, failureThreshold=3),
        "readinessProbe": asking(paths["readyz"], periodSeconds=5, failureThreshold=2),
    }


def _lifecycle(settings: Settings) -> Object:
    """First the cluster hears that no more connections are to come, then the server begins to drain."""
    return {"preStop": {"sleep": {"seconds": settings.pre_stop}}} if settings.pre_stop else {}


def _places(group: Group, member: Member) -> Object:
    settings, values = member.settings, member.settings.values
    labels = {"matchLabels": group.selector(member)}
    tolerations = [dict(each) for each in settings.tolerations]
    gpu = str(values["gpu-resource"])
    if gpu in settings.limits and gpu not in (each["key"] for each in tolerations):
        tolerations.append({"key": gpu, "operator": "Exists", "effect": "NoSchedule"})  # as nodes with GPUs are tainted
    spread = values["spread"]
    constraints = [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule" if spread == "hard" else "ScheduleAnyway",
            "labelSelector": labels,
            "matchLabelKeys": ["pod-template-hash"],  # the pods of one version, or an update would end up on one node
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    return {
        "nodeSelector": dict(settings.node_selector),
        "affinity": {**_node_affinity(settings), **_anti_affinity(str(values["anti-affinity"]), labels)},
        "tolerations": tolerations,
        "topologySpreadConstraints": constraints if spread != "none" and settings.several else [],
    }


def _node_affinity(settings: Settings) -> Object:
    if not settings.node_affinity:
        return {}
    wanted = [
        {"key": name, "operator": "In", "values": list(values)} for name, values in settings.node_affinity.items()
    ]
    terms = {"nodeSelectorTerms": [{"matchExpressions": wanted}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}


def _anti_affinity(how: str, labels: Object) -> Object:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": labels}
    if how == "hard":
        return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    weighed = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": weighed}} if how == "soft" else {}


def _volumes(group: Group, member: Member) -> tuple[list[Object], list[Object]]:
    """Volumes, and where they are mounted."""
    settings = member.settings
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {"sizeLimit": settings.tmp}}]
    mounts: list[Object] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - the image's folder for temporary files
    if settings.shm:
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shm}})
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - what the C library calls shared memory
    for number, each in enumerate(settings.secret_files, 1):
        place = f"{_SECRETS}/{each.name}"
        items = {"items": [{"key": each.key, "path": each.name}]} if each.key else {}
        volumes.append(
            {"name": f"secret-{number}", "secret": {"secretName": each.secret, **items, "defaultMode": 0o440}}
        )
        mounts.append({
            "name": f"secret-{number}", "mountPath": place, **({"subPath": each.name} if each.key else {}),
            "readOnly": True,
        })  # fmt: skip
    if group.values["models"] == "volume":
        found = _models(group)
        volumes += [volume for volume, _ in found]
        mounts += [mount for _, mount in found]
    return volumes, mounts


def _models(group: Group) -> list[tuple[Object, Object]]:
    """A volume for each model, mounted from the registry; its files lie there at the path that they have in an image.

    Raises:
        UsageError: a model has no such view.
    """
    found = []
    for number, model in enumerate(group.bento.models, 1):
        if model.digest not in group.image.volumes:
            raise UsageError(
                f"model {model.name}:{model.version} cannot be mounted as a volume", hint="leave --models volume out"
            )
        name = f"model-{number}"
        pulled = {"reference": group.image.volume(model.digest), "pullPolicy": "IfNotPresent"}
        mount = {"name": name, "mountPath": f"/{model.path}", "subPath": model.path, "readOnly": True}
        found.append(({"name": name, "image": pulled}, mount))
    return found
