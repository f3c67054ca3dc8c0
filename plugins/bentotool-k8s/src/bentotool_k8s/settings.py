"""The values of options as what manifests are made of: checked, and joined with what the service declares."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bentotool.deployspec import DeployService
from bentotool.errors import UsageError

__all__ = ["SecretFile", "SecretVariable", "Settings", "pairs", "quantity", "settings_of"]

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi)?")
_LOOSE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt])(i?)b?", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9._-]{1,253}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_LABEL = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_TIMEOUT = 60.0  # of a service that says nothing
_CPU, _MEMORY = "500m", "512Mi"


@dataclass(frozen=True)
class SecretFile:
    """A key of a Secret as ``/run/secrets/NAME``; all of its keys in that folder where ``key`` is empty."""

    name: str
    secret: str
    key: str


@dataclass(frozen=True)
class SecretVariable:
    """A variable that is a key of a Secret."""

    name: str
    secret: str
    key: str


@dataclass(frozen=True)
class Settings:
    """What holds for the pods of one Service.

    Args:
        requests, limits: of the container; GPUs are among the limits.
        max_replicas: None: as many as ``replicas``, whatever comes.
        grace: seconds for requests in flight, after ``pre_stop`` and ``drain``.
        workers: None: what the service declares.
        toleration: as Kubernetes takes them.
        values: of all options, for what is passed on as it is.
    """

    replicas: int
    min_replicas: int
    max_replicas: int | None
    requests: Mapping[str, str]
    limits: Mapping[str, str]
    workers: int | None
    tmp: str
    shm: str
    node_selector: Mapping[str, str]
    node_affinity: Mapping[str, Sequence[str]]
    tolerations: tuple[Mapping[str, str], ...]
    secret_files: tuple[SecretFile, ...]
    secret_variables: tuple[SecretVariable, ...]
    startup: int
    pre_stop: int
    drain: float
    grace: float
    values: Mapping[str, Any]

    @property
    def several(self) -> bool:
        """Whether two pods of it can run at once."""
        return (self.max_replicas or self.replicas) > 1


def settings_of(service: DeployService, values: Mapping[str, Any]) -> Settings:
    """The settings of one Service.

    Args:
        values: of the options, as they hold for this Service.

    Raises:
        UsageError: one that no pod can have.
    """
    replicas, most = int(values["replicas"]), values["max-replicas"]
    least = int(values["min-replicas"] if values["min-replicas"] is not None else replicas)
    _check_scaling(values, least, most)
    requests, limits = _resources(service, values)
    grace = values["grace"]
    if grace is None:
        declared = service.traffic.get("timeout")
        grace = declared if isinstance(declared, (int, float)) and 0 < declared < 86400 else _TIMEOUT
    return Settings(
        replicas=replicas,
        min_replicas=least,
        max_replicas=int(most) if most is not None else None,
        requests=requests,
        limits=limits,
        workers=_workers(service, values, requests, limits),
        tmp=quantity(str(values["tmp"]), "tmp"),
        shm=quantity(str(values["shm"]), "shm") if values["shm"] else "",
        node_selector=_label_pairs(values, "node-selector"),
        node_affinity={
            name: _checked_values(text.split(","), "node-affinity")
            for name, text in _label_pairs(values, "node-affinity", several=True).items()
        },
        tolerations=tuple(_toleration(text) for text in values["toleration"]),
        secret_files=tuple(SecretFile(*each) for each in _references(values, "secret", key=False)),
        secret_variables=tuple(SecretVariable(*each) for each in _references(values, "secret-env", key=True)),
        startup=max(1, math.ceil(float(values["startup"]))),
        pre_stop=int(values["pre-stop"]),
        drain=float(values["drain"]),
        grace=float(grace),
        values=values,
    )


def _check_scaling(values: Mapping[str, Any], least: int, most: int | None) -> None:
    keda = values["scaler"] == "keda"
    if most is None:
        if values["min-replicas"] is not None:
            raise UsageError("--min-replicas without --max-replicas", hint="say how far it may go: --max-replicas N")
        return
    if least > most:
        raise UsageError(f"it cannot scale from {least} pods down to {most}", hint="--max-replicas N, --min-replicas N")
    if least == 0 and not keda:
        raise UsageError("a HorizontalPodAutoscaler does not scale to 0", hint="--scaler keda, or --min-replicas 1")
    by_requests = values["scale-on"] == "requests"
    if keda and by_requests and not values["prometheus"]:
        raise UsageError(
            "KEDA counts requests by asking Prometheus", hint="--prometheus http://prometheus.NAMESPACE:9090"
        )
    if keda and least == 0 and not by_requests:
        raise UsageError("where no pod runs there is no CPU to go by", hint="--scale-on requests, with --scale-query")
    if keda and least == 0 and not values["scale-query"]:
        raise UsageError(
            "where no pod runs there is none to count requests",
            hint="--scale-query with what counts them in front of it, such as the ingress controller",
        )


def _resources(service: DeployService, values: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    declared = service.resources
    cpu = values["cpu"] or declared.get("cpu") or _CPU
    memory = values["memory"] or declared.get("memory")
    requests = {"cpu": quantity(str(cpu), "cpu"), "memory": quantity(str(memory or _MEMORY), "memory")}
    limits = {}
    if values["cpu-limit"]:
        limits["cpu"] = quantity(str(values["cpu-limit"]), "cpu-limit")
    if values["memory-limit"] or memory:
        limits["memory"] = quantity(str(values["memory-limit"] or memory), "memory-limit")
    gpus = values["gpus"] if values["gpus"] is not None else _gpus(declared.get("gpu"))
    if gpus:
        limits[_label(str(values["gpu-resource"]), "gpu-resource")] = str(int(gpus))
    for name, bound in limits.items():
        if name in requests and amount(bound) < amount(requests[name]):
            raise UsageError(
                f"{name}: {requests[name]} is asked for, and {bound} is the bound",
                hint=f"--{name}-limit {requests[name]}",
            )
    return requests, limits


def _gpus(declared: Any) -> int:
    """Whole GPUs: a share of one still needs one, since the cluster gives them out whole."""
    try:
        number = float(declared or 0)
    except (TypeError, ValueError):
        return 0
    return math.ceil(number) if 0 < number < 1000 else 0


def _workers(
    service: DeployService, values: Mapping[str, Any], requests: Mapping[str, str], limits: Mapping[str, str]
) -> int | None:
    """Processes: where the service wants one for each CPU, those of the pod and not those of the node."""
    if values["workers"] is not None:
        return int(values["workers"])
    if service.workers == 0:
        return max(1, math.ceil(amount(limits.get("cpu", requests["cpu"]))))
    return None


def quantity(text: str, what: str) -> str:
    """A Kubernetes quantity; ``512mb`` and ``2 GB``, which it would refuse, as what they mean.

    Raises:
        UsageError: it is none.
    """
    plain = text.strip()
    if not _QUANTITY.fullmatch(plain):
        loose = _LOOSE.fullmatch(plain)
        if loose is None:
            raise UsageError(f"{what} {text[:40]!r} is no quantity", hint=f"--{what} such as 500m, 2, 512Mi or 4Gi")
        unit = loose[2].upper() if loose[2].lower() != "k" or loose[3] else "k"
        plain = f"{loose[1]}{unit}{loose[3].lower()}"
    if amount(plain) <= 0:
        raise UsageError(f"{what} {text[:40]!r} is nothing", hint=f"--{what} above 0")
    return plain


def amount(text: str) -> float:
    """What a quantity comes to."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        return 0.0
    powers = "kMGTP"
    unit = found[2] or ""
    if unit == "m":
        return float(found[1]) / 1000
    base = 1024 if unit.endswith("i") else 1000
    return float(found[1]) * (base ** (powers.upper().index(unit[0].upper()) + 1) if unit else 1)


