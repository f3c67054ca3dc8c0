"""The compose file of a deployment (compose-spec): one service for each Service of the graph.

What goes into it is data: each text is written with ``$`` doubled, as compose would take it for a variable else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentotool.deployspec import DeployService
from bentotool.errors import NotFoundError, UsageError
from bentotool.targetoptions import DEPENDS_VARIABLE, depends_variable
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_docker.images import Image
from bentotool_docker.spec import parse_size, secret_files, where

__all__ = [
    "BENTO", "DEPLOYMENT", "DIGEST", "PORT", "SERVICE", "Group", "as_text", "compose_document", "group_of",
    "project_name", "stop_seconds",
]  # fmt: skip

DEPLOYMENT = "io.bentotool.compose"
SERVICE = "io.bentotool.compose.service"
BENTO = "io.bentotool.compose.bento"
DIGEST = "io.bentotool.compose.digest"
PORT = 3000

_CLIENT = "httpx"
_SLACK_S = 10
_OURS = ("PORT", "BENTOTOOL_HOST", "BENTOTOOL_WORKERS", "BENTOTOOL_GRACE")
_HEAD = """\
# Written by bentotool for the deployment {name}, and written anew by the next one: change it there.
#   docker compose --project-name {project} --file compose.yaml up --detach
"""


@dataclass(frozen=True)
class Group:
    """Which Services have a container of their own.

    Args:
        members: by name in the compose file, the entry first; None where nothing is known of the Bento's Services.
        together: of the graph's Services, those that run in a container of another.
    """

    members: Mapping[str, DeployService | None]
    together: tuple[str, ...] = ()

    @property
    def entry(self) -> str:
        return next(iter(self.members))


def project_name(name: str, *, trial: bool = False) -> str:
    return f"bentotool-{name}-trial" if trial else f"bentotool-{name}"


def stop_seconds(values: Mapping[str, Any]) -> int:
    """How long a container may take to end."""
    return int(float(values["grace"])) + _SLACK_S


def group_of(bento: DeployBento, options: DeployOptions) -> Group:
    """The containers of a deployment. A Service that cannot be served alone runs where it is called."""
    if not bento.services:
        return Group({_slug(bento.service.rpartition(":")[2] or bento.name): None})
    entry, *others = bento.services
    callable_ = not bento.packages or _CLIENT in bento.packages
    apart = [each for each in others if each.target and callable_ and not options.values["together"]]
    members: dict[str, DeployService | None] = {}
    for service in (entry, *apart):
        slug, number = _slug(service.name), 2
        while slug in members:
            slug, number = f"{_slug(service.name)}-{number}", number + 1
        members[slug] = service
    return Group(members, tuple(each.name for each in others if each not in apart))


def _slug(name: str) -> str:
    """A name that is one of a host, too."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:40].strip("-") or "service"


def compose_document(
    bento: DeployBento, options: DeployOptions, image: Image, group: Group, *, local: bool, port: int,
    trial: bool = False, quick: bool = True, cpus: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """The file.

    Args:
        local: whether the engine sees this machine's files.
        port: to publish; nothing is published by a trial.
        quick: the engine takes ``start_interval`` (Engine 25).
        cpus: that the engine has; 0 where nobody knows.

    Raises:
        UsageError, NotFoundError: a value that no container can have, or a file that is not there.
    """
    values = options.values
    if taken := next((name for name in _OURS if name in options.env), None):
        raise UsageError(f"--env {taken} is set by the deployment itself", hint="leave it out; see --help for options")
    user = str(values["user"] or image.user)
    secrets, groups = secret_files(tuple(values["secret"]), local=local, user=user)
    files = [_env_file(each) for each in values["env-file"]]
    common: dict[str, Any] = {
        "image": image.reference,
        **({"user": user} if values["user"] else {}),
        **({"env_file": files} if files else {}),
        **({"secrets": sorted(secrets)} if secrets else {}),
        **({"group_add": [str(each) for each in groups]} if groups else {}),
        "networks": ["inside"],
        "read_only": bool(values["read-only"]),
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "no" if trial else str(values["restart"]),
        "stop_grace_period": f"{stop_seconds(values)}s",
        "pull_policy": "never",
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}},
        "healthcheck": _health(image, values, quick=quick),
    }
    services: dict[str, Any] = {}
    for slug, service in group.members.items():
        services[slug] = {**_of_service(bento, options, group, slug, service, cpus), **common}
        if slug == group.entry and not trial:
            address = where(values).rpartition(":")[0]
            services[slug]["ports"] = [f"{f'[{address}]' if ':' in address else address}:{port}:{PORT}"]
    document: dict[str, Any] = {
        "name": project_name(options.name, trial=trial), "services": services, "networks": {"inside": {}},
    }  # fmt: skip
    if secrets:
        document["secrets"] = {name: {"file": str(path)} for name, path in secrets.items()}
    return document


