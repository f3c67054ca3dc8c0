"""``bentotool serve --plan``: which services there are, how many workers each has, and which devices they get."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from bentotool.errors import ConfigError, ServiceLoadError
from bentotool.runtime.bento import Target
from bentotool.runtime.bounds import check_parts
from bentotool.runtime.devices import make_plan
from bentotool.runtime.parts import describe_parts

__all__ = ["print_plan", "render"]


def print_plan(target: Target, workers: int | None, form: str, *, inside: bool = False) -> int:
    """Import the service and print its plan; give the exit status.

    Args:
        workers: of the entry service; None for what it declares.
        form: ``text``, or ``json`` for one document.
        inside: dependencies live in the entry's own process.

    Raises:
        ServiceLoadError: the service cannot be imported, or its services depend on each other in a circle.
        UsageError: a service asks for more GPUs than there are, or for more workers than this machine should have.
    """
    from bentotool.runtime.loading import load_service
    from bentotool.sdk.arguments import provide

    os.environ.update(target.environment)
    provide(dict(target.arguments))
    entry, _ = load_service(target.app_dir, target.service)
    try:
        parts = describe_parts(entry, inside=inside)
    except ConfigError as error:
        raise ServiceLoadError(error.message, hint=error.hint) from error
    parts = check_parts(parts, workers)
    plan = make_plan(parts)
    document = plan.to_dict(parts)
    print(json.dumps(document) if form == "json" else render(document))  # noqa: T201 - the output of this program
    return 0


def render(document: Mapping[str, Any]) -> str:
    """The plan for people: one line for each worker."""
    lines = [f"devices: {', '.join(document['devices'])}" if document["devices"] else "devices: none given out"]
    for service in document["services"]:
        needs = f", calls {', '.join(service['depends'])}" if service["depends"] else ""
        count = len(service["workers"])
        lines.append(f"{service['name']}: {count} worker{'s' if count > 1 else ''}{needs}")
        lines += [f"  worker {worker['index']}: {_devices(worker['devices'])}" for worker in service["workers"]]
    return "\n".join([*lines, *(f"note: {note}" for note in document["notes"])])


def _devices(devices: Sequence[str] | None) -> str:
    if devices is None:
        return "no device of its own"
    return f"CUDA_VISIBLE_DEVICES={','.join(devices)}"
