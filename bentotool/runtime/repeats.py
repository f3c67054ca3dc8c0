"""Requests whose head is that of the request before them on their connection, but for the length of the body.

Callers which keep a connection repeat themselves. What was parsed once, and went the short way, need not be parsed
again: the same bytes at the same place, between two messages, mean the same (RFC 9112, section 2.2). A request that
differs in anything but its Content-Length, is not there as a whole, or comes together with another one goes through the
parser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from bentotool.runtime.courtesy import Courteous
from bentotool.runtime.direct import Direct, Exchange

__all__ = ["Repeating"]

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,5})\r\n", re.IGNORECASE)
_DIGITS = 5
_LARGEST = 4096
"""Bytes of a head that is remembered."""
_VAIN = 8
"""Heads in a row that were remembered for nothing: this caller does not repeat itself."""


@dataclass(frozen=True, slots=True)
class Head:
    """A head that was parsed.

    Attributes:
        before: its bytes up to the length.
        after: those that follow the length, with the empty line.
        direct: what answers.
        headers: by name; the length is that of the request it was learnt from.
        scope: of ASGI, likewise.
    """

    before: bytes
    after: bytes
    direct: Direct
    headers: dict[bytes, bytes]
    scope: Any

    def body(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The length as it stands there, and the body of a request that has this head and came as a whole."""
        if not data.startswith(self.before):
            return None
        at = len(self.before)
        end = data.find(b"\r", at, at + _DIGITS + 1)
        length = data[at:end]
        if end < 0 or not length.isdigit() or not data.startswith(self.after, end):
            return None
        begin, size = end + len(self.after), int(length)
        return (length, data[begin:]) if len(data) - begin == size <= self.direct.limit else None


class Repeating(Courteous):
    """The protocol of one connection."""

    _known: Head | None = None
    _vain = 0

    def data_received(self, data: bytes) -> None:
        cycle: Any = self.cycle
        between = not self._head and (cycle is None or (cycle.response_complete and not cycle.more_body))
        if between and self._known is not None and self._known.direct.open:
            found = self._known.body(data)
            if found is not None:
                self._vain = 0
                self._repeat(self._known, *found)
                return
        super().data_received(data)
        taken, self._taken = self._taken, None
        if between and taken is not None and self._vain < _VAIN:
            self._vain += 1
            self._known = self._learn(taken, data)

    def _learn(self, exchange: Exchange, data: bytes) -> Head | None:
        """The head of what the data began with, where they are one whole request."""
        cycle: Any = self.cycle
        end = data.find(b"\r\n\r\n", 0, _LARGEST) + 4
        length = _LENGTH.search(data, 0, end)
        if length is None or not cycle.keep_alive or not int(length[1]) == len(data) - end == len(cycle.body):
            return None
        return Head(data[: length.start(1)], data[length.end(1) : end], exchange.direct, exchange.headers, cycle.scope)

    def _repeat(self, head: Head, length: bytes, body: bytes) -> None:
        cycle = self._whole_cycle(head.scope, keep_alive=True)
        cycle.body = body  # type: ignore[assignment]
        self.cycle, self._running, self.scope = cycle, cycle, head.scope
        headers = head.headers
        if headers[b"content-length"] != length:
            headers = {**headers, b"content-length": length}
        direct = head.direct
        direct.put(Exchange(direct, cycle, headers, self.loop, self.tasks, self._turn))

    def _turn(self, cycle: Any) -> None:
        """Let a request that was not parsed go the long way, with a scope of its own."""
        scope: Any = cycle.scope
        length = b"%d" % len(cycle.body)
        headers = [(name, length if name == b"content-length" else value) for name, value in scope["headers"]]
        cycle.scope = {**scope, "headers": headers, "state": self.app_state.copy()}
        cycle.message_event.set()  # its body is there
        if self.scope is scope:  # else the head of the next one has begun
            self.scope = cycle.scope
        self._start_task(cycle)
