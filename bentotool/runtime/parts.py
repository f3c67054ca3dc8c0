"""The services of one server as the supervisor knows them: plain facts, told by the first worker, which imports them.

A service without dependencies and without GPUs never tells: its worker goes on at once.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bentotool.errors import ConfigError

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["Part", "describe_parts", "import_string", "members", "part_from", "plain_part", "service_facts"]


@dataclass(frozen=True)
class Part:
    """One service.

    Attributes:
        name: of the service.
        workers: processes.
        depends: names of the services that it calls; their parts are there too.
        gpu: devices, or a share of one, for all its workers together; 0 for none.
        worker_gpus: for each worker what it has for itself: a number, a share, or positions; empty for none.
        http: it answers plain HTTP too, as one with a command of its own does.
        envs: variables that its workers get where they are not set.
    """

    name: str
    workers: int = 1
    depends: tuple[str, ...] = ()
    gpu: float = 0
    worker_gpus: tuple[float | tuple[int, ...], ...] = ()
    http: bool = False
    envs: Mapping[str, str] = field(default_factory=dict)

    @property
    def wants_gpu(self) -> bool:
        return bool(self.gpu) or any(self.worker_gpus)


def _gpus(entry: Any) -> float | tuple[int, ...]:
    given = entry.get("gpus", 0) if isinstance(entry, Mapping) else 0
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(int(position) for position in given)
    return float(given or 0)


def _number_of_gpus(service: Service[Any]) -> float:
    given = service.config.options.get("resources", {}).get("gpu") or 0
    try:
        number = float(given)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < math.inf or isinstance(given, bool):
        raise ConfigError(
            f"{given!r} is no number of GPUs",
            path=(f"service {service.name}", "resources", "gpu"),
            hint="a whole number, or a share below 1",
        )
    return number


def plain_part(service: Service[Any]) -> Part:
    """What the supervisor has to know of one service. Raises: ConfigError: it asks for no number of GPUs."""
    options = service.config.options
    workers = options.get("workers")
    listed = tuple(_gpus(entry) for entry in workers) if isinstance(workers, (list, tuple)) else ()
    return Part(
        name=service.name,
        workers=len(listed) or service.config.workers,
        depends=tuple(d.name for d in service.dependencies.values() if d.on is not None and d.address is None),
        gpu=_number_of_gpus(service) if not any(listed) else 0,
        worker_gpus=listed,
        http=has_command(service),
        envs={
            str(env["name"]): str(env["value"])
            for env in service.envs
            if env.get("value") not in (None, "") and env.get("stage", "all") != "build"
        },
    )


def has_command(service: Service[Any]) -> bool:
    """Whether a command of its own serves the requests."""
    return bool(service.cmd) or hasattr(service.inner, "__command__")


def describe_parts(entry: Service[Any], *, inside: bool = False) -> list[Part]:
    """The entry service and all that it brings along, itself first.

    Args:
        inside: dependencies live in the entry's own process, but for those with a command of their own.

    Raises:
        ConfigError: the graph is not in order, or the address of a deployment is not known.
    """
    from bentotool.sdk.dependency import graph

    services = graph(entry).values()
    for service in services:
        for dependency in service.dependencies.values():
            _ = dependency.address  # known now, or never
    parts = [plain_part(service) for service in services]
    return [part for number, part in enumerate(parts) if number == 0 or part.http or not inside]


def part_from(document: Mapping[str, Any]) -> Part:
    """A part as it came over a worker's line."""
    shares = tuple(tuple(item) if isinstance(item, list) else float(item) for item in document["worker_gpus"])
    return Part(**{**document, "depends": tuple(document["depends"]), "worker_gpus": shares})


def part_document(part: Part) -> dict[str, Any]:
    """A part as it goes over a worker's line."""
    return asdict(part)


def import_string(service: Service[Any]) -> str:
    """``module:Class`` under which a worker finds a service; empty where its module has it under no name."""
    module = sys.modules.get(service.inner.__module__)
    names = [name for name, value in vars(module).items() if value is service] if module is not None else []
    return f"{service.inner.__module__}:{names[0]}" if names else ""


def _called(service: Service[Any]) -> list[Service[Any]]:
    """The services that one calls, but for those that have an address or a deployment of their own."""
    declared = service.dependencies.values()
    return [d.on for d in declared if d.on is not None and d.url is None and d.deployment is None]


def members(entry: Service[Any]) -> list[Service[Any]]:
    """The services that are deployed together, the entry first."""
    found = [entry]
    for each in found:
        found += [called for called in _called(each) if called not in found]
    return found


def service_facts(service: Service[Any], target: str) -> dict[str, Any]:
    """What whoever deploys has to know of one service; see :class:`bentotool.deployspec.DeployService`."""
    config, prefix = service.config, service.path_prefix
    options = config.options
    workers = options.get("workers", 1)
    return {
        "name": service.name,
        "target": target,
        "depends": list(dict.fromkeys(each.name for each in _called(service))),
        "workers": 0 if workers == "cpu_count" else config.workers,
        "resources": dict(options.get("resources") or {}),
        "traffic": dict(options.get("traffic") or {}),
        "envs": [
            {"name": env["name"], "value": env.get("value")}
            for env in service.envs
            if env.get("stage", "all") != "build"
        ],
        "labels": dict(service.labels),
        "path_prefix": prefix,
        "probes": {name: f"{prefix}/{name}" for name in ("livez", "readyz", "healthz")},
        "metrics": f"{prefix}/metrics" if config.metrics_enabled else "",
        "tls": bool((options.get("ssl") or {}).get("enabled")),
        "command": has_command(service),
        "apis": {spec.name: prefix + spec.route for spec in service.apis.values() if spec.options.method == "POST"},
    }
