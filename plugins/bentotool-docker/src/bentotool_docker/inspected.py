"""A container that runs, in the form in which another is asked for, so that the two can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import docker
from docker.models.containers import Container

from bentotool.interfaces import JSON
from bentotool_docker.engine import explained
from bentotool_docker.spec import DEPLOYMENT, DIGEST, REVISION

__all__ = ["as_asked_for"]

_ASKED = (
    "CapDrop", "DeviceRequests", "GroupAdd", "LogConfig", "Memory", "Mounts", "NanoCpus", "NetworkMode",
    "ReadonlyRootfs", "RestartPolicy", "SecurityOpt", "Tmpfs",
)  # fmt: skip
"""Keys of ``HostConfig`` (Engine API v1.41, ContainerCreate) that a version is ever given."""
_USUAL = ("default", "bridge")


def as_asked_for(client: docker.DockerClient, container: Container, asked: Mapping[str, Any]) -> dict[str, JSON]:
    """What of a version's container corresponds to the body of the one that takes its place.

    Args:
        asked: that body. What it leaves to the image is left out, and so is what the engine adds of its own.
    """
    config, host = container.attrs.get("Config") or {}, container.attrs.get("HostConfig") or {}
    labels = {key: value for key, value in container.labels.items() if key.startswith(DEPLOYMENT)}
    labels[REVISION] = asked["Labels"][REVISION]  # counted on with every deployment
    if not asked["Labels"][DIGEST]:  # of a Bento that is not built yet
        labels[DIGEST] = ""
    found: dict[str, Any] = {
        "Image": config.get("Image"),
        "Env": _environment(client, container, asked["Env"]),
        "Labels": labels,
        "StopTimeout": config.get("StopTimeout"),
        "HostConfig": {key: _plain(key, host.get(key)) for key in _ASKED},
    }
    if asked["User"]:
        found["User"] = config.get("User")
    usual = found["HostConfig"]["NetworkMode"] in _USUAL
    if usual and not asked["HostConfig"].get("NetworkMode"):
        del found["HostConfig"]["NetworkMode"]
    found["HostConfig"] = {key: value for key, value in found["HostConfig"].items() if value not in (None, [], {}, 0)}
    return found


def _environment(client: docker.DockerClient, container: Container, asked: list[str]) -> list[str]:
    """The variables beyond those of the image."""
    with explained(f"look at the image of {container.name}"):
        image = (client.api.inspect_image(str(container.attrs["Image"])).get("Config") or {}).get("Env") or []
    own = (container.attrs.get("Config") or {}).get("Env") or []
    return [each for each in own if each in asked or each not in image]


def _plain(key: str, value: Any) -> Any:
    """A value without what the engine filled in."""
    if key == "RestartPolicy":
        return {"Name": (value or {}).get("Name", "")}
    if key in ("Mounts", "DeviceRequests"):
        return [_without_empty(each) for each in value or ()]
    return value


def _without_empty(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_empty(each) for key, each in value.items() if each not in (None, [], {}, "", 0, False)}
    return value
