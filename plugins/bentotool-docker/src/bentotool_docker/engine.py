"""The engine: which one, and what its failures mean."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import socket
import warnings
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors
import requests.exceptions
import urllib3.exceptions
from docker.context import ContextAPI

from bentotool.errors import (
    AuthenticationError,
    BentotoolError,
    ConflictError,
    MissingDependencyError,
    NotFoundError,
    RemoteError,
    UsageError,
)

__all__ = ["BROKEN", "TAKEN", "NoSpaceError", "connect", "engine_url", "explained", "is_local", "one_line"]

BROKEN = (docker.errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError, OSError)
"""What calls to an engine raise when it refuses, or goes away in the middle."""

_TIMEOUT_S = 120
_ANY = "1.41"  # until the engine has said what it speaks
_OLDEST = (1, 41)  # of Docker 20.10 (December 2020): what is older has no such mounts and devices as we ask for
_ODD = (ValueError, KeyError, TypeError)  # what something that is no engine answers
_LOCAL = ("unix://", "npipe://")
TAKEN = re.compile(r"port is already allocated|address already in use|ports are not available", re.IGNORECASE)
_NOT_OURS = re.compile(r"cannot assign requested address", re.IGNORECASE)
_REFUSED = re.compile(r"denied|unauthorized|authentication required|no basic auth", re.IGNORECASE)
_GPU = re.compile(r"could not select device driver|nvidia-container", re.IGNORECASE)


class NoSpaceError(BentotoolError):
    """The engine's disk is full."""

    code = "disk_full"


def engine_url(given: str | None) -> str:
    """The engine that is meant: as given, ``DOCKER_HOST``, the context that ``docker`` uses, or this machine's.

    Raises:
        UsageError: the current context cannot be read.
    """
    if given or os.environ.get("DOCKER_HOST"):
        return given or os.environ["DOCKER_HOST"]
    try:
        context = ContextAPI.get_current_context()
    except Exception as error:  # it reads files of another program
        raise UsageError(f"the Docker context cannot be read: {one_line(error)}", hint="docker context ls") from error
    host = context.Host if context is not None else None
    return str(host or docker.constants.DEFAULT_UNIX_SOCKET).replace("http+unix://", "unix://")


def is_local(url: str) -> bool:
    """Whether an engine sees this machine's files."""
    return url.startswith(_LOCAL)


def connect(url: str, *, timeout: int = _TIMEOUT_S) -> docker.DockerClient:
    """A client of an engine that answers.

    Raises:
        RemoteError: none does, or one that is too old.
        AuthenticationError: it may not be asked.
        MissingDependencyError: it is at the far end of ssh, and the package for that is not here.
    """
    if url.startswith("ssh://") and importlib.util.find_spec("paramiko") is None:
        raise MissingDependencyError("paramiko", install="'docker[ssh]'", purpose=f"the engine at {url}")
    try:
        settings: dict[str, Any] = {"base_url": url, "timeout": timeout, "tls": _tls(url)}
        _knock(url)
        # asked for its version by a client of its own: one that fails while it is made leaves its connection open
        with contextlib.closing(docker.DockerClient(version=_ANY, **settings)) as first:
            said = first.api.version(api_version=False)
            version = str(said["ApiVersion"])
        old = tuple(map(int, version.split("."))) < _OLDEST
        if not old:
            return docker.DockerClient(version=version, **settings)
    except (*BROKEN, *_ODD) as error:
        raise _unreachable(url, error) from error
    raise RemoteError(
        f"the engine at {url} is too old: Docker {one_line(str(said.get('Version', '?')))}, API {version}",
        hint=f"API {_ANY} is needed, of Docker 20.10 or later",
    )


def _tls(url: str) -> Any:
    """How a connection over TCP is secured: by the environment, or as the context of that engine says."""
    if not url.startswith("tcp://"):
        return None
    if os.environ.get("DOCKER_TLS_VERIFY"):
        return docker.utils.kwargs_from_env().get("tls")
    with contextlib.suppress(Exception), warnings.catch_warnings():  # files of another program
        warnings.simplefilter("ignore", ResourceWarning)  # the client leaves them to be closed
        return next((each.TLSConfig for each in ContextAPI.contexts() if each.Host == url and each.TLSConfig), None)
    return None


