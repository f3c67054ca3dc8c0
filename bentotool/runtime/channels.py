"""Connections to one worker of another service: one for threads, which block, and one for tasks of an event loop.

Each carries one call at a time and is kept for the next one.
"""

from __future__ import annotations

import asyncio
import select
import socket
import sys
import time
import weakref
from collections import deque
from typing import Any

import msgspec

from bentotool.runtime.wire import HELLO, MAX_MESSAGE, WELCOME, Frame, FrameReader, Hello, WireError, frame

__all__ = ["IDLE", "Awaiting", "Blocking", "Channel", "Lost", "Undelivered", "greeting"]

IDLE = 64
"""Connections that are kept, frames that are read ahead."""


class Lost(Exception):
    """The connection ended."""


class Undelivered(Lost):
    """It had ended before all of the call was written: nobody has begun with it."""


class Channel:
    """One worker of the other service."""

    def __init__(self, address: str) -> None:
        kind, _, rest = address.partition(":")
        host, _, port = rest.rpartition(":")
        self.unix = kind == "unix"
        self.place: Any = rest if self.unix else (host, int(port))
        self.busy = 0
        self.sockets: deque[Blocking] = deque()
        self.idle: weakref.WeakKeyDictionary[Any, deque[Awaiting]] = weakref.WeakKeyDictionary()


def greeting(token: str, service: str) -> bytes:
    return b"".join(bytes(piece) for piece in frame(HELLO, msgspec.msgpack.encode(Hello(token, service))))


class Blocking:
    """A connection for one thread at a time."""

    def __init__(self, channel: Channel, hello: bytes, patience: float) -> None:
        self._reader = FrameReader(MAX_MESSAGE)
        self._frames: deque[Frame] = deque()
        if channel.unix and sys.platform != "win32":
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(patience)
            self._socket.connect(channel.place)
            if not channel.unix:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.sendall(hello)
            if self.receive(patience).kind != WELCOME:
                raise Lost
        except (OSError, Lost) as error:
            self.close()
            raise Lost from error

    def send(self, pieces: list[Any], seconds: float | None) -> None:
        self._socket.settimeout(seconds)
        for piece in pieces:
            self._socket.sendall(piece)

    def receive(self, seconds: float | None) -> Frame:
        """Raises: Lost; TimeoutError; WireError."""
        end = None if seconds is None else time.monotonic() + seconds
        while not self._frames:
            self._socket.settimeout(None if end is None else max(0.001, end - time.monotonic()))
            count = self._socket.recv_into(self._reader.buffer())
            if not count:
                raise Lost
            self._frames.extend(self._reader.received(count))
        return self._frames.popleft()

    def alive(self) -> bool:
        """Whether an idle connection still stands: nothing is to be read from one that does."""
        try:
            return not select.select([self._socket], [], [], 0)[0]
        except (OSError, ValueError):
            return False

    def close(self) -> None:
        self._socket.close()


class Awaiting(asyncio.BufferedProtocol):
    """A connection for one task at a time."""

    def __init__(self) -> None:
        self._reader = FrameReader(MAX_MESSAGE)
        self._frames: deque[Frame] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        # the other end of a call that was written whole is known by reading, never by writing
        self._error = self._error or (Undelivered() if isinstance(error, BrokenPipeError) else Lost())
        self._writable.set()
        self._wake()

    def get_buffer(self, _hint: int) -> memoryview:
        return self._reader.buffer()

    def buffer_updated(self, count: int) -> None:
        try:
            self._frames.extend(self._reader.received(count))
        except WireError as error:
            self._error = error
            self._transport.abort()
        if len(self._frames) > IDLE:
            self._transport.pause_reading()
        self._wake()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    @property
    def alive(self) -> bool:
        return self._error is None and not self._frames and not self._transport.is_closing()

    async def send(self, pieces: list[Any]) -> None:
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)
        if not self._writable.is_set():
            await self._writable.wait()

    async def receive(self) -> Frame:
        """Raises: Lost; WireError."""
        while not self._frames:
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        found = self._frames.popleft()
        if not self._frames and not self._transport.is_closing():
            self._transport.resume_reading()
        return found

    def close(self) -> None:
        self._transport.abort()
