"""A dependency at an address: plain HTTP to any bentotool or BentoML service, through `bentotool.client`."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

from bentotool.errors import MissingDependencyError, RemoteError
from bentotool.sdk.carried_errors import by_code
from bentotool.sdk.exceptions import ServiceUnavailable

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["CLIENT_LIBRARY", "Elsewhere", "Methods"]

CLIENT_LIBRARY = "httpx>=0.27"
"""What the client needs; as the extra ``client`` has it."""

_log = logging.getLogger("bentotool.service")


def _translated(error: RemoteError, name: str, url: str) -> Exception:
    """The error of the other service, as a service raises it.

    It may reach a caller of this service as it is, who shall not learn where the other one stands: the log says that.
    """
    status = getattr(error, "status", None)
    if status is None:
        _log.warning("%s at %s: %s", name, url, error.message)
        return ServiceUnavailable(f"{name}: the service that this one asks does not answer", retry_after=1.0)
    message = error.message.removeprefix(f"{name}: ").replace(url.rstrip("/"), "the service")
    return by_code(getattr(error, "remote_code", "") or "remote", status, message, error.hint)


def _clients() -> Any:
    try:
        import httpx  # noqa: F401 - the client needs it; the message shall say so
    except ImportError as error:
        raise MissingDependencyError("httpx", purpose="depends(url=...)") from error
    from bentotool.client import http

    return http


class Elsewhere:
    """What service code sees of a dependency at an address.

    Args:
        url: where it answers.
        on: its declaration, where there is one: its asynchronous methods are awaited, as in this process. Without it
            the methods block, and `to_async` has them awaitable.
    """

    def __init__(self, url: str, on: Service[Any] | None = None) -> None:
        self.client_url: str | None = url
        self._url, self._on = url, on
        self._lock = threading.Lock()
        self._sync: Any = None
        # a connection belongs to the loop that opened it
        self._async: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    @property
    def to_sync(self) -> Methods:
        return Methods(self._blocking)

    @property
    def to_async(self) -> Methods:
        return Methods(self._awaitable)

    def is_ready(self) -> bool:
        return bool(self._sync_client().is_ready())

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._on is None:
            return self._blocking(name)
        spec = self._on.apis.get(name) or next((s for s in self._on.apis.values() if s.func.__name__ == name), None)
        if spec is None:
            raise AttributeError(f"service {self._on.name} has no API {name!r}")
        return self._awaitable(spec.name) if spec.kind.startswith("async") else self._blocking(spec.name)

    def _sync_client(self) -> Any:
        with self._lock:
            if self._sync is None:
                self._sync = _clients().SyncHTTPClient(self._url, server_ready_timeout=0)
            return self._sync

    def _async_client(self) -> Any:
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._async.get(loop)
            if found is None:
                found = self._async[loop] = _clients().AsyncHTTPClient(self._url, server_ready_timeout=0)
            return found

    def _streams(self, name: str) -> bool:
        spec = self._on.apis.get(name) if self._on is not None else None
        return spec is not None and spec.stream

    def _blocking(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            try:
                result = self._sync_client().call(name, *args, **named)
                return _guarded(result, name, self._url) if hasattr(result, "__next__") else result
            except RemoteError as error:
                raise _translated(error, name, self._url) from error

        return call

    def _awaitable(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **named: Any) -> Any:
            try:
                result = await self._async_client().call(name, *args, **named)
                return _guarded_async(result, name, self._url) if hasattr(result, "__anext__") else result
            except RemoteError as error:
                raise _translated(error, name, self._url) from error

        async def stream(*args: Any, **named: Any) -> AsyncIterator[Any]:
            async for item in await call(*args, **named):
                yield item

        return stream if self._streams(name) else call


def _guarded(items: Iterator[Any], name: str, url: str) -> Iterator[Any]:
    try:
        yield from items
    except RemoteError as error:
        raise _translated(error, name, url) from error


async def _guarded_async(items: AsyncIterator[Any], name: str, url: str) -> AsyncIterator[Any]:
    try:
        async for item in items:
            yield item
    except RemoteError as error:
        raise _translated(error, name, url) from error


class Methods:
    """Every method of a service that runs elsewhere, made when it is asked for.

    Args:
        make: the name of a method → what calls it.
    """

    def __init__(self, make: Callable[[str], Callable[..., Any]]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._make(name)
