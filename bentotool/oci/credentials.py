"""Registry credentials: Docker's and containers' configuration files, credential helpers, and a hook for plugins.

Files, in the order they are asked: ``$DOCKER_CONFIG/config.json``, ``$REGISTRY_AUTH_FILE``, ``~/.docker/config.json``,
``$XDG_RUNTIME_DIR/containers/auth.json``, ``~/.config/containers/auth.json``. In each ``credHelpers``, then
``credsStore``, then ``auths``, as Docker does; an entry for a part of a registry (containers-auth.json(5)) goes before
one for all of it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bentotool.errors import AuthenticationError, ConfigError
from bentotool.paths import make_private_directory, write_atomic

__all__ = ["CredentialHook", "CredentialStore", "Credentials", "config_files", "hub_key"]

_CONFIG_LIMIT = 1 << 20
_HELPER_TIMEOUT = 60  # seconds: some helpers open a browser or a key ring
_TOLD_LIMIT = 200
_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_IDENTITY_USER = "<token>"
_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io"})


@dataclass(frozen=True)
class Credentials:
    """A user name with a password, or an identity token (OAuth2 refresh token). Its repr shows no secret.

    Attributes:
        source: the file that they, or the name of their helper, are in; empty for others.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    source: str = field(default="", compare=False)

    @property
    def basic(self) -> str:
        """The value of a Basic Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")


CredentialHook = Callable[[str, str, tuple[str, ...]], "Credentials | None"]
"""``(registry, repository, actions)`` → credentials: the way to the hook ``bentotool_registry_credentials``."""


def hub_key(registry: str) -> str:
    """The name under which credentials for ``registry`` are kept: Docker Hub's is a URL for historical reasons."""
    return "https://index.docker.io/v1/" if registry in _HUB else registry


def config_files(environ: Mapping[str, str] = os.environ) -> Iterator[Path]:
    """The files that may hold credentials, first asked first; they need not exist."""
    if directory := environ.get("DOCKER_CONFIG"):
        yield Path(directory) / "config.json"
    if file := environ.get("REGISTRY_AUTH_FILE"):
        yield Path(file)
    if "DOCKER_CONFIG" not in environ:
        yield Path.home() / ".docker" / "config.json"
    if directory := environ.get("XDG_RUNTIME_DIR"):
        yield Path(directory) / "containers" / "auth.json"
    config = environ.get("XDG_CONFIG_HOME")
    yield (Path(config) if config else Path.home() / ".config") / "containers" / "auth.json"


class CredentialStore:
    """Looks credentials up, and keeps those that ``login`` verified.

    Args:
        hook: asked before any file.
        environ: where the names of the files come from.
    """

    def __init__(self, hook: CredentialHook | None = None, environ: Mapping[str, str] = os.environ) -> None:
        self._hook = hook
        self._environ = environ

    def find(self, registry: str, repository: str = "", actions: tuple[str, ...] = ("pull",)) -> Credentials | None:
        """Credentials for a registry, or None to stay anonymous.

        Raises:
            ConfigError: when a configuration file is not readable as JSON.
            AuthenticationError: when a credential helper fails, other than by knowing nothing.
        """
        if self._hook is not None and (found := self._hook(registry, repository, actions)) is not None:
            return found
        for path in config_files(self._environ):
            if (found := _from_config(_read_config(path), registry, repository)) is not None:
                return replace(found, source=str(path))
        return None

    def save(self, registry: str, credentials: Credentials) -> str:
        """Keep credentials in the configured helper, else in the first configuration file (mode 0600).

        Returns:
            Where they were kept, for the user.
        """
        path = next(config_files(self._environ))
        config, key = _read_config(path), hub_key(registry)
        if helper := _helper(config, registry):
            payload = {"ServerURL": key, "Username": credentials.username, "Secret": credentials.password}
            _run_helper(helper, "store", json.dumps(payload))
            # Docker keeps an empty entry: "ask the store".
            config.setdefault("auths", {})[key] = {}
        else:
            config.setdefault("auths", {})[key] = {"auth": credentials.basic.removeprefix("Basic ")}
        _write_config(path, config)
        return f"credential helper {helper}" if helper else str(path)

    def erase(self, registry: str) -> bool:
        """Forget a registry in every file and helper; True when anything was kept."""
        found = False
        for path in config_files(self._environ):
            config = _read_config(path)
            names = {hub_key(registry), registry} & config.get("auths", {}).keys()
            helper = _helper(config, registry)
            if helper and _run_helper(helper, "get", hub_key(registry), check=False) is not None:
                _run_helper(helper, "erase", hub_key(registry))
                found = True
            for name in names:
                del config["auths"][name]
            if names:
                _write_config(path, config)
                found = True
        return found


