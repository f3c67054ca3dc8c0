"""Tasks: a durable queue, the side of a worker that runs what is in it, and the routes that fill it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentotool.errors import ConfigError
from bentotool.sdk.task import TaskOptions

if TYPE_CHECKING:
    from bentotool.runtime.app import Application
    from bentotool.runtime.tasks.routes import Tasks

__all__ = ["make_tasks"]


def make_tasks(app: Application) -> Tasks | None:
    """The tasks of a service; None where it has none, and then nothing of this package is imported."""
    specs = {name: spec for name, spec in app.service.apis.items() if isinstance(spec.options, TaskOptions)}
    if not specs:
        return None
    for name, spec in specs.items():
        if "{" in spec.route:
            raise ConfigError(f"task {app.service.name}.{name}: the route of a task takes no parameters")
    from bentotool.runtime.tasks.routes import Tasks

    return Tasks(app, specs)
