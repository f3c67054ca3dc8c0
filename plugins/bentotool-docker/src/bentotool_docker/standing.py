"""What the engine has of a deployment now; read, never changed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import docker
from docker.models.containers import Container

from bentotool.targetspec import Status
from bentotool_docker.engine import BROKEN, explained, is_local
from bentotool_docker.spec import DEPLOYMENT, REVISION, ROLE

__all__ = [
    "READY",
    "Standing",
    "deployments",
    "http_url",
    "is_ready",
    "last_lines",
    "last_words",
    "look",
    "python_of",
    "revision_of",
    "state_of",
    "url_of",
]

READY = (
    "import os,socket,sys\n"
    "s=socket.create_connection(('127.0.0.1',int(os.environ.get('PORT') or 3000)),3)\n"
    "s.sendall(b'GET /readyz HTTP/1.0\\r\\nHost: localhost\\r\\n\\r\\n')\n"
    "sys.exit(s.recv(64).split()[1:2]!=[b'200'])"
)
"""Asks a version by its own port; the published one may be answered by another. It imports little: it takes its time
from what a version with few CPUs has to start with."""

_ANY = ("0.0.0.0", "::", "")  # noqa: S104 - compared with


@dataclass(frozen=True)
class Standing:
    """One deployment on an engine.

    Args:
        doors: the containers that hold its port; one, but while the port is changed. The newest first.
        versions: their containers, the newest first.
    """

    name: str
    doors: tuple[Container, ...] = ()
    versions: tuple[Container, ...] = ()

    @property
    def door(self) -> Container | None:
        return self.doors[0] if self.doors else None

    @property
    def newest(self) -> int:
        """The highest revision, 0 without any."""
        return max((revision_of(each) for each in self.versions), default=0)

    @property
    def running(self) -> tuple[Container, ...]:
        return tuple(each for each in self.versions if each.status == "running")


def revision_of(container: Container) -> int:
    text = str(container.labels.get(REVISION, "0"))
    return int(text) if text.isdigit() else 0


def look(client: docker.DockerClient, name: str) -> Standing:
    """The containers of one deployment, by label."""
    return _grouped(_labelled(client, f"{DEPLOYMENT}={name}")).get(name, Standing(name))


def deployments(client: docker.DockerClient) -> Sequence[Standing]:
    """All deployments on an engine."""
    return [standing for _, standing in sorted(_grouped(_labelled(client, DEPLOYMENT)).items())]


def _labelled(client: docker.DockerClient, label: str) -> list[Container]:
    with explained("list containers"):
        return list(client.containers.list(all=True, filters={"label": label}, ignore_removed=True))


def _grouped(containers: list[Container]) -> dict[str, Standing]:
    found: dict[str, Standing] = {}
    for each in containers:
        name = str(each.labels.get(DEPLOYMENT))
        standing = found.get(name, Standing(name))
        if each.labels.get(ROLE) == "door":
            doors = sorted((*standing.doors, each), key=revision_of, reverse=True)
            standing = Standing(name, tuple(doors), standing.versions)
        elif each.labels.get(ROLE) == "version":
            ordered = sorted((*standing.versions, each), key=revision_of, reverse=True)
            standing = Standing(name, standing.doors, tuple(ordered))
        found[name] = standing
    return found


def is_ready(container: Container, python: str) -> bool:
    """Whether a version itself says that it is ready."""
    try:
        return int(container.exec_run([python, "-I", "-S", "-c", READY]).exit_code) == 0
    except BROKEN:  # it is not running, or just ended; an engine that has gone is noticed by the next question
        return False


def python_of(container: Container) -> str:
    """The interpreter that a container's process runs."""
    words = [str(container.attrs.get("Path", "")), *map(str, container.attrs.get("Args", ()))]
    return next((word for word in words if word.rpartition("/")[2].startswith("python")), "python3")


def state_of(standing: Standing) -> tuple[Status, str]:
    """How a deployment is, and a line on it where there is something to say."""
    if standing.door is None and not standing.versions:
        return "missing", "the engine has nothing of it"
    if standing.door is None:
        return "unhealthy", "the container that holds its port is gone: deploy it again"
    if standing.door.status != "running":
        return "stopped", f"the container that holds its port is {standing.door.status}"
    if not standing.running:
        newest = standing.versions[0] if standing.versions else None
        if newest is None:
            return "stopped", "no version is there"
        # one that ends again and again is no more stopped than it runs
        status: Status = "unhealthy" if newest.status == "restarting" else "stopped"
        return status, f"{newest.name} is {newest.status}: {last_words(newest)}"
    newest = standing.versions[0]
    for each in standing.running:
        if is_ready(each, python_of(each)):
            if each is not newest:
                return "ready", f"{each.name} answers, {newest.name} does not"
            others = [str(other.name) for other in standing.running if other is not newest]
            said = f"{', '.join(others)} runs beside it: an update is under way, or was broken off; deploy again"
            return "ready", said if others else ""
    newest = standing.running[0]
    health = newest.attrs.get("State", {}).get("Health", {}).get("Status", "")
    return ("starting" if health == "starting" else "unhealthy"), f"{newest.name} is not ready: {last_words(newest)}"


def last_words(container: Container, lines: int = 20) -> str:
    """What a container said last, in one line: its error, if it says one."""
    said = [" ".join(line.split()) for line in last_lines(container, lines)]
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    chosen = errors[-1:] or [line for line in said if not line.startswith("hint: ")][-2:]
    return " | ".join(chosen)[:400] or "it said nothing"


def last_lines(container: Container, lines: int) -> list[str]:
    """The end of what a container said, without its empty lines; nothing where it cannot be asked."""
    with contextlib.suppress(*BROKEN):
        text = container.logs(tail=lines).decode(errors="replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()]
    return []


def url_of(door: Container | None, engine: str) -> str:
    """Where a deployment answers; empty while its port is not published."""
    if door is None:
        return ""
    ports: dict[str, Any] = door.attrs.get("NetworkSettings", {}).get("Ports") or {}
    for bindings in ports.values():
        for binding in bindings or ():
            return _url(str(binding.get("HostIp", "")), str(binding.get("HostPort", "")), engine)
    return ""


def _url(address: str, port: str, engine: str) -> str:
    if address in _ANY:
        address = "127.0.0.1" if is_local(engine) else urlsplit(engine).hostname or "127.0.0.1"
    return http_url(address, port)


def http_url(address: str, port: object) -> str:
    """A URL; addresses of IPv6 stand in brackets."""
    return f"http://{f'[{address}]' if ':' in address else address}:{port}"
