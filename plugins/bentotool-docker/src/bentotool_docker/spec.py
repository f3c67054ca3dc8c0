"""The containers and the volume of a deployment, as the Engine API takes them (v1.41, ContainerCreate, VolumeCreate).

A deployment is one *door*, which holds the published port and lends it (:mod:`bentotool.runtime.door`), one volume in
memory with the socket that it is asked at, and a container for each version, of which all but the newest are about to
end.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bentotool.errors import NotFoundError, UsageError
from bentotool.targetspec import DeployBento, DeployOptions
from bentotool_docker.images import Image

__all__ = [
    "BENTO",
    "DEPLOYMENT",
    "DIGEST",
    "REVISION",
    "ROLE",
    "SOCKET",
    "VARIABLE",
    "WHERE",
    "container_name",
    "door_body",
    "door_name",
    "door_socket",
    "free_port",
    "parse_size",
    "secret_files",
    "stop_seconds",
    "version_body",
    "volume_body",
    "volume_name",
    "where",
]

DEPLOYMENT = "io.bentotool.deployment"
ROLE = "io.bentotool.deployment.role"
REVISION = "io.bentotool.deployment.revision"
BENTO = "io.bentotool.deployment.bento"
DIGEST = "io.bentotool.deployment.digest"
WHERE = "io.bentotool.deployment.port"
"""On a door: address and port as they were asked for."""
SOCKET = "io.bentotool.deployment.socket"
"""On a door: where it is asked."""

VARIABLE = "BENTOTOOL_DOOR"
"""In a version's environment: where it is lent its port."""

_PORT = 3000
_FIRST_FREE, _FREE = 49152, 16384  # RFC 6335, section 6: what nobody is given for good
_PLACE = "/run/bentotool"
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECRET = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}")
_LOGS = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "5"}}
_LEAST_MEMORY = 6 << 20  # the engine's own bound
_SLACK_S = 10


def door_name(name: str, revision: int) -> str:
    return f"bentotool-{name}-door-{revision}"


def door_socket(revision: int) -> str:
    """Where a door is asked, within the containers."""
    return f"{_PLACE}/door-{revision}"


def volume_name(name: str) -> str:
    return f"bentotool-{name}"


def container_name(name: str, revision: int) -> str:
    return f"bentotool-{name}-{revision}"


def stop_seconds(values: Mapping[str, Any]) -> int:
    """How long a version may take to end."""
    return int(float(values["drain"]) + float(values["grace"])) + _SLACK_S


def parse_size(text: str, what: str) -> int:
    """Bytes of ``512m`` or ``1.5g``; units are powers of 1024, as Docker's.

    Raises:
        UsageError: it is none.
    """
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if size < 1:
        raise UsageError(f"{what} {text[:40]!r} is not a size", hint=f"--{what} 512m, or 4g")
    return size


def secret_files(pairs: tuple[str, ...], *, local: bool, user: str) -> tuple[dict[str, Path], list[int]]:
    """Secrets by name, and groups that the process needs to read them.

    Args:
        local: whether the engine sees this machine's files.
        user: that the process runs as, ``uid[:gid]``.

    Raises:
        UsageError: a pair of another form, an engine elsewhere, or a file that the process could not read.
        NotFoundError: no such file.
    """
    found: dict[str, Path] = {}
    groups: list[int] = []
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not _SECRET.fullmatch(name) or not text:
            raise UsageError(
                f"secret {pair[:60]!r} is not of the form NAME=FILE", hint="--secret token=/etc/secrets/token"
            )
        if name in found:
            raise UsageError(f"secret {name} is given twice", hint="give it once")
        if not local:
            raise UsageError(
                f"secret {name}: the engine runs elsewhere and does not see {text}", hint="deploy on its machine"
            )
        path = Path(text).expanduser().absolute()
        if not path.is_file():
            raise NotFoundError(f"secret {name}: no file {path}", hint="secrets are read from files: NAME=FILE")
        found[name] = path
        groups += _groups(name, path, user)
    return found, sorted(set(groups))


def _groups(name: str, path: Path, user: str) -> list[int]:
    """The group through which the process reads a file, if it takes one."""
    owner, _, group = user.partition(":")
    facts = path.stat()
    if os.name != "posix" or owner in ("", "0", "root") or facts.st_mode & 0o004:
        return []
    if str(facts.st_uid) == owner and facts.st_mode & 0o400:
        return []
    if facts.st_mode & 0o040:
        return [] if group == str(facts.st_gid) else [facts.st_gid]
    raise UsageError(
        f"secret {name}: user {owner} of the container may not read {path}",
        hint=f"let a group read it (chmod 0640 {path}); the container joins that group",
    )


def _labels(bento: DeployBento, options: DeployOptions, role: str) -> dict[str, str]:
    return {DEPLOYMENT: options.name, ROLE: role, BENTO: bento.tag, DIGEST: bento.digest}


def _hardened(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "ReadonlyRootfs": True,
        "LogConfig": _LOGS,
        **({"NetworkMode": values["network"]} if values["network"] else {}),
    }