def _knock(url: str) -> None:
    """Whether somebody listens at a Unix socket; the client tells less of why not, and leaves its own open."""
    if url.startswith("unix://") and hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(10)
            probe.connect(url.removeprefix("unix://"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    waiting, seen = [error], set()
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [part for part in (*each.args, each.__cause__, each.__context__) if isinstance(part, BaseException)]


def _unreachable(url: str, error: BaseException) -> BentotoolError:
    causes = list(_causes(error))
    if any(isinstance(cause, PermissionError) for cause in causes):
        return AuthenticationError(
            f"the Docker engine at {url} may not be asked: permission denied",
            hint="join the group that owns the socket (sudo usermod -aG docker $USER, then log in again)",
        )
    if any("Invalid bind address" in str(cause) for cause in causes):
        return UsageError(
            f"{url[:80]!r} is no address of a Docker engine",
            hint="unix:///var/run/docker.sock, tcp://HOST:PORT or ssh://HOST: --engine URL, or DOCKER_HOST",
        )
    return RemoteError(
        f"no Docker engine answers at {url}: {_reason(error)}",
        hint="start it (sudo systemctl start docker, or Docker Desktop), or name another: --engine URL, DOCKER_HOST",
    )


def _reason(error: BaseException) -> str:
    """What is at the bottom of a failed connection."""
    causes = list(_causes(error))
    if any(isinstance(cause, FileNotFoundError) for cause in causes):
        return "its socket is not there"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "connection refused"
    return one_line(causes[-1] if causes[-1].args else error)


def one_line(error: BaseException | str) -> str:
    """What an error says, as one line of bounded length."""
    text = getattr(error, "explanation", None) or str(error)
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    text = "".join(char if char.isprintable() else " " for char in str(text))
    return " ".join(text.split())[:400] or type(error).__name__


@contextlib.contextmanager
def explained(action: str, *, port: str = "") -> Iterator[None]:
    """Turn the engine's failures within the block into errors of one line.

    Args:
        action: what is being done, for the message.
        port: ``address:port`` that is published, where one is.

    Raises:
        BentotoolError: what went wrong, and the next step.
    """
    try:
        yield
    except (docker.errors.APIError, docker.errors.ImageLoadError) as error:
        raise _refused(action, port, error) from error
    except requests.exceptions.ReadTimeout as error:
        raise RemoteError(f"{action}: the engine did not answer in time", hint="docker info") from error
    except BROKEN as error:
        raise RemoteError(
            f"{action}: the connection to the engine broke: {_reason(error)}",
            hint="see whether it runs (docker info), and do it again",
        ) from error


def _refused(action: str, port: str, error: docker.errors.DockerException) -> BentotoolError:
    said, status = one_line(error), getattr(error, "status_code", None)
    if "no space left on device" in said:
        return NoSpaceError(
            f"{action}: no space left on the engine's disk",
            hint="docker system df shows what takes it; docker image prune frees what nothing uses",
        )
    if TAKEN.search(said):
        return ConflictError(
            f"port {port} is in use", hint="stop what uses it, or choose another: --port N (0: a free one)"
        )
    if _NOT_OURS.search(said):
        return UsageError(f"the engine's machine has no address {port}", hint="--address 127.0.0.1")
    if _GPU.search(said):
        return BentotoolError(
            f"{action}: the engine has no GPUs to give",
            hint="install the NVIDIA container toolkit on its machine, or leave --gpus out",
        )
    if isinstance(error, docker.errors.ImageNotFound) or _REFUSED.search(said):
        return NotFoundError(
            f"{action}: {said}", hint="look at the name, and log in where it is private: docker login HOST"
        )
    if status == 409 and "already in use" in said:
        return ConflictError(
            f"{action}: {said}", hint="another deployment of this name is under way: try again after it"
        )
    if status == 404:
        return NotFoundError(f"{action}: {said}", hint="docker network ls" if said.startswith("network ") else None)
    if status == 400:
        return UsageError(f"{action}: {said}")
    return RemoteError(f"{action}: {said}")
