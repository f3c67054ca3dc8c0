"""What an engine has of a compose project; and taking it away."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import docker
import docker.errors
from docker.models.containers import Container

from bentotool.targetspec import Status
from bentotool_docker.compose.document import DEPLOYMENT, SERVICE, project_name
from bentotool_docker.engine import explained
from bentotool_docker.standing import http_url, last_words

__all__ = [
    "PROJECT", "cpus_of", "deployments", "engine_takes_start_interval", "entry_of", "health_of", "look",
    "published_port", "remove_project", "state_of", "url_of",
]  # fmt: skip

PROJECT = "com.docker.compose.project"
"""The label that compose itself gives to all that it makes."""
_START_INTERVAL = (1, 44)  # API of Docker 25
_ANY = ("0.0.0.0", "::", "")  # noqa: S104 - compared with


def look(client: docker.DockerClient, project: str) -> Sequence[Container]:
    """The containers of a project."""
    with explained(f"look at {project}"):
        return list(client.containers.list(all=True, filters={"label": f"{PROJECT}={project}"}, ignore_removed=True))


def deployments(client: docker.DockerClient) -> dict[str, list[Container]]:
    """The containers of each deployment on an engine; those of a trial left out."""
    with explained("list containers"):
        found = client.containers.list(all=True, filters={"label": DEPLOYMENT}, ignore_removed=True)
    grouped: dict[str, list[Container]] = {}
    for each in found:
        name = str(each.labels.get(DEPLOYMENT))
        if each.labels.get(PROJECT) == project_name(name):
            grouped.setdefault(name, []).append(each)
    return grouped


def engine_takes_start_interval(client: docker.DockerClient) -> bool:
    """Whether a health check may be asked more often while the container starts."""
    return tuple(map(int, str(client.api._version).split("."))) >= _START_INTERVAL


def cpus_of(client: docker.DockerClient) -> int:
    """CPUs of the engine's machine."""
    return int(client.info().get("NCPU") or 0)


def entry_of(containers: Sequence[Container]) -> Container | None:
    """The one that publishes a port."""
    return next((each for each in containers if (each.attrs["HostConfig"].get("PortBindings") or {})), None)


def published_port(containers: Sequence[Container]) -> tuple[str, int]:
    """Address and port that are published; 0 where nothing is."""
    entry = entry_of(containers)
    for bound in (entry.attrs["HostConfig"]["PortBindings"] if entry is not None else {}).values():
        for binding in bound or ():
            return str(binding.get("HostIp") or ""), int(binding.get("HostPort") or 0)
    return "", 0


def url_of(containers: Sequence[Container]) -> str:
    address, port = published_port(containers)
    return http_url("127.0.0.1" if address in _ANY else address, port) if port else ""


def health_of(container: Container) -> str:
    """What the engine says: ``healthy``, ``starting``, ``unhealthy``, or the state of one that does not run."""
    state = container.attrs.get("State") or {}
    if container.status != "running":
        return str(container.status)
    return str((state.get("Health") or {}).get("Status") or "healthy")


def state_of(containers: Sequence[Container]) -> tuple[Status, str]:
    """How a deployment is, and a line on it where there is something to say."""
    if not containers:
        return "missing", "the engine has nothing of it"
    health = {str(each.labels.get(SERVICE, each.name)): health_of(each) for each in containers}
    if all(said == "healthy" for said in health.values()):
        return "ready", ""
    worst = next((each for each in containers if health_of(each) not in ("healthy", "starting")), None)
    if worst is None:
        waiting = [name for name, said in health.items() if said == "starting"]
        return "starting", f"{', '.join(waiting)} is starting"
    ended = all(said in ("exited", "created", "dead") for said in health.values())
    status: Status = "stopped" if ended else "unhealthy"
    return status, f"{worst.labels.get(SERVICE, worst.name)} is {health_of(worst)}: {last_words(worst)}"


def remove_project(client: docker.DockerClient, project: str, seconds: int) -> list[str]:
    """Remove the containers and networks of a project; those that are called end last.

    Args:
        seconds: that a container may take to end.

    Returns:
        What was removed.
    """
    removed: list[str] = []
    for each in sorted(look(client, project), key=lambda each: -len(_called(each))):
        with explained(f"stop {each.name}"), contextlib.suppress(docker.errors.NotFound):
            each.stop(timeout=seconds)
            try:
                each.remove(force=True, v=True)
            except docker.errors.APIError as error:
                if error.status_code != 409:  # another process removes it just now
                    raise
        removed.append(f"container {each.name}")
    with explained(f"list networks of {project}"):
        networks = client.networks.list(filters={"label": f"{PROJECT}={project}"})
    for network in networks:
        with explained(f"remove network {network.name}"), contextlib.suppress(docker.errors.NotFound):
            network.remove()
        removed.append(f"network {network.name}")
    return removed


def _called(container: Container) -> str:
    """What it depends on, as compose notes it."""
    return str(container.labels.get("com.docker.compose.depends_on", ""))
