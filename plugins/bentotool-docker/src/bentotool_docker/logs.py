"""What containers say."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime

from docker.models.containers import Container

from bentotool.errors import NotFoundError
from bentotool_docker.engine import explained

__all__ = ["followed_lines", "lines"]

_POLL_S = 0.25
_FRACTION = re.compile(r"\.(\d{1,6})\d*")


def lines(container: Container, tail: int, *, follow: bool = False, since: float | None = None) -> Iterator[str]:
    """Lines of a container's log, the last ``tail`` (0: all).

    Args:
        follow: also those to come, until it ends.
        since: seconds since 1970; none from before.
    """
    with explained(f"read the logs of {container.name}"):
        rest = b""
        for piece in container.logs(stream=True, follow=follow, tail=tail or "all", since=since):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode(errors="replace").rstrip("\r")
        if rest:
            yield rest.decode(errors="replace")


def followed_lines(container: Container, tail: int) -> Iterator[str]:
    """Lines of a container's log, and those to come, also when the engine starts it again; until it ends for good."""
    began = _began(container)
    yield from lines(container, tail, follow=True)
    while True:
        try:
            with explained(f"look at {container.name}"):
                container.reload()
        except NotFoundError:
            return
        if container.status == "restarting":
            time.sleep(_POLL_S)
        elif container.status == "running" and _began(container) != began:
            began = _began(container)
            yield from lines(container, 0, follow=True, since=began)
        else:
            return


def _began(container: Container) -> float:
    """When its process was started; the engine says nanoseconds, which Python 3.10 does not read."""
    text = str(container.attrs.get("State", {}).get("StartedAt", ""))
    text = _FRACTION.sub(lambda found: f".{found[1]:0<6}", text).replace("Z", "+00:00")
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
