"""``depends(...)``: one service used by another, wherever it runs.

A dependency is found in this order: in another worker group of the same server, which the runtime announces with
`provide`; at an address that ``BENTOTOOL_DEPENDS`` or the declaration gives; else as an object in this process. Service
code sees the same of each: the methods, `to_async`, `to_sync`, `is_ready()` and `client_url`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import re
import threading
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from bentotool.errors import ConfigError
from bentotool.sdk.calling import CURRENT
from bentotool.sdk.context import Context, Request

if TYPE_CHECKING:
    from bentotool.sdk.service import Service
    from bentotool.sdk.signature import MethodSpec

__all__ = [
    "VARIABLE",
    "Dependency",
    "Handle",
    "Peer",
    "depends",
    "graph",
    "provide",
    "provided",
    "use_loop",
    "withdraw",
]

T = TypeVar("T")
VARIABLE = "BENTOTOOL_DEPENDS"
"""Addresses of dependencies by the name of the service or deployment: ``Name=http://host:3000,Other=https://...``."""

_HTTP = re.compile(r"https?://[^\s/]+\S*", re.ASCII)


class Peer(Protocol):
    """A dependency that another process runs."""

    @property
    def to_async(self) -> Any:
        """Every method awaitable; a stream is an async iterator."""

    @property
    def to_sync(self) -> Any:
        """Every method blocking; a stream is an iterator."""

    @property
    def client_url(self) -> str | None:
        """Where it answers plain HTTP, if anywhere."""

    def is_ready(self) -> Any:
        """Whether it answers calls now."""

    async def why_not_ready(self) -> str | None:
        """Why it does not; None where it does."""


_PROVIDED: dict[str, Peer] = {}
_LOOP: list[asyncio.AbstractEventLoop] = []


def provide(name: str, peer: Peer) -> None:
    """Say that a service runs elsewhere; every dependency on it goes there from now on."""
    _PROVIDED[name] = peer


