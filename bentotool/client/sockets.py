"""WebSockets to a service: texts, bytes and JSON, over the ``websockets`` package."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from bentotool.client.connection import Settings, make_ssl
from bentotool.errors import MissingDependencyError, RemoteError, UsageError

__all__ = ["AsyncSocket", "Socket", "connect", "connect_async"]


def _library(part: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"websockets.{part}")
    except ImportError as error:
        raise MissingDependencyError(
            "websockets", install="'bentotool[client]'", purpose="WebSockets of a service"
        ) from error


def _address(settings: Settings, path: str) -> tuple[str, dict[str, Any]]:
    """Address and options of a connection.

    Raises:
        UsageError: the service has no address over TCP.
    """
    parts = urlsplit(settings.url)
    if parts.scheme not in ("http", "https"):
        raise UsageError(f"{settings.url} has no WebSockets", hint="give an http address")
    headers = dict(settings.headers)
    if settings.token:
        headers["authorization"] = f"Bearer {settings.token}"
    scheme = "wss" if parts.scheme == "https" else "ws"
    url = urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + "/" + path.lstrip("/"), "", ""))
    options: dict[str, Any] = {"additional_headers": headers, "open_timeout": settings.timeout, "max_size": None}
    if scheme == "wss":
        context = make_ssl(settings)
        if context is False:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        options["ssl"] = ssl.create_default_context() if context is True else context
    return url, options


def _encode(value: Any) -> str:
    import msgspec

    from bentotool.client.payload import plain

    return msgspec.json.encode(value, enc_hook=plain).decode()


def _decode(message: str | bytes) -> Any:
    import msgspec

    return msgspec.json.decode(message)


class Socket:
    """An open WebSocket; looping over it gives what comes until it is closed."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def send(self, message: str | bytes) -> None:
        """Send a text or bytes."""
        self._connection.send(message)

    def send_json(self, value: Any) -> None:
        """Send a value as JSON text."""
        self._connection.send(_encode(value))

    def receive(self, timeout: float | None = None) -> str | bytes:
        """The next message.

        Raises:
            RemoteError: the service closed the connection, or sent nothing within `timeout` seconds.
        """
        try:
            message: str | bytes = self._connection.recv(timeout=timeout)
        except TimeoutError as error:
            raise RemoteError(f"nothing came over the WebSocket within {timeout:g} seconds") from error
        except _library("exceptions").ConnectionClosed as error:
            raise RemoteError(f"the WebSocket was closed: {error}") from error
        return message

    def receive_json(self, timeout: float | None = None) -> Any:
        """The next message, decoded. Raises as `receive`."""
        return _decode(self.receive(timeout))

    def __iter__(self) -> Iterator[str | bytes]:
        yield from self._connection


class AsyncSocket:
    """An open WebSocket, awaited; looping over it gives what comes until it is closed."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def send(self, message: str | bytes) -> None:
        """Send a text or bytes."""
        await self._connection.send(message)

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON text."""
        await self._connection.send(_encode(value))

    async def receive(self) -> str | bytes:
        """The next message. Raises: RemoteError: the service closed the connection."""
        try:
            message: str | bytes = await self._connection.recv()
        except _library("exceptions").ConnectionClosed as error:
            raise RemoteError(f"the WebSocket was closed: {error}") from error
        return message

    async def receive_json(self) -> Any:
        """The next message, decoded. Raises as `receive`."""
        return _decode(await self.receive())

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        async for message in self._connection:
            yield message


@contextmanager
def connect(settings: Settings, path: str) -> Iterator[Socket]:
    """Open a WebSocket for the length of a block.

    Raises:
        MissingDependencyError: the package ``websockets`` is not installed.
        RemoteError: the service refused.
    """
    library, failures = _library("sync.client"), _library("exceptions")
    url, options = _address(settings, path)
    try:
        connection = library.connect(url, **options)
    except (OSError, TimeoutError, failures.WebSocketException) as error:
        raise RemoteError(f"{url}: {error}") from error
    with connection:
        yield Socket(connection)


@asynccontextmanager
async def connect_async(settings: Settings, path: str) -> AsyncIterator[AsyncSocket]:
    """Open a WebSocket for the length of a block. Raises as `connect`."""
    library, failures = _library("asyncio.client"), _library("exceptions")
    url, options = _address(settings, path)
    try:
        connection = await library.connect(url, **options)
    except (OSError, TimeoutError, failures.WebSocketException) as error:
        raise RemoteError(f"{url}: {error}") from error
    async with connection:
        yield AsyncSocket(connection)
