"""``python -m bentotool.runtime.probe``: what a service declares, as one JSON document in a file.

The build calls this in a process of its own, with a time limit: a service may do anything while it is imported.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bentotool.errors import BentotoolError, ConfigError, ServiceLoadError, UsageError
from bentotool.runtime.isolation import leave_network
from bentotool.runtime.parts import import_string, members, service_facts
from bentotool.runtime.witness import watch
from bentotool.sdk.arguments import declared, find_secret, provide
from bentotool.sdk.importing import PROBE_VARIABLE

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["describe", "main"]


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _modules(folder: Path) -> list[str]:
    """Files of the project that importing the service brought in, relative to it."""
    found = set()
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and Path(path).is_relative_to(folder):
            found.add(Path(path).relative_to(folder).as_posix())
    return sorted(found)


def _plain(value: Any) -> Any:
    """A declared image as JSON.

    Raises:
        ConfigError: it does not say how.
    """
    to_dict = getattr(value, "to_dict", None)
    if value is not None and not isinstance(value, (dict, str)) and not callable(to_dict):
        raise ConfigError(f"image= takes bentotool.images.Image, not {type(value).__name__}", path=("service", "image"))
    return to_dict() if callable(to_dict) else value


def describe(folder: Path, target: str | None) -> dict[str, Any]:
    """Import a service and describe it.

    Raises:
        ServiceLoadError: it cannot be imported.
        UsageError: an argument is missing, wrong or unknown, or a secret would be recorded.
    """
    from bentotool.runtime.loading import load_service

    folder = folder.resolve()
    service, name = load_service(folder, target)
    models: list[str] = []
    queue, seen = [service], []
    while queue:
        current = queue.pop(0)
        seen.append(current)
        models += [model.reference for model in current.models if model.reference not in models]
        queue += [d.on for d in current.dependencies.values() if d.on and d.on not in seen and d.on not in queue]
    image = _plain(service.image)
    description = {
        "service": name,
        "name": _snake(service.name),
        "description": service.description,
        "models": models,
        "schema": service.schema(),
        "openapi": service.openapi(),
        "config": dict(service.config.options),
        "envs": service.envs,
        "labels": service.labels,
        "image": image,
        "requirements": _requirements(image, seen),
        "depends": [dependency.name for dependency in service.dependencies.values()],
        "services": [
            service_facts(each, name if each is service else import_string(each)) for each in members(service)
        ],
        "modules": _modules(folder),
        "arguments": [argument.to_dict() for argument in declared()],
    }
    if found := find_secret(description):
        raise UsageError(
            f"the secret argument {found[0]!r} would be written into the Bento: {found[1]}",
            hint="use it in __init__ or in an API, when the service runs",
        )
    return description


def _requirements(image: Any, services: list[Service[Any]]) -> list[str]:
    """What the environment needs beside what the project says."""
    asked = list(image.get("requirements", ())) if isinstance(image, dict) else []
    from bentotool.runtime.tracing import TRACING_PACKAGES
    from bentotool.runtime.websockets import WEBSOCKET_LIBRARY
    from bentotool.sdk.elsewhere import CLIENT_LIBRARY

    talks = any(service.websockets or any(not mount.wsgi for mount in service.mounts) for service in services)
    traced = any(service.config.tracing.asked for service in services)
    calls = any(service.dependencies for service in services)  # which may be anywhere, once it is deployed
    return [
        *asked,
        *([CLIENT_LIBRARY] if calls else []),
        *([WEBSOCKET_LIBRARY] if talks else []),
        *(TRACING_PACKAGES if traced else ()),
    ]


def _given() -> dict[str, Any]:
    """The template arguments, from standard input; the service finds that empty."""
    document: dict[str, Any] = json.loads(sys.stdin.buffer.read() or b"{}")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    return document


def main(argv: list[str] | None = None) -> int:
    """Write the description, or ``{"error": {...}}``, to ``--output``; 0 or 1."""
    parser = argparse.ArgumentParser(prog="python -m bentotool.runtime.probe")
    parser.add_argument("--app-dir", required=True, type=Path)
    parser.add_argument("--service")
    parser.add_argument("--output", required=True, type=Path)
    options = parser.parse_args(argv)
    output = options.output.absolute()  # importing the service changes the working directory
    process = os.getpid()
    os.environ[PROBE_VARIABLE] = "1"
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as the supervisor does
    provide(_given(), building=True)
    isolated = leave_network()
    witness = watch()
    try:
        if not options.app_dir.is_dir():
            raise ServiceLoadError(f"no folder {options.app_dir}")
        document = describe(options.app_dir, options.service)
        text, status = json.dumps({**document, "seen": witness.account(), "isolated": isolated}, default=str), 0
    except BentotoolError as error:
        text, status = json.dumps({**error.to_dict(), "isolated": isolated}, default=str), 1
    if os.getpid() != process:  # a fork that the service made goes no further than its import
        _leave(status)
    output.write_text(text, encoding="utf-8")
    return status


def _leave(status: int) -> NoReturn:
    """End at once, whatever still runs here."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    ended = main()
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        _leave(ended)  # the service is described; what it started in the background would be waited for without end
    sys.exit(ended)