def _read_config(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_LIMIT + 1)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    hint = f"correct or remove {path}"
    if len(data) > _CONFIG_LIMIT:
        raise ConfigError("file is too large for a registry configuration", path=(str(path),), hint=hint)
    try:
        config = json.loads(data or b"{}")
    except ValueError:
        # The parser's own message would quote the file, which holds secrets.
        raise ConfigError("is not valid JSON", path=(str(path),), hint=hint) from None
    if not isinstance(config, dict) or not isinstance(config.get("auths", {}), dict):
        raise ConfigError("is not a registry configuration", path=(str(path),), hint=hint)
    return config


def _write_config(path: Path, config: Mapping[str, Any]) -> None:
    make_private_directory(path.parent)
    write_atomic(path, json.dumps(config, indent=2).encode() + b"\n", mode=0o600)


def _helper(config: Mapping[str, Any], registry: str) -> str | None:
    helpers = config.get("credHelpers")
    chosen = helpers if isinstance(helpers, dict) else {}
    name = chosen.get(hub_key(registry)) or chosen.get(registry)
    name = name or config.get("credsStore")
    return name if isinstance(name, str) and _HELPER_NAME.fullmatch(name) else None


def _from_config(config: Mapping[str, Any], registry: str, repository: str) -> Credentials | None:
    if helper := _helper(config, registry):
        # A store for all registries is often that of another machine; a helper for this one was meant to be asked.
        if helper != config.get("credsStore"):
            _program(helper)
        if found := _from_helper(helper, hub_key(registry)):
            return found
    auths = config.get("auths", {})
    for key in dict.fromkeys(_keys(registry, repository)):
        if isinstance(entry := auths.get(key), dict) and (found := _from_entry(entry, key)):
            return found
    return None


def _keys(registry: str, repository: str) -> Iterator[str]:
    """The names an entry may have, the most particular first."""
    parts = repository.split("/") if repository else []
    for count in range(len(parts), 0, -1):
        yield "/".join((registry, *parts[:count]))
    yield from (hub_key(registry), registry, f"https://{registry}", f"https://{registry}/v2/")


def _from_entry(entry: Mapping[str, Any], key: str) -> Credentials | None:
    if isinstance(token := entry.get("identitytoken"), str) and token:
        return Credentials(identity_token=token)
    user, secret = entry.get("username"), entry.get("password")
    if isinstance(user, str) and isinstance(secret, str):
        return Credentials(user, secret)
    encoded = entry.get("auth")
    if not isinstance(encoded, str) or not encoded:
        return None
    try:
        username, separator, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        separator = ""
    if not separator:
        raise ConfigError(f"the entry for {key} is not base64 of user:password", path=("auths",), hint="log in again")
    return Credentials(username, password.rstrip("\x00"))


def _from_helper(helper: str, key: str) -> Credentials | None:
    output = _run_helper(helper, "get", key, check=False)
    if output is None:
        return None
    try:
        answer = json.loads(output)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise AuthenticationError(
            f"credential helper docker-credential-{helper} gave no valid answer",
            hint=f"see what it says: echo HOST | docker-credential-{helper} get",
        ) from None
    if username == _IDENTITY_USER:
        return Credentials(identity_token=secret)
    return Credentials(username, secret) if username or secret else None


def _program(helper: str) -> str:
    program = shutil.which(f"docker-credential-{helper}")
    if program is None:
        raise AuthenticationError(
            f"credential helper docker-credential-{helper} is not installed",
            hint="install it, or remove it from the Docker configuration",
        )
    return program


def _run_helper(helper: str, verb: str, text: str, *, check: bool = True) -> str | None:
    """Run ``docker-credential-<helper> <verb>``: its answer, or None when it knows nothing and ``check`` is off."""
    if not check and shutil.which(f"docker-credential-{helper}") is None:
        return None
    program = _program(helper)
    try:
        # The name is checked above, and the secret travels on standard input only.
        done = subprocess.run(
            [program, verb],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",  # which is no JSON either
            timeout=_HELPER_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        raise AuthenticationError(
            f"credential helper docker-credential-{helper} did not answer",
            hint=f"see what it waits for: echo HOST | docker-credential-{helper} get",
        ) from None
    if done.returncode == 0:
        return done.stdout
    # Helpers report on standard output (docker-credential-helpers), where this text is the one with a meaning.
    told = (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]
    if not check and (not told or "credentials not found" in told):
        return None
    told = "".join(character for character in told if character.isprintable())[:_TOLD_LIMIT]
    raise AuthenticationError(
        f"credential helper docker-credential-{helper} failed to {verb} the credentials"
        + (f": {told}" if told else ""),
        hint=f"see what it says: echo HOST | docker-credential-{helper} get",
    )
