"""Where in an input something is wrong, and paths of values: ``rows[2].name``."""

from __future__ import annotations

import re
from typing import Any

from bentotool.sdk.exceptions import InvalidArgument, ServiceError, UnprocessableEntity
from bentotool.sdk.files import NotFetched

__all__ = ["invalid", "locate", "parse_path", "place"]

_AT = re.compile(r" - at `\$?([^`]*)`$")
_FIELD = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[([^\[\]]*)\]")
_MAX_STEPS = 16
_MAX_INDEX = 10_000


def locate(message: str, prefix: str = "$") -> tuple[str, str]:
    """Take the paths out of a message, which each reader put around that of the one inside: ``(what, path)``."""
    path = ""
    while found := _AT.search(message):
        message, path = message[: found.start()], path + found.group(1)
    if found := _FIELD.fullmatch(message):  # the place is that of the field, not of the object around it
        missing = found.group(1).startswith("missing")
        return "required, and not given" if missing else "there is no such field", f"{prefix}{path}.{found.group(2)}"
    return message[:1].lower() + message[1:], prefix + path


def invalid(error: Exception) -> ServiceError:
    """The answer for an input that is not of the declared form."""
    what, path = locate(str(error))
    # msgspec raises its own error from the one of the reader, at each level
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, NotFetched):
            return UnprocessableEntity(f"{path}: {what}", details={"path": path})
        cause = cause.__cause__
    return InvalidArgument(f"{path}: {what}", details={"path": path})


def parse_path(name: str) -> list[str | int]:
    """The steps of ``rows[2].name``: names and indexes. What does not read so is one name as it stands.

    Raises:
        InvalidArgument: more steps, or a larger index, than are taken.
    """
    head = re.match(r"[^.\[\]]+", name)
    if head is None:
        return [name]
    steps: list[str | int] = [head.group()]
    position = head.end()
    while position < len(name):
        found = _STEP.match(name, position)
        if found is None:
            return [name]
        inner = found.group(2)
        steps.append(
            int(inner) if inner and inner.isascii() and inner.isdigit() and len(inner) < 9 else found.group(1) or inner
        )
        position = found.end()
    if len(steps) > _MAX_STEPS or any(isinstance(step, int) and step > _MAX_INDEX for step in steps):
        raise InvalidArgument(f"${'.' + name[:40]}: a place so deep, or an index so large, is not read")
    return steps


def place(tree: dict[str, Any], steps: list[str | int], value: Any) -> bool:
    """Put a value into a tree of plain values, making what is missing on its way; False where it does not fit."""
    spot: Any = tree
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        fresh: Any = value if last else [] if isinstance(steps[index + 1], int) else {}
        if isinstance(step, int):
            if not isinstance(spot, list):
                return False
            spot.extend([None] * (step + 1 - len(spot)))
            if last or spot[step] is None:
                spot[step] = fresh
            spot = spot[step]
        else:
            if not isinstance(spot, dict):
                return False
            if last or spot.get(step) is None:
                spot[step] = fresh
            spot = spot[step]
    return True
