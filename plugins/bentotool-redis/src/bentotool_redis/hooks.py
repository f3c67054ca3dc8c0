"""What this plugin adds to a build. The store itself is found by the entry points ``bentotool.task_stores``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bentotool.hookspecs import hookimpl
from bentotool.interfaces import PlanAddition

_SCHEMES = ("redis://", "rediss://")


@hookimpl
def bentotool_plan_build(config: Mapping[str, Any]) -> PlanAddition | None:
    """A Bento whose variables name a Redis for its tasks carries what speaks to it."""
    for variable in config.get("envs") or ():
        if variable["name"] == "BENTOTOOL_TASKS" and str(variable["value"]).startswith(_SCHEMES):
            return PlanAddition(requirements=("bentotool-redis",))
    return None