def pairs(given: Sequence[str], what: str) -> dict[str, str]:
    """``NAME=VALUE``, each name once.

    Raises:
        UsageError: a pair of another form.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not _LABEL.fullmatch(name):
            raise UsageError(
                f"--{what} {text[:80]!r} is not of the form NAME=VALUE", hint=f"--{what} example.com/name=value"
            )
        if name in found:
            raise UsageError(f"--{what} {name} is given twice", hint="give it once")
        found[name] = value
    return found


def _label_pairs(values: Mapping[str, Any], what: str, *, several: bool = False) -> dict[str, str]:
    found = pairs(values[what], what)
    if not several:
        _checked_values(list(found.values()), what)
    return found


def _checked_values(given: Sequence[str], what: str) -> list[str]:
    for value in given:
        if not _VALUE.fullmatch(value):
            raise UsageError(f"--{what}: {value[:80]!r} is no value of a label", hint="letters, digits, -, _ and .")
    return list(given)


def _label(text: str, what: str) -> str:
    if not _LABEL.fullmatch(text):
        raise UsageError(f"{what} {text[:80]!r} is no name of that kind", hint=f"--{what} nvidia.com/gpu")
    return text


def _toleration(text: str) -> dict[str, str]:
    pair, colon, effect = text.partition(":")
    key, equals, value = pair.partition("=")
    effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
    if not _LABEL.fullmatch(key) or not _VALUE.fullmatch(value) or (colon and effect not in effects):
        raise UsageError(
            f"--toleration {text[:80]!r} is not of the form KEY[=VALUE][:EFFECT]", hint=f"effects: {', '.join(effects)}"
        )
    how = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
    return {"key": key, **how, **({"effect": effect} if effect else {})}


def _references(values: Mapping[str, Any], what: str, *, key: bool) -> list[tuple[str, str, str]]:
    """``NAME=SECRET/KEY``: references only; the value itself is nowhere in a command, a record or a manifest."""
    found: list[tuple[str, str, str]] = []
    form = "NAME=SECRET/KEY" if key else "NAME=SECRET[/KEY]"
    for text in values[what]:
        name, equals, place = text.partition("=")
        secret, slash, inner = place.partition("/")
        named = _VARIABLE.fullmatch(name) if key else _KEY.fullmatch(name) and name not in (".", "..")
        good = equals and named and _NAME.fullmatch(secret) and (_KEY.fullmatch(inner) if slash or key else True)
        if not good:
            # what was typed may be the secret itself: no part of it is repeated
            raise UsageError(
                f"--{what} takes {form}, the name of a Secret of the cluster", hint="kubectl create secret generic …"
            )
        if name in (each[0] for each in found):
            raise UsageError(f"--{what} {name} is given twice", hint="give it once")
        found.append((name, secret, inner))
    return found
