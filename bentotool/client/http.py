"""Clients of a service over HTTP: one method per API, made from its ``/schema.json``."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

from bentotool.errors import NotFoundError, RemoteError, UsageError

if TYPE_CHECKING:
    import httpx

__all__ = ["AsyncHTTPClient", "CallError", "SyncHTTPClient"]

_FAILED = 400


class CallError(RemoteError):
    """A service answered with an error.

    Attributes:
        status: HTTP status.
        remote_code: the ``code`` of the error envelope, e.g. ``invalid_input``; empty where there is none.
    """

    def __init__(self, message: str, *, status: int, remote_code: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint, details={"status": status, "remote_code": remote_code})
        self.status = status
        self.remote_code = remote_code


def _failure(name: str, status: int, body: Any) -> CallError:
    found = body.get("error") if isinstance(body, dict) else None
    if isinstance(found, dict):
        message = str(found.get("message", ""))
        return CallError(
            f"{name}: {message}", status=status, remote_code=str(found.get("code", "")), hint=found.get("hint")
        )
    return CallError(f"{name}: {found or f'HTTP status {status}'}", status=status)


def _plain(value: Any) -> Any:
    from bentotool.sdk.codecs import to_plain

    return to_plain(value)


class _Routes:
    """What ``/schema.json`` says."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.name = schema["name"]
        self.by_name: dict[str, dict[str, Any]] = {route["name"]: route for route in schema["routes"]}

    def find(self, name: str) -> dict[str, Any]:
        if name not in self.by_name:
            raise NotFoundError(f"service {self.name} has no API {name!r}", hint=f"it has: {', '.join(self.by_name)}")
        return self.by_name[name]

    def body(self, route: dict[str, Any], args: tuple[Any, ...], named: dict[str, Any]) -> bytes:
        """The JSON body of a call."""
        import msgspec

        schema = route["input"]
        encode = msgspec.json.Encoder(enc_hook=_plain).encode
        if schema.get("root_input"):
            if len(args) != 1 or named:
                raise UsageError(f"{route['name']} takes one positional argument")
            return encode(args[0])
        names = list(schema.get("properties", {}))
        if len(args) > len(names):
            raise UsageError(f"{route['name']} takes {len(names)} arguments, not {len(args)}")
        return encode({**dict(zip(names, args, strict=False)), **named})

    @staticmethod
    def result(route: dict[str, Any], response: httpx.Response) -> Any:
        """The value of an answer: arrays where the schema says so, text, bytes or JSON."""
        media = response.headers.get("content-type", "").partition(";")[0]
        if media == "application/json":
            value = response.json()
            if route["output"].get("format") == "numpy-array":
                import numpy as np

                # null stands for NaN, which JSON does not have
                dtype = route["output"].get("dtype")
                return np.asarray(value, dtype=dtype or (float if _has_null(value) else None))
            return value
        return response.text if media.startswith("text/") else response.content


def _has_null(value: Any) -> bool:
    return any(map(_has_null, value)) if isinstance(value, list) else value is None


def _httpx() -> Any:
    import httpx

    return httpx


class _Base:
    _routes: _Routes | None = None

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 30.0) -> None:
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"

    def _unreachable(self, error: Exception) -> RemoteError:
        return RemoteError(
            f"{self.url} does not answer: {error or type(error).__name__}", hint="is the service running?"
        )


def _check(name: str, response: httpx.Response) -> None:
    if response.status_code >= _FAILED:
        try:
            body = response.json()
        except ValueError:
            body = None
        raise _failure(name, response.status_code, body)