def use_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Say which loop asynchronous methods of dependencies in this process run on, when synchronous code calls them."""
    _LOOP[:] = [loop]


def provided(name: str) -> Peer | None:
    """What `provide` was told of a service."""
    return _PROVIDED.get(name)


def withdraw() -> None:
    """Forget what `provide` was told."""
    _PROVIDED.clear()


def _addresses() -> dict[str, str]:
    """What ``BENTOTOOL_DEPENDS`` says.

    Raises:
        ConfigError: an entry is not ``Name=http://...``.
    """
    found = {}
    for entry in filter(None, (part.strip() for part in os.environ.get(VARIABLE, "").split(","))):
        name, _, url = entry.partition("=")
        if not name or not _HTTP.fullmatch(url):
            raise ConfigError(f"{VARIABLE}: {entry!r} is not Name=http://host:port")
        found[name] = url
    return found


def _run(work: Coroutine[Any, Any, Any], loop: asyncio.AbstractEventLoop | None) -> Any:
    """The result of a coroutine for a caller that cannot await it."""
    if loop is not None and loop.is_running():
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not loop:
            return asyncio.run_coroutine_threadsafe(work, loop).result()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append((asyncio.run(work), None))
        except BaseException as error:
            outcome.append((None, error))

    thread = threading.Thread(target=run, daemon=True)  # this one may be running a loop
    thread.start()
    thread.join()
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


class _Async:
    """The dependency with every method awaitable; synchronous ones run in a thread."""

    def __init__(self, instance: object) -> None:
        self._instance = instance

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method) or not callable(method):
            return method
        if inspect.isgeneratorfunction(method):
            return functools.partial(_stream, method)

        @functools.wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await asyncio.to_thread(method, *args, **kwargs)

        return call


async def _stream(method: Any, *args: Any, **kwargs: Any) -> Any:
    items, end = method(*args, **kwargs), object()
    try:
        while (item := await asyncio.to_thread(next, items, end)) is not end:
            yield item
    finally:
        items.close()


class _Sync:
    """The dependency with every method blocking."""

    def __init__(self, instance: object, loop: asyncio.AbstractEventLoop | None) -> None:
        self._instance, self._loop = instance, loop

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._instance, name)
        if inspect.isasyncgenfunction(method):
            return functools.partial(self._items, method)
        if not inspect.iscoroutinefunction(method):
            return method

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            return _run(method(*args, **kwargs), self._loop)

        return call

    def _items(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        items, end = method(*args, **kwargs), object()

        async def step() -> Any:
            return await anext(items, end)

        while (item := _run(step(), self._loop)) is not end:
            yield item


class Handle:
    """What service code sees of a dependency in its own process."""

    def __init__(self, instance: object, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._instance, self._loop = instance, loop

    @property
    def to_async(self) -> _Async:
        return _Async(self._instance)

    @property
    def to_sync(self) -> _Sync:
        return _Sync(self._instance, self._loop)

    @property
    def client_url(self) -> str | None:
        return None

    def is_ready(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._instance, name)


class _Supplied:
    """A service in its own process, whose APIs get the `Context` that they ask for."""

    def __init__(self, instance: object, specs: Mapping[str, MethodSpec], state: dict[str, Any]) -> None:
        self._instance, self._specs, self._state = instance, specs, state

    def __getattr__(self, name: str) -> Any:
        found, spec = getattr(self._instance, name), self._specs.get(name)
        if spec is None or spec.context is None:
            return found
        call = CURRENT.get()
        scope = {
            "type": "http",
            "method": spec.options.method,
            "path": spec.route,
            "headers": list(call.headers.items()) if call is not None else [],
            "query_string": b"",
            "client": None,
        }
        return functools.partial(found, **{spec.context: Context(Request(scope), self._state)})


class Dependency(Generic[T]):
    """A class attribute that gives the other service.

    Attributes:
        on: the service; None where only its address is known.
        url: its address, as declared.
        deployment: name of the deployment that answers, as declared.
        cluster: where that deployment is, as declared.
    """

    def __init__(
        self,
        on: Service[T] | None = None,
        url: str | None = None,
        deployment: str | None = None,
        cluster: str | None = None,
    ) -> None:
        self.on, self.url, self.deployment, self.cluster = on, url, deployment, cluster
        self._elsewhere: tuple[str, Any] | None = None
        self._state: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """Of the service, the deployment, or the address."""
        return self.on.name if self.on is not None else self.deployment or self.url or ""

    @property
    def address(self) -> str | None:
        """Where the dependency answers plain HTTP, if it was said.

        Raises:
            ConfigError: the deployment's address is not known.
        """
        known = _addresses()
        found = known.get(self.deployment or self.name) or self.url
        if found is None and self.deployment is not None:
            raise ConfigError(
                f"the address of deployment {self.deployment!r} is not known",
                hint=f"set {VARIABLE}={self.deployment}=http://host:port",
            )
        return found

    @property
    def local(self) -> bool:
        """Whether the service lives in this process."""
        return self.on is not None and self.name not in _PROVIDED and self.address is None

    def resolve(self) -> Any:
        """What service code uses. Raises: ConfigError: an address is missing."""
        if self.on is not None and self.name in _PROVIDED:
            return _PROVIDED[self.name]
        address = self.address
        if address is None:
            assert self.on is not None
            specs = {spec.func.__name__: spec for spec in self.on.apis.values() if spec.context is not None}
            instance = self.on.shared_instance()
            return Handle(_Supplied(instance, specs, self._state) if specs else instance, _LOOP[0] if _LOOP else None)
        if self._elsewhere is None or self._elsewhere[0] != address:
            from bentotool.sdk.elsewhere import Elsewhere

            self._elsewhere = (address, Elsewhere(address, self.on))
        return self._elsewhere[1]

    def __get__(self, instance: object | None, owner: type | None = None) -> Any:
        return self if instance is None else self.resolve()


def depends(
    on: Service[T] | None = None,
    *,
    url: str | None = None,
    deployment: str | None = None,
    cluster: str | None = None,
) -> Any:
    """Declare that a service uses another.

    Args:
        on: the service. In production it has its own workers; in development it lives in the same process.
        url: where a service answers HTTP; together with `on` the methods are known beforehand.
        deployment: name of a deployment that answers.
        cluster: where that deployment is; kept for those who look.

    Raises:
        ConfigError: `on` is not a service, or nothing, or too much, was said.
    """
    if on is not None and not hasattr(on, "shared_instance"):
        raise ConfigError(f"depends({on!r}): not a service", hint="decorate the class with @bentotool.service")
    if url is not None and deployment is not None:
        raise ConfigError("depends(...): either url= or deployment=, not both")
    if on is None and url is None and deployment is None:
        raise ConfigError("depends() of nothing", hint="name a service: depends(Other), depends(url=...)")
    if url is not None and not _HTTP.fullmatch(url):
        raise ConfigError(f"depends(url={url!r}): not an http address", hint="as http://host:3000")
    if cluster is not None and deployment is None:
        raise ConfigError("depends(cluster=...) needs deployment= too")
    return Dependency(on, url, deployment, cluster)


def graph(entry: Service[Any]) -> Mapping[str, Service[Any]]:
    """The services that an entry service brings along, itself first, by name; those with an address are not among them.

    Raises:
        ConfigError: two services have one name, or they depend on each other in a circle.
    """
    found: dict[str, Service[Any]] = {}
    path: list[str] = []

    def visit(service: Service[Any]) -> None:
        if service.name in path:
            raise ConfigError(f"services depend on each other: {' -> '.join([*path, service.name])}")
        if found.setdefault(service.name, service) is not service:
            raise ConfigError(f"two services are named {service.name!r}", hint="give one of them name=")
        path.append(service.name)
        for dependency in service.dependencies.values():
            if dependency.on is not None and dependency.address is None:
                visit(dependency.on)
        path.pop()

    visit(entry)
    return found
