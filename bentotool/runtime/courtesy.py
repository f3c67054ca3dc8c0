"""What a connection may do around the body of a request.

uvicorn's parser gathers what follows the last chunk of a body without a limit. And it reads on for ever where the
answer was given before the body was there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from bentotool.runtime.connections import Guarded

__all__ = ["Courteous"]


class Courteous(Guarded):
    """The protocol of one connection.

    Attributes:
        idle_bytes: what may come in the midst of a body without being of it: extensions of chunks, trailers.
        farewell_seconds: for which the rest of a body is read, and dropped, whose request has been answered. Were the
            connection cut at once, many callers would never see the answer.
    """

    idle_bytes = 64 * 1024
    farewell_seconds = 30.0
    _idle = 0
    _of_body = False
    _farewell: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        cycle: Any = self.cycle
        if cycle is not None and cycle.more_body:
            self._receive_body(cycle, data)
        else:
            super().data_received(data)

    def _receive_body(self, cycle: Any, data: bytes) -> None:
        self._of_body = False
        super().data_received(data)
        if self.cycle is not cycle or not cycle.more_body:
            self._forget()
            return
        if cycle.response_complete and self._farewell is None and not self.transport.is_closing():
            self._farewell = self.loop.call_later(self.farewell_seconds, self._cut)
        self._idle = 0 if self._of_body else self._idle + len(data)
        if self._idle > self.idle_bytes:
            self._cut()

    def on_body(self, body: bytes) -> None:
        self._of_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        cycle: Any = self.cycle
        if cycle is not None and cycle.response_complete:  # uvicorn looks no more at what is answered
            cycle.more_body = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _forget(self) -> None:
        self._idle = 0
        if self._farewell is not None:
            self._farewell.cancel()
            self._farewell = None

    def _cut(self) -> None:
        self._forget()
        if not self.transport.is_closing():
            self.transport.close()
