"""Answers while no worker can: the supervisor itself says 503, so that nobody hangs in the queue of connections.

It reads no more of a request than its head, holds few connections, and each for a short time.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from dataclasses import dataclass

__all__ = ["Lobby"]

_MAX_GUESTS = 128
_MAX_HEAD = 16384
_PATIENCE_S = 2.0
_ALIVE = (b"/livez", b"/healthz")


@dataclass
class _Guest:
    connection: socket.socket
    until: float
    head: bytes = b""
    answered: bool = False


class Lobby:
    """Accepts in place of the workers while it is open.

    Args:
        listener: the server's.
        selector: of the supervisor; guests are registered with the lobby's `serve` as their data.
    """

    def __init__(self, listener: socket.socket, selector: selectors.BaseSelector) -> None:
        self._listener, self._selector = listener, selector
        self._guests: dict[int, _Guest] = {}
        self.open = False
        self.reason = "the server is starting"

    def set_open(self, wanted: bool) -> None:
        """Begin or cease to accept."""
        if wanted == self.open or self._listener.fileno() == -1:
            return
        self.open = wanted
        if wanted:
            self._listener.setblocking(False)
            self._selector.register(self._listener, selectors.EVENT_READ, self)
        else:
            self._selector.unregister(self._listener)

    def serve(self, ready: object) -> None:
        """One of our sockets is readable."""
        if ready is self._listener:
            self._accept()
        elif isinstance(ready, socket.socket) and (guest := self._guests.get(ready.fileno())) is not None:
            self._read(guest)

    def due(self) -> float | None:
        """When somebody has to go, on the monotonic clock."""
        return min((guest.until for guest in self._guests.values()), default=None)

    def tick(self, now: float) -> None:
        """Send away who takes too long."""
        for guest in [guest for guest in self._guests.values() if now >= guest.until]:
            self._leave(guest)

    def close(self) -> None:
        self.set_open(False)
        for guest in list(self._guests.values()):
            self._leave(guest)

    def _accept(self) -> None:
        while len(self._guests) < _MAX_GUESTS:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setblocking(False)
            self._guests[connection.fileno()] = _Guest(connection, time.monotonic() + _PATIENCE_S)
            self._selector.register(connection, selectors.EVENT_READ, self)

    def _read(self, guest: _Guest) -> None:
        try:
            data = guest.connection.recv(_MAX_HEAD)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._leave(guest)
            return
        if guest.answered:  # the rest of a body; closing on it would reset the connection under the answer
            return
        guest.head += data
        if b"\r\n\r\n" in guest.head or len(guest.head) >= _MAX_HEAD:
            self._answer(guest)

    def _answer(self, guest: _Guest) -> None:
        method, _, rest = guest.head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        alive = path.endswith(_ALIVE) and method in (b"GET", b"HEAD")
        error = {"error": {"code": "unavailable", "message": self.reason, "hint": None}}
        body = b"" if alive else json.dumps(error).encode()
        status = b"200 OK" if alive else b"503 Service Unavailable\r\nretry-after: 1"
        head = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        guest.answered = True
        with contextlib.suppress(OSError):  # an answer of one packet into an empty buffer
            guest.connection.send(head % (status, len(body)) + (b"" if method == b"HEAD" else body))
            guest.connection.shutdown(socket.SHUT_WR)
        guest.until = min(guest.until, time.monotonic() + 1.0)

    def _leave(self, guest: _Guest) -> None:
        self._guests.pop(guest.connection.fileno(), None)
        self._selector.unregister(guest.connection)
        guest.connection.close()