def volume_body(options: DeployOptions) -> dict[str, Any]:
    """A volume in memory: nothing of it outlives the containers."""
    memory = {"type": "tmpfs", "device": "tmpfs", "o": "mode=1777,size=64k,nosuid,nodev,noexec"}
    return {
        "Name": volume_name(options.name), "Driver": "local", "DriverOpts": memory,
        "Labels": {DEPLOYMENT: options.name, ROLE: "volume"},
    }  # fmt: skip


def _address(values: Mapping[str, Any]) -> str:
    """The address that is published; a name is refused: the engine takes one for all addresses, without a word."""
    text = str(values["address"])
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        raise UsageError(
            f"address {text[:80]!r} is no IP address", hint="--address 127.0.0.1, or 0.0.0.0 for all networks"
        ) from None


def where(values: Mapping[str, Any]) -> str:
    """Address and port that are asked for.

    Raises:
        UsageError: it is no address.
    """
    return f"{_address(values)}:{int(values['port'])}"


def free_port(address: str) -> int:
    """A port that is free at an address of this machine just now; some port, where the engine runs elsewhere."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with contextlib.suppress(OSError), socket.socket(family) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
    return _FIRST_FREE + secrets.randbelow(_FREE)


def door_body(bento: DeployBento, options: DeployOptions, image: Image, revision: int) -> dict[str, Any]:
    """The container that holds the port. It answers nobody, and lends the port to the versions."""
    values = options.values
    port, address, path = int(values["port"]), _address(values), door_socket(revision)
    return {
        "Image": image.reference,
        "Entrypoint": [image.python, "-m", "bentotool.runtime.door"],
        "Cmd": ["--port", str(_PORT), "--socket", path],
        "WorkingDir": "/",
        "User": str(values["user"] or image.user),
        "Labels": {**_labels(bento, options, "door"), REVISION: str(revision), WHERE: where(values), SOCKET: path},
        "ExposedPorts": {f"{_PORT}/tcp": {}},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_hardened(values),
            "PortBindings": {f"{_PORT}/tcp": [{"HostIp": address, "HostPort": str(port)}]},
            "Mounts": [_mount(options.name, read_only=False)],
            "RestartPolicy": {"Name": values["restart"]},
            "Memory": 64 << 20,
            "PidsLimit": 16,
        },
    }


def _mount(name: str, *, read_only: bool) -> dict[str, Any]:
    return {"Type": "volume", "Source": volume_name(name), "Target": _PLACE, "ReadOnly": read_only,
            "VolumeOptions": {"NoCopy": True}}  # fmt: skip


def version_body(
    bento: DeployBento, options: DeployOptions, image: Image, revision: int, door: str, *, local: bool
) -> dict[str, Any]:
    """The container of one version, which is lent the port at ``door``.

    Raises:
        UsageError, NotFoundError: a value that no container can have, or a secret that is not there.
    """
    values = options.values
    user = str(values["user"] or image.user)
    secrets, groups = secret_files(tuple(values["secret"]), local=local, user=user)
    host: dict[str, Any] = {
        **_hardened(values),
        "ReadonlyRootfs": bool(values["read-only"]),
        "Tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={parse_size(str(values['tmp']), 'tmp')}"},  # noqa: S108
        "Mounts": [
            _mount(options.name, read_only=True),
            *(
                {"Type": "bind", "Source": str(path), "Target": f"/run/secrets/{name}", "ReadOnly": True}
                for name, path in secrets.items()
            ),
        ],
        "RestartPolicy": {"Name": values["restart"]},
    }
    if groups:
        host["GroupAdd"] = [str(group) for group in groups]
    if values["cpu"]:
        host["NanoCpus"] = round(float(values["cpu"]) * 1_000_000_000)
    if values["memory"]:
        host["Memory"] = parse_size(str(values["memory"]), "memory")
        if host["Memory"] < _LEAST_MEMORY:
            raise UsageError(f"memory {values['memory']!r} is less than the engine gives", hint="--memory 512m")
    if values["gpus"]:
        host["DeviceRequests"] = [_gpus(str(values["gpus"]))]
    return {
        "Image": image.reference,
        "User": user,
        "Env": [f"{name}={value}" for name, value in _variables(options, door).items()],
        "Labels": {**_labels(bento, options, "version"), REVISION: str(revision)},
        "StopTimeout": stop_seconds(values),
        "HostConfig": host,
    }


def _variables(options: DeployOptions, door: str) -> dict[str, str]:
    values = options.values
    ours = {
        "PORT": str(_PORT),
        "BENTOTOOL_HOST": "0.0.0.0",  # noqa: S104 - within the container; nothing is published but the door's port
        VARIABLE: door,
        "BENTOTOOL_DRAIN_DELAY": f"{float(values['drain']):g}",
        "BENTOTOOL_GRACE": f"{float(values['grace']):g}",
    }
    if taken := sorted(ours.keys() & options.env.keys()):
        raise UsageError(
            f"--env {taken[0]} is set by the deployment itself", hint="leave it out; see --help for options"
        )
    return {**options.env, **ours}


def _gpus(text: str) -> dict[str, Any]:
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]]}
    if text == "all" or text.isdigit():
        return {**request, "Count": -1 if text == "all" else int(text)}
    return {**request, "DeviceIDs": [part.strip() for part in text.split(",")]}
