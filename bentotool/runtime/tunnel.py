"""Websockets to the program behind a service: after the handshake, bytes pass both ways as they are.

uvicorn hands a connection over that asks to become a websocket. It goes through the application as any other, so that
Host check, origins, keys and middleware decide; what is innermost there then opens the tunnel, over the scope's
extension ``bentotool.tunnel``. Nothing in it is decoded but the borders of the program's frames: so, when the server
stops, the websocket is closed (1012) between two of them.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from bentotool.sdk.exceptions import DeadlineExceeded

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["make_tunnel"]

_RESTART = b"\x88\x02" + (1012).to_bytes(2, "big")
_LONGEST_HEAD = 1 << 16
_CLOSED = 1006


class _Borders:
    """Where the frames of the program begin (RFC 6455, 5.2)."""

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    @property
    def between(self) -> bool:
        return not self._left and not self._head

    def feed(self, data: bytes) -> None:
        position = 0
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                continue
            self._head += data[position : position + 1]
            position += 1
            self._left, done = self._length()
            if done:
                self._head = b""

    def _length(self) -> tuple[int, bool]:
        head = self._head
        if len(head) < 2:
            return 0, False
        size, masked = head[1] & 0x7F, 4 if head[1] & 0x80 else 0
        extra = {126: 2, 127: 8}.get(size, 0)
        if len(head) < 2 + extra:
            return 0, False
        if extra:
            size = int.from_bytes(head[2 : 2 + extra], "big")
        return size + masked, True


class _Inner(asyncio.Protocol):
    """The connection to the program: its bytes go to the caller."""

    def __init__(self, outer: Any) -> None:
        self._outer = outer
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._outer.from_program(data)

    def pause_writing(self) -> None:
        self._outer.transport.pause_reading()

    def resume_writing(self) -> None:
        self._outer.transport.resume_reading()

    def connection_lost(self, _error: Exception | None) -> None:
        self._outer.program_left()


class _Tunnel(asyncio.Protocol):
    """What uvicorn makes of a connection that asks to become a websocket."""

    app: Application
    library: Any

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        self._config, self._state, self._app_state = config, server_state, app_state
        self._loop = asyncio.get_running_loop()
        self._head = b""
        self._held = b""
        self._inner: _Inner | None = None
        self._other: Any = None
        self._borders = _Borders()
        self._answered = b""
        self._open = False
        self._leaving = False
        self._refusal: list[bytes] = []
        self._ended = self._loop.create_future()
        self.transport: Any = None

    # the caller's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self._state.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._other is not None:
            self._other.data_received(data)
        elif self._inner is not None:
            self._inner.transport.write(data)
        elif not self._head:
            if self._is_own(data):
                self._hand_over(data)
                return
            head, _, self._held = data.partition(b"\r\n\r\n")  # uvicorn gives the head whole
            self._head = head
            task = self._loop.create_task(self._run())
            self._state.tasks.add(task)
            task.add_done_callback(self._state.tasks.discard)
        else:
            self._held += data
            if len(self._held) > _LONGEST_HEAD:
                self.transport.abort()

    def pause_writing(self) -> None:
        if self._other is not None:
            self._other.pause_writing()
        elif self._inner is not None:
            self._inner.transport.pause_reading()

    def resume_writing(self) -> None:
        if self._other is not None:
            self._other.resume_writing()
        elif self._inner is not None:
            self._inner.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if self._other is not None:
            self._other.connection_lost(error)
            return
        self._state.connections.discard(self)
        if self._inner is not None:
            self._inner.transport.close()
        self._end()

    def shutdown(self) -> None:
        """The server stops: uvicorn says so to each of its connections."""
        self._leaving = True
        self._leave_between_frames()

    def _is_own(self, head: bytes) -> bool:
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        return self.app.answer.has_websocket(unquote(path.decode("latin-1")))

    def _hand_over(self, data: bytes) -> None:
        """A websocket of the service itself, or of an application that it mounts."""
        self._state.connections.discard(self)
        other = self.library(config=self._config, server_state=self._state, app_state=self._app_state)
        other.connection_made(self.transport)
        other.data_received(data)
        # uvicorn makes this object the protocol after it returns: so what comes later is passed on from here
        self._other = other

    # the program's side

    def from_program(self, data: bytes) -> None:
        self.transport.write(data)
        if not self._open:
            self._answered += data
            head, found, data = self._answered.partition(b"\r\n\r\n")
            if not found:
                return
            self._open = head.split(b" ", 2)[1:2] == [b"101"]
            self._answered = b""
        if self._open:
            self._borders.feed(data)
            self._leave_between_frames()

    def program_left(self) -> None:
        self.transport.close()
        self._end()

    def _leave_between_frames(self) -> None:
        if self._leaving and self._open and self._borders.between:
            self._leaving = False
            self.transport.write(_RESTART)
            self.transport.close()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    # through the application

    async def _run(self) -> None:
        try:
            await self._config.loaded_app(self._scope(), self._receive, self._send)
        finally:
            if not self._open:
                self.transport.close()

    def _scope(self) -> dict[str, Any]:
        line, *lines = self._head.split(b"\r\n")
        target = line.split(b" ")[1]
        raw_path, _, query = target.partition(b"?")
        pairs = [tuple(part.strip() for part in line.split(b":", 1)) for line in lines]
        headers = [(pair[0].lower(), pair[1]) for pair in pairs if len(pair) == 2]
        asked = next((value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"), "")
        client = self.transport.get_extra_info("peername")
        secure = self.transport.get_extra_info("sslcontext") is not None
        return {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "wss" if secure else "ws",
            "server": self.transport.get_extra_info("sockname"),
            "client": tuple(client[:2]) if isinstance(client, tuple) else None,
            "root_path": self._config.root_path,
            "path": unquote(raw_path.decode("latin-1")),
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "subprotocols": [name.strip() for name in asked.split(",") if name.strip()],
            "state": dict(self._app_state),
            "extensions": {"websocket.http.response": {}, "bentotool.tunnel": self.open},
        }

    async def _receive(self) -> dict[str, Any]:
        if not self._ended.done() and self._inner is None:
            return {"type": "websocket.connect"}
        await asyncio.shield(self._ended)
        return {"type": "websocket.disconnect", "code": _CLOSED}

    async def _send(self, message: dict[str, Any]) -> None:
        """What the application says where it opens no tunnel: that the caller is refused."""
        if self._open:
            return
        kind = message["type"]
        if kind == "websocket.http.response.start":
            status = message["status"]
            phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else ""
            self._refusal = [f"HTTP/1.1 {status} {phrase}".encode()]
            self._refusal += [name + b": " + value for name, value in message["headers"]]
            self._refusal += [b"connection: close", b"", b""]
            self.transport.write(b"\r\n".join(self._refusal))
        elif kind == "websocket.http.response.body":
            self.transport.write(message.get("body", b""))
        elif not self._refusal:
            self.transport.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")

    async def open(self, port: int, target: bytes, headers: list[tuple[bytes, bytes]], seconds: float) -> None:
        """Connect to the program, ask it what the caller asks, and pass on whatever comes until one of them leaves.

        Raises:
            OSError: it cannot be reached.
            DeadlineExceeded: not in time.
        """
        connecting = self._loop.create_connection(lambda: _Inner(self), "127.0.0.1", port)
        try:
            _, inner = await asyncio.wait_for(connecting, seconds)
        except asyncio.TimeoutError as error:
            raise DeadlineExceeded(f"the command took no connection within {seconds:g} seconds") from error
        lines = [b"GET " + target + b" HTTP/1.1", *(name + b": " + value for name, value in headers)]
        lines += [b"connection: Upgrade", b"upgrade: websocket", b"", b""]
        inner.transport.write(b"\r\n".join(lines) + self._held)
        self._inner = inner
        if self.transport.is_closing():
            inner.transport.close()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(self._ended)
            return
        inner.transport.close()
        self.transport.close()
        raise asyncio.CancelledError


def make_tunnel(app: Application, otherwise: str) -> Any:
    """The class that uvicorn uses for connections that ask to become websockets.

    Args:
        otherwise: what uvicorn calls the library for the service's own websockets and mounted applications.
    """
    from uvicorn.config import WS_PROTOCOLS
    from uvicorn.importer import import_from_string

    class Tunnel(_Tunnel):
        pass

    Tunnel.app = app
    if otherwise != "none":
        Tunnel.library = import_from_string(str(WS_PROTOCOLS.get(otherwise, otherwise)))
    return Tunnel