class SyncHTTPClient(_Base):
    """Calls a service.

    Args:
        url: ``http://host:port`` with the path prefix, if any.
        token: sent as ``Authorization: Bearer``.
        timeout: seconds for one call.

    Example::

        with SyncHTTPClient("http://127.0.0.1:3000") as client:
            client.predict(x=[[5.1, 3.5, 1.4, 0.2]])
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 30.0) -> None:
        super().__init__(url, token=token, timeout=timeout)
        self._client: httpx.Client = _httpx().Client(base_url=self.url, headers=self._headers, timeout=timeout)

    def __enter__(self) -> SyncHTTPClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def is_ready(self) -> bool:
        """Whether the service answers requests now."""
        try:
            return bool(self._client.get("/readyz").status_code == 200)
        except _httpx().HTTPError:
            return False

    def wait_until_server_ready(self, timeout: float = 30.0) -> None:
        """Raises: RemoteError: not ready within `timeout` seconds."""
        end = time.monotonic() + timeout
        while not self.is_ready():
            if time.monotonic() >= end:
                raise RemoteError(f"{self.url} is not ready after {timeout:g} seconds")
            time.sleep(0.05)

    def _schema(self) -> _Routes:
        if self._routes is None:
            response = self._request("GET", "/schema.json", "schema")
            self._routes = _Routes(response.json())
        return self._routes

    def _request(self, method: str, path: str, name: str, **options: Any) -> httpx.Response:
        try:
            response = self._client.request(method, path, **options)
        except _httpx().HTTPError as error:
            raise self._unreachable(error) from error
        _check(name, response)
        return response

    def call(self, name: str, /, *args: Any, **named: Any) -> Any:
        """Call an API.

        Raises:
            NotFoundError: the service has no such API.
            CallError: it answered with an error.
            RemoteError: it did not answer.
        """
        routes = self._schema()
        route = routes.find(name)
        body = routes.body(route, args, named)
        if route["output"].get("is_stream"):
            return self._stream(route, body)
        return routes.result(route, self._request(route.get("method", "POST"), route["route"], name, content=body))

    def _stream(self, route: dict[str, Any], body: bytes) -> Iterator[Any]:
        import json

        with self._client.stream("POST", route["route"], content=body) as response:
            if response.status_code >= _FAILED:
                response.read()
                _check(route["name"], response)
            if response.headers.get("content-type", "").startswith("application/jsonl"):
                yield from (json.loads(line) for line in response.iter_lines())
            else:
                yield from response.iter_text()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            self._schema().find(name)
        except NotFoundError as error:
            raise AttributeError(error.message) from None
        return lambda *args, **named: self.call(name, *args, **named)


class AsyncHTTPClient(_Base):
    """The same as `SyncHTTPClient`, awaited. Methods are looked up when they are called."""

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 30.0) -> None:
        super().__init__(url, token=token, timeout=timeout)
        self._client: httpx.AsyncClient = _httpx().AsyncClient(
            base_url=self.url, headers=self._headers, timeout=timeout
        )

    async def __aenter__(self) -> AsyncHTTPClient:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        await self._client.aclose()

    async def is_ready(self) -> bool:
        """Whether the service answers requests now."""
        try:
            return bool((await self._client.get("/readyz")).status_code == 200)
        except _httpx().HTTPError:
            return False

    async def _schema(self) -> _Routes:
        if self._routes is None:
            self._routes = _Routes((await self._request("GET", "/schema.json", "schema")).json())
        return self._routes

    async def _request(self, method: str, path: str, name: str, **options: Any) -> httpx.Response:
        try:
            response = await self._client.request(method, path, **options)
        except _httpx().HTTPError as error:
            raise self._unreachable(error) from error
        _check(name, response)
        return response

    async def call(self, name: str, /, *args: Any, **named: Any) -> Any:
        """Call an API; for a stream, the whole of it is an async iterator. Raises as `SyncHTTPClient.call`."""
        routes = await self._schema()
        route = routes.find(name)
        body = routes.body(route, args, named)
        if route["output"].get("is_stream"):
            return self._stream(route, body)
        response = await self._request(route.get("method", "POST"), route["route"], name, content=body)
        return routes.result(route, response)

    async def _stream(self, route: dict[str, Any], body: bytes) -> AsyncIterator[Any]:
        import json

        async with self._client.stream("POST", route["route"], content=body) as response:
            if response.status_code >= _FAILED:
                await response.aread()
                _check(route["name"], response)
            if response.headers.get("content-type", "").startswith("application/jsonl"):
                async for line in response.aiter_lines():
                    yield json.loads(line)
            else:
                async for text in response.aiter_text():
                    yield text

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **named: self.call(name, *args, **named)
