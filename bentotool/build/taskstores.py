"""Packages that a Bento needs because its tasks are kept somewhere else than in a file."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bentotool.build.config import EnvConfig

__all__ = ["task_store_requirements"]

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://")


def task_store_requirements(envs: Iterable[EnvConfig]) -> tuple[str, ...]:
    """The distribution that knows the address in ``BENTOTOOL_TASKS``, where the configuration names one.

    A scheme that no installed package knows adds nothing: the project's own requirements may bring it.
    """
    for variable in envs:
        if variable.name == "BENTOTOOL_TASKS" and (scheme := _ADDRESS.match(str(variable.value or ""))):
            from importlib.metadata import entry_points

            from bentotool.runtime.tasks.places import GROUP

            found = entry_points(group=GROUP, name=scheme[1])
            return tuple(sorted({point.dist.name for point in found if point.dist is not None}))
    return ()
