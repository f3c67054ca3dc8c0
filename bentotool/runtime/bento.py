"""Reading ``bento.json``, the description of a Bento on disk (format 1), and finding what to serve."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.errors import ConfigError, NotFoundError

__all__ = ["BENTO_VARIABLE", "Bento", "Target", "find_target", "read_bento"]

BENTO_VARIABLE = "BENTOTOOL_BENTO"
"""Path of the ``bento.json`` being served; models and loaders are found through it."""


@dataclass(frozen=True)
class Bento:
    """What the runtime needs of ``bento.json``."""

    path: Path
    name: str
    version: str
    service: str
    envs: tuple[tuple[str, str], ...] = ()
    middleware: tuple[str, ...] = ()

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
    """

    app_dir: Path
    service: str | None
    bento: Bento | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


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
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{path}: {error} is missing or wrong") from error


def find_target(where: str, service: str | None = None) -> Target:
    """What a folder holds: a Bento root, its ``home/bento``, or a project.

    Raises:
        NotFoundError: no such folder.
    """
    folder = Path(where).absolute()
    if not folder.is_dir():
        raise NotFoundError(f"no folder {where}", hint="give a project folder or a Bento")
    for candidate in (folder / "bento.json", folder / "home" / "bento" / "bento.json"):
        if candidate.is_file():
            bento = read_bento(candidate)
            environment = {name: value for name, value in bento.envs if name not in os.environ}
            environment[BENTO_VARIABLE] = str(candidate)
            return Target(bento.app_dir, service or bento.service, bento, environment)
    return Target(folder, service)
