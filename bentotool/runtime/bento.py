"""Reading ``bento.json``, the description of a Bento on disk (format 1), and finding what to serve."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.errors import ConfigError, NotFoundError, UsageError

__all__ = ["ARGUMENTS_VARIABLE", "BENTO_VARIABLE", "Bento", "Target", "find_target", "given_arguments", "read_bento"]

BENTO_VARIABLE = "BENTOTOOL_BENTO"
"""Path of the ``bento.json`` being served; models and loaders are found through it."""
ARGUMENTS_VARIABLE = "BENTOTOOL_ARGUMENTS"
"""Template arguments as a JSON object, from whoever starts the server; no worker gets the variable."""


@dataclass(frozen=True)
class Bento:
    """What the runtime needs of ``bento.json``."""

    path: Path
    name: str
    version: str
    service: str
    envs: tuple[tuple[str, str], ...] = ()
    middleware: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    @property
    def app_dir(self) -> Path:
        return self.path.parent / "app"


@dataclass(frozen=True)
class Target:
    """What to serve, and from where.

    Attributes:
        app_dir: working directory and first entry of `sys.path`.
        service: ``module:Class``, or None to find it in ``service.py``.
        bento: None for a project folder.
        arguments: values of template arguments by name.
    """

    app_dir: Path
    service: str | None
    bento: Bento | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_bento(path: Path) -> Bento:
    """Read a ``bento.json``.

    Raises:
        ConfigError: not JSON, another format, or a key is missing.
    """
    try:
        document: Any = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("format") != 1:
        raise ConfigError(f"{path} is not of Bento format 1", hint="serve it with a newer bentotool")
    try:
        return Bento(
            path=path,
            name=str(document["name"]),
            version=str(document["version"]),
            service=str(document["service"]),
            envs=tuple(
                (str(e["name"]), str(e["value"])) for e in document.get("envs", ()) if e.get("value") is not None
            ),
            middleware=tuple(document.get("middleware", ())),
            arguments={str(a["name"]): a["value"] for a in document.get("arguments", ()) if "value" in a},
            secrets=tuple(str(a["name"]) for a in document.get("arguments", ()) if a.get("secret") is True),
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path}: {error} is missing or wrong") from error


def given_arguments() -> dict[str, Any]:
    """The template arguments that this process was started with, taken out of the environment.

    Raises:
        UsageError: the variable holds no JSON object.
    """
    text = os.environ.pop(ARGUMENTS_VARIABLE, "")
    try:
        document = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UsageError(f"{ARGUMENTS_VARIABLE} is no JSON object", hint="bentotool serve --arg NAME=VALUE sets it")
    return document


def find_target(where: str, service: str | None = None, arguments: Mapping[str, Any] | None = None) -> Target:
    """What a folder holds: a Bento root, its ``home/bento``, or a project.

    Args:
        arguments: template arguments by name; of a Bento only the secret ones, as it has the others itself.

    Raises:
        NotFoundError: no such folder.
        UsageError: an argument that the Bento was built with, or that it does not have.
    """
    given = dict(arguments or {})
    folder = Path(where).absolute()
    if not folder.is_dir():
        raise NotFoundError(f"no folder {where}", hint="give a project folder or a Bento")
    for candidate in (folder / "bento.json", folder / "home" / "bento" / "bento.json"):
        if candidate.is_file():
            bento = read_bento(candidate)
            environment = {name: value for name, value in bento.envs if name not in os.environ}
            environment[BENTO_VARIABLE] = str(candidate)
            _check_given(bento, given)
            return Target(bento.app_dir, service or bento.service, bento, environment, {**bento.arguments, **given})
    return Target(folder, service, arguments=given)


def _check_given(bento: Bento, given: Mapping[str, Any]) -> None:
    for name in sorted(set(given) - set(bento.secrets)):
        if name in bento.arguments:
            message = f"argument {name!r} is part of Bento {bento.name}:{bento.version}"
            raise UsageError(message, hint=f"build another one: bentotool build --arg {name}=VALUE")
        known = f"its secret arguments: {', '.join(bento.secrets)}" if bento.secrets else "it has no secret arguments"
        raise UsageError(
            f"Bento {bento.name}:{bento.version} takes no argument {name[:80]!r} when it is served", hint=known
        )
