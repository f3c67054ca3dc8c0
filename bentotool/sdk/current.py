"""Where code runs: the service that this process serves, and the worker it is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

__all__ = [
    "ServerContext",
    "bento_value",
    "forget_current",
    "get_current_service",
    "served_version",
    "server_context",
    "use_current",
]

_INDEX, _SLOT, _BENTO = "BENTOTOOL_WORKER_INDEX", "BENTOTOOL_WORKER_SLOT", "BENTOTOOL_BENTO"
_running: list[tuple[Any, Any]] = []


def use_current(service: Any, instance: Any) -> None:
    """Make a service and its instance the running ones. For the runtime."""
    _running.append((service, instance))


def forget_current(instance: Any) -> None:
    """It runs no more. For the runtime."""
    _running[:] = [entry for entry in _running if entry[1] is not instance]


def get_current_service() -> Any:
    """The instance of the service that this process serves; None while nothing is served."""
    return _running[-1][1] if _running else None


def bento_value(key: str) -> str:
    """A value of the ``bento.json`` that is served; empty where a folder is served."""
    path = os.environ.get(_BENTO)
    if not path:
        return ""
    try:
        return str(json.loads(Path(path).read_bytes()).get(key, ""))
    except (OSError, ValueError, AttributeError):
        return ""


def served_version(service: Any) -> str:
    """The version of the Bento that is served, or of the model that is served as itself; empty where a folder is."""
    card = None if service is None else service.card
    return bento_value("version") or ("" if card is None else str(card.version))


class ServerContext:
    """What a service may ask about its server; the names are BentoML's. Read when it is asked, so never out of date."""

    @property
    def worker_index(self) -> int:
        """The number of this worker, from 1; 1 where there are no workers."""
        index, slot = os.environ.get(_INDEX, ""), os.environ.get(_SLOT, "0")
        if index.isdecimal():
            return int(index)
        return int(slot) + 1 if slot.isdecimal() else 1

    @property
    def service_name(self) -> str:
        """The name of the service that is served; empty where none is."""
        return str(self._service.name) if self._service is not None else ""

    @property
    def service_routes(self) -> list[str]:
        """The routes of its APIs."""
        service = self._service
        return [service.path_prefix + spec.route for spec in service.apis.values()] if service is not None else []

    @property
    def service_type(self) -> str:
        return "service"

    @property
    def bento_name(self) -> str:
        """The Bento's name, where one is served; else the service's."""
        return bento_value("name") or self.service_name

    @property
    def bento_version(self) -> str:
        """Of the Bento, or of the model that is served as itself; ``not available`` where a folder is served."""
        return served_version(self._service) or "not available"

    @property
    def _service(self) -> Any:
        return _running[-1][0] if _running else None


server_context = ServerContext()
