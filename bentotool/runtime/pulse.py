"""Whether the event loop of a worker goes on: what the worker says to each ping of the supervisor.

A thread of its own answers pings, so a process that answers none is stuck as a whole. With each answer goes how many
pings the event loop has let pass without a turn, and what it is at. Pings are counted rather than seconds: who freezes
the whole server for an hour (``docker pause``, ctrl-Z) has made nothing hang.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["Pulse", "patience"]

_LEAST_PATIENCE_S = 120.0
_DEBUGGERS = ("bdb", "pdb", "pydevd", "_pydevd_bundle")


def patience(service: Service[Any]) -> float:
    """Seconds without a sign of life after which a worker is given up: ``traffic.max_stall``.

    By default the longest timeout of the service, and two minutes at least: by then nobody waits for an answer of that
    worker any more, and a model that is loaded late, on the event loop, has had its time.
    """
    if service.config.max_stall is not None:
        return service.config.max_stall
    own = [spec.options.timeout for spec in service.apis.values() if spec.options.timeout is not None]
    return max(_LEAST_PATIENCE_S, service.config.timeout, *own)


class Pulse:
    """Made on the event loop's own thread; asked on another.

    Args:
        service: whose APIs are known by name.
        folder: of the project; a place in a file below it is told where no API is known.
    """

    def __init__(self, service: Service[Any], loop: asyncio.AbstractEventLoop, folder: Path) -> None:
        self._loop, self._thread, self._folder = loop, threading.get_ident(), folder
        self._apis: dict[CodeType, str] = {}
        for spec in service.apis.values():
            code = getattr(spec.func, "__code__", None)
            if code is not None:
                self._apis[code] = spec.route
        self._waiting = False
        self._missed = 0

    def answer(self) -> dict[str, object]:
        """The answer to one ping.

        Raises:
            RuntimeError: the event loop has ended.
        """
        if not self._waiting:
            self._waiting, self._missed = True, 0
            self._loop.call_soon_threadsafe(self._turn)
            return {"type": "pong"}
        frames = list(self._frames())
        if any(str(frame.f_globals.get("__name__")).partition(".")[0] in _DEBUGGERS for frame in frames):
            return {"type": "pong"}  # whoever looks at the code there wants to find it again
        self._missed += 1
        return {"type": "pong", "missed": self._missed, "at": self._place(frames)}

    def _turn(self) -> None:
        self._waiting = False

    def _frames(self) -> Iterator[FrameType]:
        """What the event loop's thread is in, innermost first."""
        frame = sys._current_frames().get(self._thread)
        while frame is not None:
            yield frame
            frame = frame.f_back

    def _place(self, frames: list[FrameType]) -> str | None:
        """``file:line``, and the API that is at work there."""
        route = next((self._apis[frame.f_code] for frame in frames if frame.f_code in self._apis), None)
        for frame in frames:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(self._folder):
                where = f"{path.relative_to(self._folder).as_posix()}:{frame.f_lineno}"
                return f"{where} ({route})" if route is not None else where
        return route
