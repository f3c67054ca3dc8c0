"""Who does not read what there is for him is let go: uvicorn waits for ever until it can send, or close."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Watched"]


class Watched(HttpToolsProtocol):
    """The protocol of one connection.

    Attributes:
        unread_seconds: in which something has to be read of what waits to be sent. What the system holds for a slow
            reader does not show: it is longer than anybody takes who reads at all.
    """

    unread_seconds = 300.0
    _unread: asyncio.TimerHandle | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_reader()

    def _watch_reader(self) -> None:
        """What waits to be sent holds up the next answer, or the end of the connection."""
        waiting = self.transport.get_write_buffer_size()
        if waiting and self._unread is None:
            self._unread = self.loop.call_later(self.unread_seconds, self._look_at_reader, waiting)

    def _forget_reader(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _look_at_reader(self, before: int) -> None:
        self._unread = None
        if self.transport.get_write_buffer_size() < before:
            self._watch_reader()
        else:
            self.transport.abort()
