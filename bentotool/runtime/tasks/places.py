"""Where the tasks of a service are kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.errors import ConfigError, MissingDependencyError
from bentotool.runtime.tasks.records import TaskStore

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["GROUP", "VARIABLE", "find_store"]

VARIABLE = "BENTOTOOL_TASKS"
"""A folder, or the address of another store, as ``redis://host``. Before ``tasks.path`` of the service."""
GROUP = "bentotool.task_stores"
"""Entry points: the scheme of an address → ``open_store(address, service) -> TaskStore``."""
_SLOT = "BENTOTOOL_WORKER_SLOT"


def _identity(service: Service[Any]) -> str:
    """What tells this service from another of the same name: the Bento's name, else the folder of its code."""
    from bentotool.runtime.bento import BENTO_VARIABLE

    bento = os.environ.get(BENTO_VARIABLE)
    if bento:
        try:
            return str(json.loads(Path(bento).read_text(encoding="utf-8"))["name"])
        except (OSError, ValueError, KeyError):
            return bento
    file = getattr(sys.modules.get(service.__module__), "__file__", None)
    return str(Path(file).resolve().parent) if file else str(Path.cwd())


def _file(folder: Path, service: Service[Any]) -> Path:
    digest = hashlib.sha256(_identity(service).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return folder / f"{service.name}-{digest}.sqlite3"


def _data_folder() -> Path:
    """``tasks`` in the store of this user, where `bentotool.paths` puts that; this wheel does not have it."""
    if configured := os.environ.get("BENTOTOOL_STORE"):
        return Path(configured).expanduser().absolute() / "tasks"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "bentotool" / "store" / "tasks"


def _plugin(scheme: str) -> Callable[[str, str], TaskStore]:
    for point in metadata.entry_points(group=GROUP):
        if point.name == scheme:
            found: Callable[[str, str], TaskStore] = point.load()
            return found
    raise MissingDependencyError(f"bentotool-{scheme}", purpose=f"tasks in {scheme}://")


def find_store(service: Service[Any]) -> Callable[[], TaskStore]:
    """What opens the store of a service's tasks. Nothing is opened or made yet.

    Without a supervisor, as in tests, and where nobody chose a place, the tasks are kept in a temporary folder, which
    goes with the store.

    Raises:
        MissingDependencyError: no installed package knows the scheme of the address.
    """
    from bentotool.runtime.tasks.sqlite import SQLiteStore, TemporaryStore

    options = service.config.options.get("tasks") or {}
    where = os.environ.get(VARIABLE) or options.get("path")
    if where:
        scheme = re.match(r"([a-z][a-z0-9+.-]+)://", str(where))
        if scheme:
            opener, address = _plugin(scheme[1]), str(where)
            return lambda: opener(address, service.name)
        folder = Path(where).expanduser()
        return lambda: SQLiteStore(_file(folder, service))
    if _SLOT not in os.environ:
        return TemporaryStore
    folder = _data_folder()

    def open_default() -> TaskStore:
        try:
            return SQLiteStore(_file(folder, service))
        except ConfigError as error:
            raise ConfigError(
                error.message, hint=f"set {VARIABLE} to a folder that can be written and outlives the server"
            ) from error

    return open_default
