"""A Bento as a service of Cloud Run: the body that its Admin API v2 takes (``Service`` of the discovery document).

One instance serves the whole graph: services of Cloud Run that call each other would need an identity token with each
call, and would be started one after the other. Fields that the API fills in by itself are left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.deployspec import DeployService
from bentotool.errors import UsageError
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_cloudrun.sizing import Size, size_of

__all__ = ["BENTO", "DEPLOYMENT", "DIGEST", "LABEL", "as_asked_for", "check_name", "service_body"]

LABEL = "bentotool-deployment"
DEPLOYMENT = "io.bentotool.deployment"
BENTO = "io.bentotool.deployment.bento"
DIGEST = "io.bentotool.deployment.digest"

_PORT = 3000
_MAX_NAME = 49
_GRACE_S = 8  # Cloud Run ends an instance 10 s after SIGTERM
_ABOVE_S = 5  # the service's own answer to a request that took too long comes first
_USUAL_TIMEOUT_S = 60.0
_USUAL_CONCURRENCY = 80
_MAX_TIMEOUT_S, _MAX_CONCURRENCY = 3600, 1000
_STARTUP_S, _STARTUP_EVERY_S = 240, 2  # the longest that Cloud Run waits for a start
_INGRESS = {
    "all": "INGRESS_TRAFFIC_ALL", "internal": "INGRESS_TRAFFIC_INTERNAL_ONLY",
    "internal-and-cloud-load-balancing": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
}  # fmt: skip
_TAKEN = frozenset({"PORT", "K_SERVICE", "K_REVISION", "K_CONFIGURATION", "BENTOTOOL_GRACE", "BENTOTOOL_HOST"})
_SECRET = re.compile(r"(?:projects/[^/:=]+/secrets/)?[A-Za-z0-9_-]{1,255}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_FILE = re.compile(r"(/[A-Za-z0-9_./-]*[A-Za-z0-9_.-])/([A-Za-z0-9_.-]+)")
_TAG = re.compile(r"[a-z](?:[a-z0-9-]{0,44}[a-z0-9])?")
_SERVER_FILLS = frozenset({"volumes", "nodeSelector", "volumeMounts"})
"""Fields that are absent unless somebody asked for them: one that stands and is not asked for any more is a change."""


def check_name(name: str) -> str:
    """The name of a service, from that of the deployment.

    Raises:
        UsageError: Cloud Run takes no name of that length.
    """
    if len(name) > _MAX_NAME:
        raise UsageError(f"{name} has {len(name)} characters, and Cloud Run takes {_MAX_NAME}", hint="--name NAME")
    return name


def service_body(bento: DeployBento, options: DeployOptions, image: str) -> dict[str, Any]:
    """The service without its traffic, which goes by what stands.

    Raises:
        UsageError: a value that Cloud Run does not take.
    """
    values = options.values
    notes = {DEPLOYMENT: options.name, BENTO: bento.tag, DIGEST: bento.digest}
    if values["revision-tag"] and not _TAG.fullmatch(str(values["revision-tag"])):
        raise UsageError(
            f"revision-tag {values['revision-tag']!r} is no tag",
            hint="lower-case letters, digits and dashes: --revision-tag next",
        )
    return {
        "labels": {"managed-by": "bentotool", LABEL: options.name},
        "annotations": notes,
        "client": "bentotool",
        "ingress": _INGRESS[str(values["ingress"])],
        "invokerIamDisabled": bool(values["allow-unauthenticated"]),
        "template": _template(bento, options, image, notes),
    }


def _template(bento: DeployBento, options: DeployOptions, image: str, notes: Mapping[str, str]) -> dict[str, Any]:
    values, entry = options.values, bento.services[0] if bento.services else DeployService(bento.name)
    if entry.tls:
        raise UsageError(
            f"{entry.name} speaks HTTPS itself, and Cloud Run speaks HTTP to its containers", hint="leave ssl out of it"
        )
    size = size_of(values, bento.services)
    secrets, volumes, mounts = _secrets(tuple(values["secret"]))
    least, most = values["min-instances"], values["max-instances"]
    if most is not None and most < least:
        raise UsageError(f"max-instances {most} is less than min-instances {least}", hint=f"--max-instances {least}")
    return {
        "labels": {LABEL: options.name},
        "annotations": dict(notes),
        "scaling": {"minInstanceCount": least, **({"maxInstanceCount": most} if most is not None else {})},
        "timeout": f"{_timeout(values, entry)}s",
        "maxInstanceRequestConcurrency": _concurrency(values, entry, size),
        **({"serviceAccount": values["service-account"]} if values["service-account"] else {}),
        **_accelerator(size, values),
        "containers": [
            {
                "name": "service",
                "image": image,
                "ports": [{"name": "http1", "containerPort": _PORT}],
                "env": [*_environment(options, secrets), *secrets],
                "resources": {
                    "limits": {
                        "cpu": size.cpu, "memory": size.memory, **({"nvidia.com/gpu": "1"} if size.gpus else {}),
                    },
                    "cpuIdle": bool(values["cpu-throttling"]) and not size.gpus,
                    "startupCpuBoost": True,
                },
                **_probes(entry),
                **({"volumeMounts": mounts} if mounts else {}),
            }
        ],
        **({"volumes": volumes} if volumes else {}),
    }  # fmt: skip


def _accelerator(size: Size, values: Mapping[str, Any]) -> dict[str, Any]:
    if not size.gpus:
        return {}
    return {
        "nodeSelector": {"accelerator": size.gpu_type},
        "gpuZonalRedundancyDisabled": not values["gpu-zonal-redundancy"],
    }


def _probes(entry: DeployService) -> dict[str, Any]:
    return {
        "startupProbe": {
            "httpGet": {"path": entry.probes["readyz"], "port": _PORT},
            "periodSeconds": _STARTUP_EVERY_S, "timeoutSeconds": _STARTUP_EVERY_S,
            "failureThreshold": _STARTUP_S // _STARTUP_EVERY_S,
        },
        "livenessProbe": {
            "httpGet": {"path": entry.probes["livez"], "port": _PORT},
            "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        },
    }  # fmt: skip


def _timeout(values: Mapping[str, Any], entry: DeployService) -> int:
    if values["request-timeout"] is not None:
        return math.ceil(float(values["request-timeout"]))
    own = float(str(entry.traffic.get("timeout") or _USUAL_TIMEOUT_S))
    if own > _MAX_TIMEOUT_S:
        raise UsageError(
            f"traffic.timeout {own:g} of {entry.name} is more than Cloud Run gives: {_MAX_TIMEOUT_S} s",
            hint=f"--request-timeout {_MAX_TIMEOUT_S}",
        )
    return min(math.ceil(own) + _ABOVE_S, _MAX_TIMEOUT_S)


def _concurrency(values: Mapping[str, Any], entry: DeployService, size: Size) -> int:
    """Requests at once: beyond them Cloud Run starts instances, so it is the bound where there is one, else the aim."""
    declared = entry.traffic.get("max_concurrency") or entry.traffic.get("concurrency")
    given = values["concurrency"] or declared
    small = size.cpu.endswith("m") or float(size.cpu) < 1
    if small and given not in (None, 1):
        raise UsageError(
            f"cpu {size.cpu} with concurrency {given}: less than one CPU takes one request at a time",
            hint="--cpu 1, or --concurrency 1",
        )
    return min(int(str(given or (1 if small else _USUAL_CONCURRENCY))), _MAX_CONCURRENCY)


def _environment(options: DeployOptions, secrets: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The variables; they are no secrets."""
    if taken := sorted(_TAKEN & options.env.keys()):
        raise UsageError(
            f"--env {taken[0]} is set by Cloud Run or the deployment itself",
            hint="leave it out; see --help for options",
        )
    if twice := sorted({str(secret["name"]) for secret in secrets} & options.env.keys()):
        raise UsageError(f"{twice[0]} is given by --env and by --secret", hint="give it once")
    found = {**options.env, "BENTOTOOL_GRACE": str(_GRACE_S)}
    return [{"name": name, "value": value} for name, value in sorted(found.items())]


