"""One attempt to put a version in place. What it makes carries its mark, so that all of it can be taken back.

The mark is what finds it: an interrupt may come while the engine is at it, before its answer has a name for what it
made. Nothing that another attempt made, or stands on, is touched.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from typing import Any

import docker
from docker.models.containers import Container

from bentotool.errors import BentotoolError, ConflictError, NotFoundError
from bentotool_docker.engine import BROKEN, explained
from bentotool_docker.spec import DEPLOYMENT, ROLE, SOCKET, VARIABLE, volume_body, volume_name
from bentotool_docker.standing import is_ready, look

__all__ = ["ATTEMPT", "Attempt", "under_way"]

ATTEMPT = "io.bentotool.attempt"
"""On a container: which attempt made it."""

_LATE_S, _POLL_S = 2.0, 0.1


def under_way(name: str, said: str = "") -> ConflictError:
    """Two deployments of one name at once: this is the one that gives way.

    Args:
        said: what came of that, before a colon.
    """
    return ConflictError(
        f"{said}another deployment of {name} is under way",
        hint=f"see what came of it, and deploy again: bentotool deployment show {name}",
    )


class Attempt:
    """What is made for a deployment until the new version is what counts.

    Args:
        name: of the deployment.
    """

    def __init__(self, client: docker.DockerClient, name: str) -> None:
        self._client, self._name = client, name
        self._mark = secrets.token_hex(8)
        self._asking = self._has_made = False

    def create(self, name: str, body: dict[str, Any]) -> Container:
        """Make a container. As a name is given once, who makes the container of a revision has that revision.

        Raises:
            ConflictError: the name is taken, by another deployment of the same name or by somebody else.
        """
        had = self._has_made
        marked = {**body, "Labels": {**body["Labels"], ATTEMPT: self._mark}}
        self._asking = self._has_made = True
        try:
            with explained(f"create {name}"):
                made = self._client.api.create_container_from_config(marked, name=name)
        except ConflictError:
            self._asking, self._has_made = False, had
            raise self._taken(name) from None
        self._asking = False
        with explained(f"look at {name}"):
            return self._client.containers.get(made["Id"])

    def _taken(self, name: str) -> ConflictError:
        with contextlib.suppress(NotFoundError), explained(f"look at {name}"):
            if self._client.containers.get(name).labels.get(DEPLOYMENT) != self._name:
                return ConflictError(
                    f"there is a container {name} that is not of this deployment", hint="choose another --name"
                )
        return under_way(self._name)

    def remove(self, container: Container) -> None:
        """Take away one that was made, and is of no use."""
        with explained(f"remove {container.name}"):
            container.remove(force=True, v=True)

    def check_volume(self, options: Any) -> None:
        """Make the volume, or find the one that was made.

        Raises:
            ConflictError: there is one of that name that is not the deployment's.
        """
        body = volume_body(options)
        name = body["Name"]
        with explained(f"create volume {name}"):
            made = self._client.api.create_volume(
                name, driver=body["Driver"], driver_opts=body["DriverOpts"], labels=body["Labels"]
            )
        if (made.get("Labels") or {}).get(DEPLOYMENT) != self._name:
            raise ConflictError(
                f"there is a volume {name} that is not of this deployment", hint="choose another --name"
            )

    def holds_volume(self) -> bool:
        """Whether what was created stands on the deployment's volume.

        Where another attempt took that away in between, the engine made one of its own.
        """
        with explained(f"look at volume {volume_name(self._name)}"):
            found = self._client.api.inspect_volume(volume_name(self._name))
        return (found.get("Labels") or {}).get(DEPLOYMENT) == self._name

    def take_back(self, python: str, seconds: int) -> bool:
        """Take away what was made. A version that has come to take requests ends in order.

        Args:
            python: the interpreter of the version.
            seconds: that the version may take to end.

        Returns:
            Whether nothing of it is left.
        """
        if not self._has_made:  # and so nothing here is its own; whose turn it is may need the volume just now
            return True
        try:
            for each in sorted(self._made(), key=lambda made: made.labels.get(ROLE) == "door"):
                if each.labels.get(ROLE) == "door":
                    if self._leads_others(each):
                        continue
                elif each.status == "running" and is_ready(each, python):
                    each.stop(timeout=seconds)
                each.remove(force=True, v=True)
            standing = look(self._client, self._name)
            if not standing.doors and not standing.versions:
                with contextlib.suppress(docker.errors.APIError):  # gone, or in use again
                    self._client.api.remove_volume(volume_name(self._name))
        except (*BROKEN, BentotoolError):
            return False
        return True

    def _leads_others(self, door: Container) -> bool:
        """Whether another attempt has come to stand on this one's door."""
        lent = f"{VARIABLE}={door.labels[SOCKET]}"
        return any(
            each.labels.get(ATTEMPT) != self._mark and lent in (each.attrs["Config"].get("Env") or ())
            for each in look(self._client, self._name).versions
        )

    def _made(self) -> list[Container]:
        """The containers that carry the mark; one that the engine was just asked for may come a moment later."""
        deadline = time.monotonic() + (_LATE_S if self._asking else 0.0)
        seen = -1
        while True:
            found = list(
                self._client.containers.list(
                    all=True, filters={"label": f"{ATTEMPT}={self._mark}"}, ignore_removed=True
                )
            )
            if time.monotonic() >= deadline or (seen >= 0 and len(found) > seen):
                return found
            seen = len(found)
            time.sleep(_POLL_S)
