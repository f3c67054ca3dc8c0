"""The calling side of calls between services of one server.

Each worker of the other service has an address of its own, and the one with the fewest calls under way gets the next. A
connection carries one call at a time and is kept for the next one; who gives a call up closes its connection, which
cancels it over there. Asynchronous code awaits on the event loop; synchronous code blocks on a socket of its own, from
whatever thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from bentotool.runtime.channels import IDLE, Awaiting, Blocking, Channel, Lost, Undelivered, greeting
from bentotool.runtime.typedcalls import TypedCall
from bentotool.runtime.wire import (
    CALL,
    END,
    ERROR,
    ITEM,
    READY,
    RESULT,
    WELCOME,
    Frame,
    WireError,
    pack,
    unpack,
    unpack_error,
)
from bentotool.sdk.calling import carried, seconds_left
from bentotool.sdk.carried_errors import revive
from bentotool.sdk.elsewhere import Methods
from bentotool.sdk.exceptions import DeadlineExceeded, RemoteException, ServiceUnavailable

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["RemotePeer"]

_PATIENCE_S = 30.0  # for a worker, where the caller has no deadline
_FIRST_WAIT_S = 0.25
_ASK_S = 2.0  # for a service to say whether it is ready
_LATE_S = 1.0  # the other side keeps the deadline; this is for one that cannot


class RemotePeer:
    """A service of the same server, in processes of its own.

    Args:
        service: its declaration.
        addresses: of its workers: ``unix:PATH`` or ``tcp:HOST:PORT``.
        token: what it wants to be shown.
        url: where it answers plain HTTP, if anywhere.
    """

    def __init__(self, service: Service[Any], addresses: list[str], token: str, url: str | None = None) -> None:
        self._service = service
        self._channels = [Channel(address) for address in addresses]
        self._hello = greeting(token, service.name)
        self._turn = itertools.count()
        self._typed: dict[str, TypedCall] = {}
        self.client_url = url

    @property
    def to_async(self) -> Methods:
        return Methods(self._awaitable)

    @property
    def to_sync(self) -> Methods:
        return Methods(self._blocking)

    def is_ready(self) -> bool:
        """Whether one of its workers takes calls now, and says that it is ready."""
        with contextlib.suppress(ServiceUnavailable, Lost, OSError):
            channel, connection = self._sent(pack(CALL, [[], {}], (READY, _ASK_S, {})), _ASK_S)
            try:
                answer = connection.receive(_ASK_S)
            except BaseException:
                connection.close()
                raise
            self._give_back(channel, connection)
            return answer.kind == RESULT and unpack(answer)[1] is None
        return False

    async def why_not_ready(self) -> str | None:
        """Why it is not ready; None where it is."""
        name = self._service.name
        try:
            return await asyncio.wait_for(self._why_not_ready(), _ASK_S)
        except asyncio.TimeoutError:
            return f"service {name} does not say whether it is ready"
        except (ServiceUnavailable, Lost, OSError):
            return f"no worker of {name} is ready"

    async def _why_not_ready(self) -> str | None:
        channel, connection = await self._take(time.monotonic() + _ASK_S)
        try:
            await connection.send(pack(CALL, [[], {}], (READY, _ASK_S, {})))
            answer = await connection.receive()
        except BaseException:
            connection.close()
            raise
        self._keep(channel, connection)
        return str(said) if (said := unpack(answer)[1]) is not None else None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        typed = self._api(name)
        return self._awaitable(name) if typed.spec.kind.startswith("async") else self._blocking(name)

    def _api(self, name: str) -> TypedCall:
        found = self._typed.get(name)
        if found is None:
            apis = self._service.apis
            spec = next((s for s in apis.values() if s.func.__name__ == name), None) or apis.get(name)
            if spec is None:
                raise AttributeError(
                    f"service {self._service.name} has no API {name!r}; nothing else of it can be reached from here"
                )
            found = self._typed[name] = TypedCall(self._service.name, spec)
        return found

    def _order(self) -> list[Channel]:
        """Workers, the least busy first; equal ones in turn."""
        if len(self._channels) == 1:
            return self._channels
        start = next(self._turn) % len(self._channels)
        turned = self._channels[start:] + self._channels[:start]
        return sorted(turned, key=lambda channel: channel.busy)

    def _message(
        self, typed: TypedCall, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[list[Any], float | None]:
        args, named = typed.outgoing(args, named)
        seconds = seconds_left()
        if seconds is not None and seconds <= 0:
            raise DeadlineExceeded(f"{typed.where} was not called: the deadline has passed")
        return pack(CALL, [args, named], (typed.spec.name, seconds, carried())), seconds

    def _unavailable(self) -> ServiceUnavailable:
        return ServiceUnavailable(f"service {self._service.name} has no worker that answers", retry_after=1.0)

    @staticmethod
    def _lost(typed: TypedCall) -> RemoteException:
        return RemoteException(f"{typed.where}: its worker was lost", 503, retry_after=1.0)

    def _close(self) -> None:
        """Close what is kept. An API may have the name without the underscore."""
        for channel in self._channels:
            awaiting = [connection for idle in channel.idle.values() for connection in idle]
            for blocking in channel.sockets:
                blocking.close()
            for connection in awaiting:
                connection.close()
            channel.sockets.clear()
            channel.idle.clear()

    # synchronous callers

    def _take_blocking(self, deadline: float) -> tuple[Channel, Blocking]:
        patience = _FIRST_WAIT_S
        while True:
            for channel in self._order():
                while channel.sockets:
                    with contextlib.suppress(IndexError):  # another thread was quicker
                        kept = channel.sockets.pop()
                        if kept.alive():
                            return channel, kept
                        kept.close()
                left = deadline - time.monotonic()
                try:
                    return channel, Blocking(channel, self._hello, max(0.01, min(patience, left)))
                except Lost:
                    continue
            if time.monotonic() >= deadline:
                raise self._unavailable()
            time.sleep(0.02)
            patience = min(4.0, 2 * patience)

    def _give_back(self, channel: Channel, connection: Blocking) -> None:
        if len(channel.sockets) < IDLE:
            channel.sockets.append(connection)
        else:
            connection.close()

    def _sent(self, pieces: list[Any], seconds: float | None) -> tuple[Channel, Blocking]:
        """A connection that the whole call was given to; one that has gone meanwhile is replaced."""
        deadline = time.monotonic() + (_PATIENCE_S if seconds is None else seconds)
        while True:
            channel, connection = self._take_blocking(deadline)
            try:
                connection.send(pieces, None if seconds is None else max(0.01, deadline - time.monotonic()))
            except OSError:
                connection.close()
                if time.monotonic() >= deadline:
                    raise self._unavailable() from None
            else:
                return channel, connection

    def _call(self, typed: TypedCall, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        pieces, seconds = self._message(typed, args, named)
        channel, connection = self._sent(pieces, seconds)
        channel.busy += 1
        whole = False
        try:
            received = connection.receive(None if seconds is None else seconds + _LATE_S)
            whole = True
        except TimeoutError:
            raise DeadlineExceeded(f"{typed.where}: no answer in time") from None
        except (Lost, OSError):
            raise self._lost(typed) from None
        finally:
            channel.busy -= 1
            if whole:
                self._give_back(channel, connection)
            else:
                connection.close()
        return _result(typed, received)

    def _stream(self, typed: TypedCall, args: tuple[Any, ...], named: dict[str, Any]) -> Iterator[Any]:
        pieces, seconds = self._message(typed, args, named)
        channel, connection = self._sent(pieces, seconds)
        channel.busy += 1
        try:
            while True:
                try:
                    received = connection.receive(None)
                except (Lost, OSError):
                    raise self._lost(typed) from None
                if received.kind == END:
                    break
                yield _item(typed, received)
        except BaseException:
            connection.close()
            raise
        else:
            self._give_back(channel, connection)
        finally:
            channel.busy -= 1

    def _blocking(self, name: str) -> Callable[..., Any]:
        typed = self._api(name)
        work = self._stream if typed.spec.stream else self._call
        return lambda *args, **named: work(typed, args, named)

    # asynchronous callers

    async def _take(self, deadline: float) -> tuple[Channel, Awaiting]:
        loop, patience = asyncio.get_running_loop(), _FIRST_WAIT_S
        while True:
            for channel in self._order():
                kept = channel.idle.get(loop)
                while kept:
                    connection = kept.pop()
                    if connection.alive:
                        return channel, connection
                    connection.close()
                left = deadline - time.monotonic()
                try:
                    return channel, await asyncio.wait_for(self._open(channel), max(0.01, min(patience, left)))
                except (OSError, Lost, WireError, asyncio.TimeoutError):
                    continue
            if time.monotonic() >= deadline:
                raise self._unavailable()
            await asyncio.sleep(0.02)
            patience = min(4.0, 2 * patience)

    async def _open(self, channel: Channel) -> Awaiting:
        loop = asyncio.get_running_loop()
        if channel.unix:
            _, connection = await loop.create_unix_connection(Awaiting, channel.place)
        else:
            _, connection = await loop.create_connection(Awaiting, *channel.place)
        try:
            await connection.send([self._hello])
            if (await connection.receive()).kind != WELCOME:
                raise Lost
        except BaseException:
            connection.close()
            raise
        return connection

    @staticmethod
    def _keep(channel: Channel, connection: Awaiting) -> None:
        kept = channel.idle.setdefault(asyncio.get_running_loop(), deque())
        if connection.alive and len(kept) < IDLE:
            kept.append(connection)
        else:
            connection.close()

    async def _begin(
        self, typed: TypedCall, args: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[Channel, Awaiting, Frame]:
        """Send a call; give the first message that answers it, and the connection, which counts as busy from now on.

        A call that could not be written whole goes to another worker.
        """
        pieces, seconds = self._message(typed, args, named)
        deadline = time.monotonic() + (_PATIENCE_S if seconds is None else seconds)
        while True:
            channel, connection = await self._take(deadline)
            channel.busy += 1
            try:
                await connection.send(pieces)
                return channel, connection, await connection.receive()
            except BaseException as error:
                channel.busy -= 1
                connection.close()
                if isinstance(error, Undelivered) and time.monotonic() < deadline:
                    continue
                if isinstance(error, (Lost, OSError)):
                    raise self._lost(typed) from None
                raise

    async def _acall(self, typed: TypedCall, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        channel, connection, received = await self._begin(typed, args, named)
        channel.busy -= 1
        self._keep(channel, connection)
        return _result(typed, received)

    async def _astream(self, typed: TypedCall, args: tuple[Any, ...], named: dict[str, Any]) -> AsyncIterator[Any]:
        channel, connection, received = await self._begin(typed, args, named)
        try:
            while received.kind != END:
                yield _item(typed, received)
                received = await connection.receive()
        except BaseException as error:
            connection.close()
            if isinstance(error, (Lost, OSError)):
                raise self._lost(typed) from None
            raise
        else:
            self._keep(channel, connection)
        finally:
            channel.busy -= 1

    def _awaitable(self, name: str) -> Callable[..., Any]:
        typed = self._api(name)
        work: Callable[..., Any] = self._astream if typed.spec.stream else self._acall
        return lambda *args, **named: work(typed, args, named)


def _result(typed: TypedCall, received: Frame) -> Any:
    if received.kind == ERROR:
        raise revive(unpack_error(received), typed.where)
    if received.kind != RESULT:
        raise WireError(f"{typed.where}: an answer of another kind")
    return typed.result(unpack(received)[1])


def _item(typed: TypedCall, received: Frame) -> Any:
    if received.kind == ERROR:
        raise revive(unpack_error(received), typed.where)
    if received.kind != ITEM:
        raise WireError(f"{typed.where}: an item of another kind")
    return typed.result(unpack(received)[1])
