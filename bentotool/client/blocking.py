"""The client that blocks."""

from __future__ import annotations

import functools
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from bentotool.client.connection import FAILED, READY_POLL, Base, check, client_options
from bentotool.client.errors import CallError
from bentotool.client.payload import Prepared, prepare
from bentotool.client.routes import Route, Routes, read_routes
from bentotool.client.streams import ACCEPT, make_splitter
from bentotool.client.tasks import Task, TaskStatus, next_poll, read_id, read_status
from bentotool.errors import RemoteError

if TYPE_CHECKING:
    import httpx

__all__ = ["SyncHTTPClient"]


class SyncHTTPClient(Base):
    """Calls a service; each of its APIs is a method.

    Args:
        url: ``http://host:port`` with the path prefix, if any; ``file:///path`` of a Unix socket.
        token: sent as ``Authorization: Bearer``.
        timeout: seconds for one call; the service is told, and gives up then too.
        server_ready_timeout: seconds to wait for the service before the first call; 0: not at all; None: `timeout`.
        headers: sent with every call.
        retries: how often a call is repeated where that is safe.
        idempotent: every API may be called twice without harm.
        media_dir: folder for files that the service answers with; by default one that goes with the client.
        verify: False, or a file of certificates, or an `ssl.SSLContext`.
        cert: certificate and key of this client.
        service: the declaration, where it is at hand: then ``/schema.json`` is not fetched.

    Example::

        with SyncHTTPClient("http://127.0.0.1:3000") as client:
            client.predict(x=[[5.1, 3.5, 1.4, 0.2]])
    """

    _client: httpx.Client

    def _open(self) -> None:
        self._client = self._httpx.Client(**client_options(self._settings, self._httpx, asynchronous=False))

    def __enter__(self) -> SyncHTTPClient:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections, and remove files that answers were kept in."""
        self._client.close()
        self._folder.close()

    def is_ready(self, timeout: float | None = None) -> bool:
        """Whether the service answers calls now.

        Args:
            timeout: seconds to wait for its word.
        """
        try:
            answer = self._client.get("/readyz", timeout=timeout or self.timeout)
        except self._httpx.HTTPError as error:
            self._last_word = str(error) or type(error).__name__
            return False
        self._last_word = f"/readyz answers {answer.status_code}"
        return bool(answer.status_code == 200)

    def wait_until_server_ready(self, timeout: float | None = None) -> None:
        """Raises: RemoteError: not ready within `timeout` seconds."""
        seconds = self.timeout if timeout is None else timeout
        end = time.monotonic() + seconds
        while not self.is_ready(max(0.05, end - time.monotonic())):
            if time.monotonic() >= end:
                raise self._not_ready(seconds)
            time.sleep(READY_POLL)

    def request(self, method: str, url: str, **options: Any) -> httpx.Response:
        """Ask for any path of the service; `options` are httpx's.

        Raises:
            RemoteError: it did not answer.
        """
        try:
            return self._client.request(method, url, **options)
        except self._httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def call(self, name: str, /, *args: Any, **named: Any) -> Any:
        """Call an API by its name.

        Raises:
            NotFoundError: the service has no such API.
            UsageError: the arguments do not fit.
            CallError: it answered with an error.
            RemoteError: it did not answer.
        """
        route = self._schema().find(name)
        prepared = prepare(route, args, named, binary=self._binary)
        if route.is_stream:
            return self._stream(route, prepared)
        try:
            with prepared.opened:
                accept = self._accept(route)
                return self._value(route, self._send(route.method, prepared.path, route.name, prepared, headers=accept))
        except CallError as error:
            if self._refused_binary(error, prepared):
                return self.call(name, *args, **named)
            raise

    def submit(self, name: str, /, *args: Any, **named: Any) -> Task:
        """Submit a task by its name; see `Task`. Raises as `call`."""
        return self._submit(self._schema().find(name), *args, **named)

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self.call("__call__", *args, **named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        routes = self._schema()
        if name not in routes.by_attribute:
            raise AttributeError(f"service {routes.name} has no API {name!r}; it has: {', '.join(routes.by_attribute)}")
        return self._method(routes.by_attribute[name])

    def _method(self, route: Route) -> Callable[..., Any]:
        def call(*args: Any, **named: Any) -> Any:
            return self.call(route.name, *args, **named)

        method: Any = route.dress(call)
        if route.is_task:
            method.submit = functools.partial(self._submit, route)
            method.task = functools.partial(self._task, route)
            method.get = functools.partial(self._task_result, route)
            method.get_status = lambda task_id: self._task_status(route, task_id).status
            method.cancel = functools.partial(self._task_cancel, route)
            method.retry = functools.partial(self._task_retry, route)
        return method  # type: ignore[no-any-return]

    def websocket(self, path: str) -> Any:
        """Open a WebSocket; a context manager, see `bentotool.client.sockets`."""
        from bentotool.client.sockets import connect

        return connect(self._settings, path)

    def _schema(self) -> Routes:
        if self._routes is None:
            if self._ready_timeout > 0 and not self.is_ready():
                self.wait_until_server_ready(self._ready_timeout)
            response = self._send("GET", "/schema.json", "schema")
            try:
                document = response.json()
            except ValueError:
                document = None
            self._routes = read_routes(document, self._is_taken)
        return self._routes

    def _send(
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
                response = self._client.send(self._client.build_request(method, path, **options), stream=stream)
            except self._httpx.HTTPError as error:
                wait = attempts.after_error(error, self._httpx)
                if wait is None:
                    raise self._unreachable(error) from error
            else:
                wait = attempts.after_answer(response.status_code, response.headers)
                if wait is None:
                    if response.status_code >= FAILED:
                        response.read()
                        response.close()
                        check(name, response.status_code, response.content, response.headers)
                    return response
                response.close()
            time.sleep(wait)

    def _stream(self, route: Route, prepared: Prepared) -> Iterator[Any]:
        with prepared.opened:
            accept = {"accept": ACCEPT(route)}
            response = self._send(route.method, prepared.path, route.name, prepared, stream=True, headers=accept)
        try:
            splitter = make_splitter(route, response.headers.get("content-type", ""))
            for piece in response.iter_bytes():
                yield from splitter.feed(piece)
            yield from splitter.end()
        except self._httpx.HTTPError as error:
            raise RemoteError(f"{route.name}: the stream broke: {error}") from error
        finally:
            response.close()

    def _submit(self, route: Route, /, *args: Any, **named: Any) -> Task:
        prepared = prepare(route, args, named, binary=self._binary)
        prepared.headers["idempotency-key"] = secrets.token_hex(16)  # so that repeating it is harmless
        path, accept = f"{route.path}/submit", self._accept(route)
        with prepared.opened:
            response = self._send("POST", path, route.name, prepared, harmless=route.native, headers=accept)
        return Task(read_id(response.json()), route, self)

    def _task(self, route: Route, task_id: str) -> Task:
        return Task(task_id, route, self)

    def _ask(self, route: Route, method: str, word: str, task_id: str) -> httpx.Response:
        return self._send(method, f"{route.path}/{word}", route.name, params={"task_id": task_id})

    def _task_status(self, route: Route, task_id: str) -> TaskStatus:
        return read_status(self._ask(route, "GET", "status", task_id).json())

    def _task_result(self, route: Route, task_id: str) -> Any:
        return self._value(route, self._ask(route, "GET", "get", task_id))

    def _task_cancel(self, route: Route, task_id: str) -> None:
        self._ask(route, "PUT", "cancel", task_id)

    def _task_retry(self, route: Route, task_id: str) -> Task:
        return Task(read_id(self._ask(route, "POST", "retry", task_id).json()), route, self)

    def _task_wait(self, route: Route, task_id: str, timeout: float | None) -> Any:
        end = None if timeout is None else time.monotonic() + timeout
        wait = 0.02
        while not self._task_status(route, task_id).status.ended:
            if end is not None and time.monotonic() + wait > end:
                raise RemoteError(f"task {task_id} has not ended within {timeout:g} seconds")
            time.sleep(wait)
            wait = next_poll(wait)
        return self._task_result(route, task_id)
