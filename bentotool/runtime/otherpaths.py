"""Other paths for what a service answers, as platforms have names of their own: ``/ping`` for ``/readyz``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from bentotool.errors import ServiceLoadError

if TYPE_CHECKING:
    from bentotool.runtime.app import Application
    from bentotool.runtime.deadlines import Receive, Scope, Send
    from bentotool.runtime.gate import ASGI

__all__ = ["VARIABLE", "read_paths", "with_other_paths"]

VARIABLE = "BENTOTOOL_PATHS"
"""``/ping=/readyz,/invocations=/predict``: the one on the left is answered as the one on the right is. What stands on
the left is the whole path; what stands on the right is below the service's prefix."""

_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,200}")


def read_paths(text: str) -> dict[str, str]:
    """The path that is meant, by the one that is asked for.

    Raises:
        ServiceLoadError: an entry of another form, or two for one path.
    """
    found: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        asked, equals, meant = entry.partition("=")
        if not equals or not _PATH.fullmatch(asked) or not _PATH.fullmatch(meant):
            raise ServiceLoadError(f"{VARIABLE}: {entry[:80]!r} is not /PATH=/PATH", hint="/invocations=/predict")
        if asked in found:
            raise ServiceLoadError(f"{VARIABLE}: {asked} stands twice", hint="name it once")
        found[asked] = meant
    return found


def with_other_paths(app: Application, inner: ASGI, variables: Mapping[str, str] = os.environ) -> ASGI:
    """An application that also answers the paths that the environment names; itself where it names none.

    The path is changed before anything looks at it: keys, limits, metrics and probes see the one that is meant.

    Raises:
        ServiceLoadError: the variable is malformed, or nothing answers a path that is meant.
    """
    text = variables.get(VARIABLE, "")
    if not text:
        return inner
    prefix = app.service.path_prefix
    paths = {asked: prefix + meant for asked, meant in read_paths(text).items()}
    for meant in paths.values():
        if not app.answer.template({"type": "http", "path": meant}):
            known = ", ".join(sorted(path for path in app.answer.exact)) or "none"
            raise ServiceLoadError(f"{VARIABLE}: nothing answers {meant}", hint=f"the APIs are at: {known}")

    async def translated(scope: Scope, receive: Receive, send: Send) -> None:
        meant = paths.get(scope.get("path", ""))
        if meant is not None:
            scope = {**scope, "path": meant, "raw_path": meant.encode()}
        await inner(scope, receive, send)

    return translated
