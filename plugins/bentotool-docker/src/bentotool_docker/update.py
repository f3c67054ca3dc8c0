"""Putting a version in place of another, and taking all of it away.

The order is what keeps requests: the new version stands beside the old one on the same listening socket and takes part
once it is ready; only then the old one is told to end. Whatever goes wrong before, an interrupt too, takes away what
was just made and nothing else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container

from bentotool.errors import BentotoolError, ConflictError, NotFoundError, UsageError
from bentotool.targetspec import Plan
from bentotool_docker.attempt import Attempt, under_way
from bentotool_docker.engine import BROKEN, explained, is_local
from bentotool_docker.images import Image
from bentotool_docker.spec import (
    DEPLOYMENT,
    SOCKET,
    WHERE,
    container_name,
    door_body,
    door_name,
    door_socket,
    free_port,
    stop_seconds,
    version_body,
    where,
)
from bentotool_docker.standing import Standing, is_ready, last_lines, last_words, look, revision_of

__all__ = ["UnhealthyError", "bring_up", "take_away", "usable_door"]

_POLL_S = 0.25
_DOOR_S = 20.0
_LOG_LINES = 20
_TRIES = 5
_OLDER = "build the Bento again, and its image, with the bentotool that you deploy with"


class UnhealthyError(BentotoolError):
    """A container that ends, or does not become ready."""

    code = "unhealthy"


def _no_runtime(image: Image) -> UnhealthyError:
    return UnhealthyError(f"image {image.reference} has no runtime that can be lent a port", hint=_OLDER)


def usable_door(standing: Standing, values: Any) -> Container | None:
    """The door that already holds the port that is asked for; any port where 0 is."""
    door = standing.door
    if door is None:
        return None
    held, wanted = str(door.labels.get(WHERE)), where(values)
    same = held == wanted or (wanted.endswith(":0") and held.rpartition(":")[0] == wanted.rpartition(":")[0])
    return door if same else None


def bring_up(
    client: docker.DockerClient,
    engine: str,
    plan: Plan,
    image: Image,
    *,
    wait: bool,
    commit: Callable[[Container, Container], None],
) -> None:
    """Start a version of a deployment; with ``wait``, come back when it alone answers.

    Args:
        commit: told the version and the door, once they are what counts and the old version has still to end.

    Raises:
        UnhealthyError: it does not become ready; what ran before runs on.
        ConflictError: the port, or a name, is taken.
    """
    options, standing = plan.options, look(client, plan.name)
    if standing.running and not wait:
        raise UsageError(f"{plan.name} runs: an update has to wait for the new version", hint="leave --no-wait out")
    revision = standing.newest + 1
    # what the user asks for is judged before anything is made
    socket = _socket_to_be(plan, standing)
    body = version_body(plan.bento, options, image, revision, socket, local=is_local(engine))
    policy = body["HostConfig"]["RestartPolicy"]
    body["HostConfig"]["RestartPolicy"] = {"Name": "no"}  # what does not start is not repeated
    if not (image.entrypoint or image.command):
        raise _no_runtime(image)
    attempt = Attempt(client, plan.name)
    try:
        # made first, as nobody else can then make one for this revision, and started last
        attempt.check_volume(options)
        version = attempt.create(container_name(plan.name, revision), body)
        if not attempt.holds_volume():
            raise under_way(plan.name)
        door = _ensure_door(client, plan, image, attempt)
        if door.labels[SOCKET] != socket:
            raise under_way(plan.name)
        with explained(f"start {version.name}"):
            version.start()
        options.note(f"{version.name} starts")
        if wait:
            _await_ready(version, image, plan)
        _keep_running(version, policy)
        commit(version, door)
    except BaseException as error:
        whole = attempt.take_back(image.python, stop_seconds(options.values))
        _tell_undone(error, plan, standing, whole=whole)
        raise
    _retire(plan, standing, door)


def _tell_undone(error: BaseException, plan: Plan, before: Standing, *, whole: bool) -> None:
    """Say how things stand after a deployment that came to nothing, where the error does not say what to do next."""
    if not whole:
        text = f"what was made for it is still there; the next deploy of {plan.name} takes it away"
    else:
        text = f"{plan.name} goes on as it was" if before.running else "nothing is left of it"
    if isinstance(error, KeyboardInterrupt):
        plan.options.note(f"interrupted: {text}")
    elif isinstance(error, BentotoolError) and error.hint is None:
        error.hint = text


def _keep_running(version: Container, policy: dict[str, str]) -> None:
    try:
        with explained(f"set the restart policy of {version.name}"):
            version.client.api.update_container(version.id, restart_policy=policy)
    except NotFoundError:
        raise _overtaken(version) from None


def _next_door(standing: Standing) -> int:
    return max((revision_of(each) for each in standing.doors), default=0) + 1


def _socket_to_be(plan: Plan, standing: Standing) -> str:
    """Where the version will be lent its port."""
    door = usable_door(standing, plan.options.values)
    return str(door.labels[SOCKET]) if door is not None else door_socket(_next_door(standing))


def _ensure_door(client: docker.DockerClient, plan: Plan, image: Image, attempt: Attempt) -> Container:
    """The door at the port that is asked for: the one that stands, or a new one beside it."""
    standing = look(client, plan.name)
    door = usable_door(standing, plan.options.values)
    if door is not None and door.status == "running":
        return door
    try:
        if door is None:
            door = _new_door(plan, image, attempt, _next_door(standing))
        else:
            _start(door, where(plan.options.values))
        _await_door(door, image)
    except NotFoundError:
        if door is None or any(each.id == door.id for each in look(client, plan.name).doors):
            raise
        raise under_way(plan.name) from None  # it was that of an attempt that is taken back just now
    except BentotoolError as error:
        if "executable file not found" not in error.message:
            raise
        raise _no_runtime(image) from None
    return door


def _new_door(plan: Plan, image: Image, attempt: Attempt, revision: int) -> Container:
    """A door that is started. A free port is chosen here: one that the engine chose would be another whenever the
    container is started again. It may be taken just then, and another is chosen.
    """
    port, name = where(plan.options.values), door_name(plan.name, revision)
    body = door_body(plan.bento, plan.options, image, revision)
    free = port.endswith(":0")
    for left in reversed(range(_TRIES if free else 1)):
        for binding in (each for bound in body["HostConfig"]["PortBindings"].values() for each in bound):
            binding["HostPort"] = str(free_port(binding["HostIp"])) if free else binding["HostPort"]
        door = attempt.create(name, body)
        try:
            _start(door, port)
        except ConflictError:
            if not left:
                raise
            attempt.remove(door)
        else:
            return door
    raise AssertionError("a door needs at least one try")


def _start(door: Container, port: str) -> None:
    with explained(f"start {door.name}", port=port):
        door.start()


def _await_door(door: Container, image: Image) -> None:
    """Wait until the door can be asked.

    Raises:
        UnhealthyError: it ends, or says nothing.
    """
    path = door.labels[SOCKET]
    check = [image.python, "-I", "-c", f"import os,sys; sys.exit(not os.path.exists({path!r}))"]
    deadline = time.monotonic() + _DOOR_S
    while time.monotonic() < deadline:
        with explained(f"look at {door.name}"):
            door.reload()
        if door.status in ("exited", "dead", "restarting"):
            break
        with contextlib.suppress(*BROKEN):
            if door.exec_run(check).exit_code == 0:
                return
        time.sleep(_POLL_S)
    said = last_words(door)
    if "No module named" in said or "executable file not found" in said:
        raise _no_runtime(image)
    raise UnhealthyError(f"{door.name} does not hold the port: {said}", hint=f"docker logs {door.name}")


def _await_ready(version: Container, image: Image, plan: Plan) -> None:
    """Wait until a version is ready.

    Raises:
        UnhealthyError: it ends before, the time is over, or it never asked for the port.
    """
    timeout, start = float(plan.options.values["timeout"]), time.monotonic()
    while True:
        asked = time.monotonic()
        if is_ready(version, image.python):
            break
        try:
            with explained(f"look at {version.name}"):
                version.reload()
        except NotFoundError:
            raise _overtaken(version) from None
        if version.status != "running":
            raise _ended(version, plan)
        passed = time.monotonic() - start
        if passed >= timeout:
            said = _tell_log(version, plan)
            raise UnhealthyError(
                f"{version.name} is not ready after {timeout:g} s: {said}", hint="give it longer: --timeout SECONDS"
            )
        plan.options.progress(f"{version.name} starts, {passed:.0f} s: {' '.join(last_lines(version, 1)).strip()}")
        # to ask takes of the version's own CPUs: one that has few is asked more seldom
        time.sleep(max(_POLL_S, 2 * (time.monotonic() - asked)))
    with explained(f"look at {version.name}"):
        able = version.exec_run([image.python, "-c", "import bentotool.runtime.door"]).exit_code == 0
    if not able:
        raise _no_runtime(image)


def _ended(version: Container, plan: Plan) -> BentotoolError:
    """Why a version is not there any more."""
    if look(version.client, version.labels[DEPLOYMENT]).newest > revision_of(version):
        return _overtaken(version)
    state = version.attrs.get("State", {})
    if state.get("OOMKilled"):
        return UnhealthyError(f"{version.name} ran out of memory", hint="give it more: --memory SIZE")
    said = _tell_log(version, plan)
    return UnhealthyError(f"{version.name} does not start (exit status {state.get('ExitCode')}): {said}")


def _tell_log(version: Container, plan: Plan) -> str:
    """Show the end of a log that is about to go, and give its line on what is wrong."""
    for line in last_lines(version, _LOG_LINES):
        plan.options.note(f"{version.name} | {line}")
    return last_words(version)


def _overtaken(version: Container) -> ConflictError:
    return under_way(version.labels[DEPLOYMENT], f"{version.name} was taken away: ")


def _retire(plan: Plan, before: Standing, door: Container) -> None:
    """End what the new version stands in for: each old one in order, then doors that are not needed any more."""
    seconds = stop_seconds(plan.options.values)
    try:
        for old in before.versions:
            if old.status == "running":
                plan.options.note(f"{old.name} ends when its requests are done")
            _stop_and_remove(old, seconds)
        for other in before.doors:
            if other.id != door.id:
                _stop_and_remove(other, 5)
    except KeyboardInterrupt:
        plan.options.note(f"interrupted: the new version of {plan.name} serves; the next deploy removes the old one")
        raise


def _stop_and_remove(container: Container, seconds: int) -> None:
    with explained(f"stop {container.name}"):
        try:
            container.stop(timeout=seconds)
            container.remove(force=True, v=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            if error.status_code != 409:  # another process removes it just now
                raise


def take_away(client: docker.DockerClient, name: str, seconds: int) -> Sequence[str]:
    """Remove the containers and volumes that carry the label of a deployment.

    Args:
        seconds: that a version may take to end.

    Returns:
        What was removed.
    """
    standing, removed = look(client, name), []
    for each in (*standing.versions, *standing.doors):
        _stop_and_remove(each, seconds)
        removed.append(f"container {each.name}")
    with explained("list volumes"):
        volumes = client.volumes.list(filters={"label": f"{DEPLOYMENT}={name}"})
    for volume in volumes:
        with explained(f"remove volume {volume.name}"):
            volume.remove()
        removed.append(f"volume {volume.name}")
    return removed