def _of_service(
    bento: DeployBento, options: DeployOptions, group: Group, slug: str, service: DeployService | None, cpus: int
) -> dict[str, Any]:
    """What one Service has of its own."""
    values = options.of_service(service.name if service is not None else "")
    found: dict[str, Any] = {"environment": _variables(options, values, group, slug)}
    if service is not None and slug != group.entry and service.arguments:
        found["command"] = list(service.arguments)
    called = [each for each, other in group.members.items() if each != slug and other and _calls(group, slug, other)]
    if called:
        found["depends_on"] = {each: {"condition": "service_healthy"} for each in called}
    found["tmpfs"] = [f"/tmp:rw,exec,nosuid,nodev,mode=1777,size={parse_size(str(values['tmp']), 'tmp')}"]  # noqa: S108
    resources: dict[str, Any] = {}
    if limits := _limits(values, _inside(bento, group, slug, service), cpus):
        resources["limits"] = limits
    if values["gpus"] and str(values["gpus"]) != "none":
        resources["reservations"] = {"devices": [_gpus(str(values["gpus"]))]}
    if resources:
        found["deploy"] = {"resources": resources}
    found["labels"] = {
        DEPLOYMENT: options.name, SERVICE: service.name if service is not None else slug, BENTO: bento.tag,
        DIGEST: bento.digest,
    }  # fmt: skip
    return found


def _inside(bento: DeployBento, group: Group, slug: str, service: DeployService | None) -> tuple[DeployService, ...]:
    """The Services that run in a container."""
    if service is None:
        return ()
    others = [each for each in bento.services if each.name in group.together] if slug == group.entry else []
    return (service, *others)


def _limits(values: Mapping[str, Any], services: Sequence[DeployService], cpus: int) -> dict[str, str]:
    """What a container may use: as it is set, else what its Services declare, where all of them do."""
    limits: dict[str, str] = {}
    declared = [each.resources.get("cpu") for each in services]
    if values["cpu"]:
        limits["cpus"] = f"{float(values['cpu']):g}"
    elif declared and all(declared):
        wanted = sum(_cpus(str(each)) for each in declared)
        limits["cpus"] = f"{min(wanted, cpus or wanted):g}"  # an engine refuses more than it has
    declared = [each.resources.get("memory") for each in services]
    if values["memory"]:
        limits["memory"] = str(parse_size(str(values["memory"]), "memory"))
    elif declared and all(declared):
        limits["memory"] = str(sum(parse_size(str(each), "memory") for each in declared))
    return limits


def _cpus(text: str) -> float:
    """CPUs as a Service declares them: ``2``, ``0.5`` or ``500m``.

    Raises:
        UsageError: they are none.
    """
    try:
        found = float(text[:-1]) / 1000 if text.endswith("m") else float(text)
    except ValueError:
        found = 0.0
    if not 0.001 <= found < 10_000:
        raise UsageError(f"resources.cpu {text[:40]!r} of a service is no number of CPUs", hint="--cpu 2")
    return found


def _calls(group: Group, slug: str, other: DeployService) -> bool:
    """Whether a member calls another, itself or by a Service that runs in its container."""
    service = group.members[slug]
    if service is None:
        return False
    return other.name in service.depends or (slug == group.entry and bool(group.together))


def _variables(options: DeployOptions, values: Mapping[str, Any], group: Group, slug: str) -> dict[str, str]:
    addresses = {
        other.name: f"http://{each}:{PORT}{other.path_prefix}"
        for each, other in group.members.items()
        if each != slug and other is not None
    }
    depends = depends_variable(addresses, options.env)
    ours = {
        "PORT": str(PORT),
        "BENTOTOOL_HOST": "0.0.0.0",  # noqa: S104 - within the container; the entry's port alone is published
        "BENTOTOOL_GRACE": f"{float(values['grace']):g}",
        **({DEPENDS_VARIABLE: depends} if depends else {}),
        **({"BENTOTOOL_WORKERS": str(values["workers"])} if values["workers"] else {}),
    }
    return {**options.env, **ours}


def _env_file(text: str) -> str:
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise NotFoundError(f"--env-file: no file {path}", hint="a file of NAME=VALUE lines")
    return str(path)


def _health(image: Image, values: Mapping[str, Any], *, quick: bool) -> dict[str, Any]:
    """The image's own health check, asked often while it starts."""
    found: dict[str, Any] = {
        "test": ["CMD", image.python, "-m", "bentotool.runtime.healthcheck"],
        "interval": "10s" if quick else "3s",
        "timeout": "10s",
        "retries": 3,
        "start_period": f"{float(values['timeout']):g}s",
    }
    return {**found, "start_interval": "1s"} if quick else found


def _gpus(text: str) -> dict[str, Any]:
    request: dict[str, Any] = {"driver": "nvidia", "capabilities": ["gpu"]}
    if text == "all" or text.isdigit():
        return {**request, "count": text if text == "all" else int(text)}
    return {**request, "device_ids": [part.strip() for part in text.split(",")]}


def as_text(document: Mapping[str, Any], name: str) -> str:
    """The file as it is written."""
    from bentotool.yamltext import as_yaml

    body = as_yaml([_escaped(document)])
    return _HEAD.format(name=name, project=document["name"]) + body


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [_escaped(each) for each in value]
    return value
