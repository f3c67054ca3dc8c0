"""What a Bento of the store tells to whoever deploys it: the services of its graph, its models, its packages."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from bentotool.build.bentos import StoredBento
from bentotool.build.plan import Plan
from bentotool.deployspec import DeployModel, DeployService
from bentotool.errors import VerificationError
from bentotool.targetspec import DeployBento

__all__ = ["models_of", "packages_of", "planned_bento", "services_of"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", re.ASCII)
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*|", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9_.~-]+)*", re.ASCII)
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", re.ASCII | re.MULTILINE)


def services_of(bento: StoredBento) -> tuple[DeployService, ...]:
    """The services of the graph, the entry first; none of a Bento that was built before they were told.

    Raises:
        VerificationError: they are not in the form in which a build writes them.
    """
    return _services(bento.config.get("services", ()), bento.tag)


def planned_bento(plan: Plan, digest: str, volumes: Mapping[str, str]) -> DeployBento:
    """A Bento that is planned and not built, for a look at what deploying it would do.

    Args:
        volumes: digest of the volume view of each model, by the model's.
    """
    models = {
        each.digest: DeployModel(
            each.alias, each.name, each.version, each.digest, each.path, volumes.get(each.digest, "")
        )
        for each in plan.models
    }
    return DeployBento(
        plan.name, plan.version, digest, plan.service, plan.python, plan.lock.platform,
        services=_services(json.loads(json.dumps(plan.services)), plan.tag),
        models=tuple(models.values()),
        packages=packages_of(plan.lock.text),
    )  # fmt: skip


def _services(items: Iterable[Mapping[str, Any]], tag: str) -> tuple[DeployService, ...]:
    try:
        found = tuple(_service(item) for item in items)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise VerificationError(f"the services of Bento {tag} are not in the expected form: {error}") from None
    names = {service.name for service in found}
    if len(names) != len(found) or any(not names.issuperset(service.depends) for service in found):
        raise VerificationError(f"the services of Bento {tag} do not go together")
    return found


def _service(item: Mapping[str, Any]) -> DeployService:
    probes = {name: _matching(_PATH, item["probes"][name]) for name in ("livez", "readyz", "healthz")}
    workers = item["workers"]
    if not isinstance(workers, int) or not 0 <= workers <= 10_000:
        raise ValueError(f"workers {workers!r}")
    return DeployService(
        name=_matching(_NAME, item["name"]),
        target=_matching(_TARGET, item["target"]),
        depends=tuple(dict.fromkeys(_matching(_NAME, name) for name in item["depends"])),
        workers=workers,
        resources=dict(item["resources"]),
        traffic=dict(item["traffic"]),
        envs={
            _matching(_VARIABLE, env["name"]): None if env["value"] in (None, "") else str(env["value"])
            for env in item["envs"]
        },
        labels={str(name): str(value) for name, value in item["labels"].items()},
        path_prefix=_matching(_PATH, item["path_prefix"]),
        probes=probes,
        metrics=_matching(_PATH, item["metrics"]),
        tls=item["tls"] is True,
        command=item["command"] is True,
        apis={str(name): str(path) for name, path in item.get("apis", {}).items()},
    )


def _matching(pattern: re.Pattern[str], value: object) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{str(value)[:60]!r}")
    return value


def models_of(bento: StoredBento, volumes: Mapping[str, str] | None = None) -> tuple[DeployModel, ...]:
    """The models of a Bento, each once.

    Args:
        volumes: digest of the volume view of each, by its own.
    """
    known = volumes or {}
    found = {
        model.digest: DeployModel(
            model.alias, model.name, model.version, model.digest, model.path, known.get(model.digest, "")
        )
        for model in reversed(bento.models)
    }
    return tuple(reversed(found.values()))


def packages_of(lock: str) -> frozenset[str]:
    """Names of the packages that a lock pins, normalised as the index does (PEP 503)."""
    return frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in _PIN.findall(lock))