def _secrets(pairs: tuple[str, ...]) -> tuple[list[Any], list[Any], list[Any]]:
    """Variables, volumes and mounts for references to Secret Manager; no value of a secret is ever here."""
    variables: list[Any] = []
    volumes: list[Any] = []
    mounts: list[Any] = []
    for pair in pairs:
        name, _, reference = pair.partition("=")
        secret, _, version = reference.partition(":")
        version = version or "latest"
        if not _SECRET.fullmatch(secret) or not (version == "latest" or version.isdigit()):
            raise UsageError(
                f"secret {pair[:60]!r} is not of the form NAME=SECRET[:VERSION]",
                hint="--secret TOKEN=my-secret:3, or --secret /run/secrets/token=my-secret",
            )
        if _VARIABLE.fullmatch(name) and name not in _TAKEN:
            variables.append({"name": name, "valueSource": {"secretKeyRef": {"secret": secret, "version": version}}})
        elif (file := _FILE.fullmatch(name)) and ".." not in name.split("/"):
            volume = f"secret-{len(volumes) + 1}"
            volumes.append(
                {"name": volume, "secret": {"secret": secret, "items": [{"path": file[2], "version": version}]}}
            )
            mounts.append({"name": volume, "mountPath": file[1]})
        else:
            raise UsageError(
                f"secret {name[:60]!r} is neither a variable nor a file in a folder of its own",
                hint="--secret TOKEN=my-secret, or --secret /run/secrets/token=my-secret",
            )
    _check_once([each["name"] for each in variables], "variable")
    _check_once([each["mountPath"] for each in mounts], "folder")
    return variables, volumes, mounts


def _check_once(names: list[str], what: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"two secrets are meant for the {what} {twice[0]}", hint=f"give each a {what} of its own")


def as_asked_for(now: Any, spec: Any) -> Any:
    """What stands, with the keys of what is asked for: a difference is then one that somebody made."""
    if isinstance(now, Mapping) and isinstance(spec, Mapping):
        kept = [*spec, *(key for key in now if key in _SERVER_FILLS and key not in spec)]
        return {key: as_asked_for(now[key], spec.get(key)) for key in kept if key in now}
    if isinstance(now, list) and isinstance(spec, list) and len(now) == len(spec):
        return [as_asked_for(*each) for each in zip(now, spec, strict=True)]
    return now
