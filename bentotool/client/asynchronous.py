"""The client that is awaited."""

from __future__ import annotations

import asyncio
import functools
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Generator, Mapping
from typing import TYPE_CHECKING, Any

from bentotool.client.connection import FAILED, READY_POLL, Base, check, client_options
from bentotool.client.errors import CallError
from bentotool.client.payload import Prepared, prepare
from bentotool.client.routes import Route, Routes, read_routes
from bentotool.client.streams import ACCEPT, make_splitter
from bentotool.client.tasks import AsyncTask, TaskStatus, next_poll, read_id, read_status
from bentotool.errors import RemoteError

if TYPE_CHECKING:
    import httpx

__all__ = ["AsyncHTTPClient"]


class _Call:
    """A call of a client that does not know yet what kind of API it is: awaited for the value, or looped over."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._begin().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for item in await self._begin():
            yield item


class _Stream:
    """The items of a stream. It may be awaited too, which gives itself: so a call looks the same without a schema."""

    def __init__(self, items: AsyncGenerator[Any, None]) -> None:
        self._items = items

    def __await__(self) -> Generator[Any, Any, _Stream]:
        yield from ()
        return self

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._items

    async def __anext__(self) -> Any:
        return await self._items.__anext__()

    async def aclose(self) -> None:
        """End the call."""
        await self._items.aclose()


class AsyncHTTPClient(Base):
    """The same as `SyncHTTPClient`, awaited; a stream is an async iterator.

    ``async with`` fetches the service's schema, so that its APIs are known by their names and kinds. Without it they
    are looked up when they are called.
    """

    _client: httpx.AsyncClient

    def _open(self) -> None:
        self._client = self._httpx.AsyncClient(**client_options(self._settings, self._httpx, asynchronous=True))

    async def __aenter__(self) -> AsyncHTTPClient:
        await self._schema()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections, and remove files that answers were kept in."""
        await self._client.aclose()
        self._folder.close()

    async def is_ready(self, timeout: float | None = None) -> bool:
        """Whether the service answers calls now."""
        try:
            answer = await self._client.get("/readyz", timeout=timeout or self.timeout)
        except self._httpx.HTTPError as error:
            self._last_word = str(error) or type(error).__name__
            return False
        self._last_word = f"/readyz answers {answer.status_code}"
        return bool(answer.status_code == 200)

    async def wait_until_server_ready(self, timeout: float | None = None) -> None:
        """Raises: RemoteError: not ready within `timeout` seconds."""
        seconds = self.timeout if timeout is None else timeout
        end = time.monotonic() + seconds
        while not await self.is_ready(max(0.05, end - time.monotonic())):
            if time.monotonic() >= end:
                raise self._not_ready(seconds)
            await asyncio.sleep(READY_POLL)

    async def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Ask for any path of the service; `options` are httpx's.

        Raises:
            RemoteError: it did not answer.
        """
        try:
            return await self._client.request(method, url, **options)
        except self._httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def call(self, name: str, /, *args: Any, **named: Any) -> Any:
        """Call an API by its name: a coroutine; an async iterator for a stream. Raises as `SyncHTTPClient.call`."""
        if self._routes is not None and name in self._routes.by_name:
            route = self._routes.by_name[name]
            return _Stream(self._streamed(route, args, named)) if route.is_stream else self._valued(route, args, named)
        return _Call(functools.partial(self._called, name, args, named))

    async def submit(self, name: str, /, *args: Any, **named: Any) -> AsyncTask:
        """Submit a task by its name; see `AsyncTask`. Raises as `call`."""
        return await self._submit((await self._schema()).find(name), *args, **named)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.call("__call__", *args, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if self._routes is None:
            return _Unknown(self, name)
        if name not in self._routes.by_attribute:
            known = ", ".join(self._routes.by_attribute)
            raise AttributeError(f"service {self._routes.name} has no API {name!r}; it has: {known}")
        return self._method(self._routes.by_attribute[name])

    def _method(self, route: Route) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            return self.call(route.name, *args, **named)

        method: Any = route.dress(call)
        if route.is_task:
            method.submit = functools.partial(self._submit, route)
            method.task = functools.partial(self._task, route)
            method.get = functools.partial(self._task_result, route)
            method.get_status = functools.partial(self._task_state, route)
            method.cancel = functools.partial(self._task_cancel, route)
            method.retry = functools.partial(self._task_retry, route)
        return method  # type: ignore[no-any-return]

    def websocket(self, path: str) -> Any:
        """Open a WebSocket; an async context manager, see `bentotool.client.sockets`."""
        from bentotool.client.sockets import connect_async

        return connect_async(self._settings, path)

    async def _schema(self) -> Routes:
        if self._routes is None:
            if self._ready_timeout > 0 and self._settings.app is None and not await self.is_ready():
                await self.wait_until_server_ready(self._ready_timeout)
            response = await self._send("GET", "/schema.json", "schema")
            try:
                document = response.json()
            except ValueError:
                document = None
            self._routes = read_routes(document, self._is_taken)
        return self._routes

    async def _called(self, name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        route = (await self._schema()).find(name)
        if route.is_stream:
            return _Stream(self._streamed(route, args, named))
        return await self._valued(route, args, named)

    async def _valued(self, route: Route, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        prepared = prepare(route, args, named, binary=self._binary)
        try:
            with prepared.opened:
                accept = self._accept(route)
                answer = await self._send(route.method, prepared.path, route.name, prepared, headers=accept)
                return self._value(route, answer)
        except CallError as error:
            if self._refused_binary(error, prepared):
                return await self._valued(route, args, named)
            raise

    async def _send(
        self,
        method: str,
        path: str,
        name: str,
        prepared: Prepared | None = None,
        *,
        harmless: bool = False,
        stream: bool = False,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        attempts = self._attempts(method, prepared, harmless)
        options = prepared.options() if prepared else {}
        options["headers"] = {**self._deadline(), **options.get("headers", {}), **(headers or {})}
        options["params"] = params or options.get("params")
        while True:
            try:
                response = await self._client.send(self._client.build_request(method, path, **options), stream=stream)
            except self._httpx.HTTPError as error:
                wait = attempts.after_error(error, self._httpx)
                if wait is None:
                    raise self._unreachable(error) from error
            else:
                wait = attempts.after_answer(response.status_code, response.headers)
                if wait is None:
                    if response.status_code >= FAILED:
                        await response.aread()
                        await response.aclose()
                        check(name, response.status_code, response.content, response.headers)
                    return response
                await response.aclose()
            await asyncio.sleep(wait)

    async def _streamed(self, route: Route, args: tuple[Any, ...], named: dict[str, Any]) -> AsyncGenerator[Any, None]:
        prepared = prepare(route, args, named, binary=self._binary)
        with prepared.opened:
            accept = {"accept": ACCEPT(route)}
            response = await self._send(route.method, prepared.path, route.name, prepared, stream=True, headers=accept)
        try:
            splitter = make_splitter(route, response.headers.get("content-type", ""))
            async for piece in response.aiter_bytes():
                for item in splitter.feed(piece):
                    yield item
            for item in splitter.end():
                yield item
        except self._httpx.HTTPError as error:
            raise RemoteError(f"{route.name}: the stream broke: {error}") from error
        finally:
            await response.aclose()

    async def _submit(self, route: Route, /, *args: Any, **named: Any) -> AsyncTask:
        prepared = prepare(route, args, named, binary=self._binary)
        prepared.headers["idempotency-key"] = secrets.token_hex(16)  # so that repeating it is harmless
        path, accept = f"{route.path}/submit", self._accept(route)
        with prepared.opened:
            response = await self._send("POST", path, route.name, prepared, harmless=route.native, headers=accept)
        return AsyncTask(read_id(response.json()), route, self)

    def _task(self, route: Route, task_id: str) -> AsyncTask:
        return AsyncTask(task_id, route, self)

    async def _ask(self, route: Route, method: str, word: str, task_id: str) -> httpx.Response:
        return await self._send(method, f"{route.path}/{word}", route.name, params={"task_id": task_id})

    async def _task_status(self, route: Route, task_id: str) -> TaskStatus:
        return read_status((await self._ask(route, "GET", "status", task_id)).json())

    async def _task_state(self, route: Route, task_id: str) -> Any:
        return (await self._task_status(route, task_id)).status

    async def _task_result(self, route: Route, task_id: str) -> Any:
        return self._value(route, await self._ask(route, "GET", "get", task_id))

    async def _task_cancel(self, route: Route, task_id: str) -> None:
        await self._ask(route, "PUT", "cancel", task_id)

    async def _task_retry(self, route: Route, task_id: str) -> AsyncTask:
        return AsyncTask(read_id((await self._ask(route, "POST", "retry", task_id)).json()), route, self)

    async def _task_wait(self, route: Route, task_id: str, timeout: float | None) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        wait = 0.02
        while not (await self._task_status(route, task_id)).status.ended:
            if end is not None and time.monotonic() + wait > end:
                raise RemoteError(f"task {task_id} has not ended within {timeout:g} seconds")
            await asyncio.sleep(wait)
            wait = next_poll(wait)
        return await self._task_result(route, task_id)


class _Unknown:
    """An API of a client that has not fetched the schema yet."""

    def __init__(self, client: AsyncHTTPClient, name: str) -> None:
        self._client, self._name = client, name

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._client.call(self._name, *args, **named)

    def __getattr__(self, word: str) -> Any:
        if word.startswith("_"):
            raise AttributeError(word)

        async def ask(*args: Any, **named: Any) -> Any:
            await self._client._schema()
            found = getattr(getattr(self._client, self._name), word)(*args, **named)
            return await found if hasattr(found, "__await__") else found

        return ask
