"""Accepting connections on a socket that several workers share, so that each gets its part of them.

Left to the system, the worker that happens to wake first takes a whole burst of connections and keeps them, while the
others stay idle: their batches stay small and its queue grows. So each worker says in a file that all of them map how
many connections it has, takes one at a time, and steps back for a moment when it has more than others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import mmap
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.runtime.metricfiles import reserve

if TYPE_CHECKING:
    import uvicorn

__all__ = ["Shares", "accept_on", "make_server"]

_log = logging.getLogger("bentotool.runtime")
_COUNT = struct.Struct("=i")
_MOST_WORKERS = 1024
_STEP_BACK_S = 0.002
_AHEAD = 1
"""A worker steps back when it has so many connections more than the one with the fewest; an eighth more is fine too."""


class Shares:
    """How many connections each worker of a service has.

    Args:
        path: of the file that they share; made by the first.
        index: of this worker, from 0.
        workers: how many there are.

    Raises:
        OSError: there is no room for the file.
    """

    def __init__(self, path: Path, index: int, workers: int) -> None:
        self._index, self._workers = index, min(workers, _MOST_WORKERS)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(file, _MOST_WORKERS * _COUNT.size)
            reserve(file, _MOST_WORKERS * _COUNT.size)
            self._counts = mmap.mmap(file, _MOST_WORKERS * _COUNT.size)
        finally:
            os.close(file)
        self.say(0)

    def say(self, connections: int) -> None:
        """Write down this worker's own number. One more is written: 0 stands for no worker."""
        if self._index < self._workers:
            _COUNT.pack_into(self._counts, self._index * _COUNT.size, connections + 1)

    def leave(self) -> None:
        """This worker takes no more connections."""
        self.say(-1)

    def is_ahead(self, connections: int) -> bool:
        """Whether another worker should have the next connection."""
        self.say(connections)
        numbers = _COUNT.iter_unpack(self._counts[: self._workers * _COUNT.size])
        fewest = min((number - 1 for (number,) in numbers if number > 0), default=connections)
        return connections > fewest + max(_AHEAD, fewest // 8)


class _Acceptor:
    """Accepts for a uvicorn server, one connection at a time. Stands among its ``servers``."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket, shares: Shares) -> None:
        self._server, self._listener, self._shares = server, listener, shares
        self._loop = asyncio.get_running_loop()
        self._open = True
        self._tasks: set[asyncio.Task[Any]] = set()
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._take)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._shares.leave()
            self._loop.remove_reader(self._listener.fileno())

    async def wait_closed(self) -> None: ...

    def _take(self) -> None:
        if self._shares.is_ahead(len(self._server.server_state.connections) + len(self._tasks)):
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(_STEP_BACK_S, self._return)
        else:
            self._accept()

    def _return(self) -> None:
        # whoever stepped back takes one now, should the others be too busy to
        if self._open and self._accept():
            self._loop.add_reader(self._listener.fileno(), self._take)

    def _accept(self) -> bool:
        """Whether to go on; else it comes back by itself."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return True  # another worker has it
        except OSError as error:  # no file descriptors left, say: the connection waits
            _log.warning("no connection can be accepted: %s", error)
            self._loop.remove_reader(self._listener.fileno())
            self._loop.call_later(1.0, self._return)
            return False
        connection.setblocking(False)
        task = self._loop.create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    async def _serve(self, connection: socket.socket) -> None:
        try:
            make = _protocol(self._server)
            await self._loop.connect_accepted_socket(make, connection, ssl=self._server.config.ssl)
        except (OSError, asyncio.TimeoutError) as error:  # a handshake that failed is the caller's affair
            _log.debug("a connection failed before its first request: %s", error)
            connection.close()


def _protocol(server: uvicorn.Server) -> Callable[[], asyncio.Protocol]:
    def make() -> asyncio.Protocol:
        return server.config.http_protocol_class(  # type: ignore[call-arg]
            config=server.config, server_state=server.server_state, app_state=server.lifespan.state
        )

    return make


async def accept_on(server: uvicorn.Server, listener: socket.socket, shares: Shares | None) -> Any:
    """Let a server that has started accept on one more socket; give what closes it.

    Args:
        shares: with whom the socket is shared; None for nobody.
    """
    loop = asyncio.get_running_loop()
    if shares is not None:
        with contextlib.suppress(NotImplementedError):  # loops without readers: they accept as they do
            acceptor = _Acceptor(server, listener, shares)
            server.servers.append(acceptor)  # type: ignore[arg-type]
            return acceptor
    config = server.config
    accepting = await loop.create_server(_protocol(server), sock=listener, ssl=config.ssl, backlog=config.backlog)
    server.servers.append(accepting)
    return accepting


def make_server(config: uvicorn.Config, on_started: Callable[[], None], shares: Shares | None) -> uvicorn.Server:
    """A uvicorn server without its signal handlers, telling when it has started, and sharing its sockets."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup([])
            for listener in sockets or []:
                await accept_on(self, listener, shares)
            if self.started:
                on_started()

    return Server(config)
