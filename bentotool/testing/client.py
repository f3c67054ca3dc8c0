"""A client for a service's tests: the whole application in this process, without a socket.

What is called is what a server calls: admission, limits, middleware, lifespan and errors are those of production.
Only the network is left out.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json as jsonlib
import mimetypes
import os
import queue
import secrets
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from bentotool.errors import UsageError
from bentotool.sdk.context import Headers
from bentotool.sdk.service import Service
from bentotool.sdk.websocket import WebSocketDisconnect

__all__ = ["Answer", "TestClient", "TestWebSocket"]

_HOST = "testserver"
_AHEAD, _PAUSE = 64, 0.002
"""Messages that an application may be ahead of its reader, and the seconds until it looks again."""


def _part(name: str, file: Any) -> bytes:
    """A file in a form (https://www.rfc-editor.org/rfc/rfc7578): from bytes, a path, or (name, bytes[, type])."""
    if isinstance(file, os.PathLike):
        path = Path(file)
        file = (path.name, path.read_bytes())
    title, content, *rest = file if isinstance(file, tuple) else (name, file)
    media = rest[0] if rest else mimetypes.guess_type(title)[0] or "application/octet-stream"
    quoted = title.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = f'content-disposition: form-data; name="{name}"; filename="{quoted}"\r\ncontent-type: {media}\r\n\r\n'
    return head.encode() + bytes(content)


def _form(fields: Mapping[str, Any], files: Mapping[str, Any]) -> tuple[bytes, str]:
    """The body of a form, and its type. A field that is no text travels as JSON; a list of files as several parts."""
    parts = []
    for name, value in fields.items():
        text = value if isinstance(value, str) else jsonlib.dumps(value)
        parts.append(f'content-disposition: form-data; name="{name}"\r\n\r\n{text}'.encode())
    for name, file in files.items():
        parts += [_part(name, one) for one in (file if isinstance(file, list) else [file])]
    boundary = secrets.token_hex(16).encode()
    body = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return body + b"--" + boundary + b"--\r\n", f"multipart/form-data; boundary={boundary.decode()}"


class Answer:
    """An answer; its body is there at once, or comes piece by piece where it was asked for with `TestClient.stream`.

    Attributes:
        status_code: of HTTP.
        headers: names without regard to case.
        cookies: the values of ``Set-Cookie``, as they were sent.
    """

    def __init__(self, status: int, raw: list[tuple[bytes, bytes]], pieces: Iterator[bytes]) -> None:
        self.status_code = status
        self.headers = Headers(raw)
        self.cookies = [value.decode("latin-1") for name, value in raw if name == b"set-cookie"]
        self._pieces = pieces
        self._content: bytes | None = None

    @property
    def content(self) -> bytes:
        """The whole body."""
        if self._content is None:
            self._content = b"".join(self._pieces)
        return self._content

    @property
    def text(self) -> str:
        return self.content.decode()

    def json(self) -> Any:
        return jsonlib.loads(self.content)

    def iter_bytes(self) -> Iterator[bytes]:
        """The pieces of the body, as the service sends them."""
        return self._pieces

    def __repr__(self) -> str:
        return f"<Answer {self.status_code}>"


class _Exchange:
    """One scope: messages in, messages out, and the task between them."""

    def __init__(self, client: TestClient, scope: dict[str, Any], first: list[dict[str, Any]], last: str) -> None:
        self._client, self._last, self._left = client, last, False
        self._out: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._in: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for message in first:
            self._in.put_nowait(message)
        self._done: concurrent.futures.Future[None] = client.submit(self._run(scope))
        self._done.add_done_callback(lambda _: self._out.put(None))

    async def _run(self, scope: dict[str, Any]) -> None:
        async def send(message: dict[str, Any]) -> None:
            self._out.put(message)
            await asyncio.sleep(0)
            while self._out.qsize() > _AHEAD and not self._left:  # nobody reads: as with a full socket
                await asyncio.sleep(_PAUSE)

        await self._client.app(scope, self._in.get, send)

    def put(self, message: dict[str, Any]) -> None:
        self._client.loop.call_soon_threadsafe(self._in.put_nowait, message)

    def get(self) -> dict[str, Any] | None:
        """The next message of the application; None when it has ended. Raises what it raised."""
        try:
            message = self._out.get(timeout=self._client.timeout)
        except queue.Empty:
            raise TimeoutError(f"no answer within {self._client.timeout:g} seconds") from None
        if message is None:
            self._done.result()
        return message

    def leave(self) -> None:
        """Go away, as a client does, and wait until the application has noticed."""
        self._left = True
        if not self._done.done():
            self.put({"type": self._last, "code": 1001})
        with contextlib.suppress(Exception):
            self._done.result(self._client.timeout)


class TestWebSocket:
    """One websocket that is open. Closed when its ``with`` block ends.

    Attributes:
        subprotocol: what the service chose.
    """

    __test__ = False

    def __init__(self, exchange: _Exchange, accepted: Mapping[str, Any]) -> None:
        self._exchange = exchange
        self.subprotocol: str | None = accepted.get("subprotocol")

    def send(self, message: str | bytes) -> None:
        kind = "text" if isinstance(message, str) else "bytes"
        self._exchange.put({"type": "websocket.receive", kind: message})

    def send_json(self, value: Any) -> None:
        self.send(jsonlib.dumps(value))

    def receive(self) -> str | bytes:
        """The next message.

        Raises:
            WebSocketDisconnect: the service closed the connection.
        """
        message = self._exchange.get()
        if message is None or message["type"] == "websocket.close":
            message = message or {}
            raise WebSocketDisconnect(message.get("code", 1000), message.get("reason") or "")
        found: str | bytes = message["text"] if message.get("text") is not None else message["bytes"]
        return found

    def receive_json(self) -> Any:
        return jsonlib.loads(self.receive())


class TestClient:
    """Calls a service in this process::

        with TestClient(Iris) as client:
            answer = client.post("/predict", json={"x": [1.0, 2.0]})
            assert answer.json() == {"y": 1.0}

    ``on_deployment``, ``on_startup`` and ``on_warmup`` methods run when the block begins, ``on_shutdown`` ones when it
    ends.

    Args:
        service: what to call, or any ASGI application that `Service.to_asgi` gave.
        timeout: seconds to wait for the next piece of an answer.
        headers: sent with every request.
    """

    __test__ = False  # pytest would take it for a test

    def __init__(
        self, service: Service[Any] | Any, *, timeout: float = 30.0, headers: Mapping[str, str] | None = None
    ) -> None:
        self.app: Any = service.to_asgi() if isinstance(service, Service) else service
        self.timeout = timeout
        self._headers = dict(headers or {})
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where the application runs. Raises: UsageError: outside of the ``with`` block."""
        if self._loop is None:
            raise UsageError(
                "the service of a TestClient has not started", hint="use it as: with TestClient(…) as client:"
            )
        return self._loop

    @property
    def instance(self) -> Any:
        """The service's instance."""
        return self.app.instance

    def submit(self, work: Any) -> concurrent.futures.Future[Any]:
        """Run a coroutine where the application runs."""
        try:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        except UsageError:
            work.close()
            raise

    def __enter__(self) -> TestClient:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="test-client", daemon=True)
        self._thread.start()
        try:
            service = getattr(self.app, "service", None)
            if isinstance(service, Service):
                service.prepare()
            self.submit(self.app.start()).result()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.submit(self.app.stop()).result(self.timeout)
        finally:
            self._end()

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def _scope(self, kind: str, path: str, headers: Mapping[str, str], params: Any) -> dict[str, Any]:
        route, _, query = path.partition("?")
        if params:
            query = "&".join(filter(None, (query, urlencode(params, doseq=True))))
        given = {"host": _HOST, **self._headers, **headers}
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "http" if kind == "http" else "ws",
            "path": route,
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in given.items()],
            "client": ("testclient", 50000),
            "server": (_HOST, 80),
            "state": {},
        }

    def _send(
        self,
        method: str,
        path: str,
        json: Any = None,
        content: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Any = None,
        files: Mapping[str, Any] | None = None,
    ) -> tuple[Answer, _Exchange]:
        given = {name.lower(): value for name, value in (headers or {}).items()}
        body = content.encode() if isinstance(content, str) else content or b""
        if files is not None:
            body, media = _form(json or {}, files)
            given = {"content-type": media, **given}
        elif content is None and method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
            body = jsonlib.dumps({} if json is None else json).encode()
            given = {"content-type": "application/json", **given}
        if body:
            given = {"content-length": str(len(body)), **given}
        scope = {**self._scope("http", path, given, params), "method": method}
        first = {"type": "http.request", "body": body, "more_body": False}
        exchange = _Exchange(self, scope, [first], "http.disconnect")
        start = exchange.get()
        if start is None:
            raise ConnectionError("the service sent no answer")

        def pieces() -> Iterator[bytes]:
            while (message := exchange.get()) is not None:
                if message.get("body"):
                    yield message["body"]
                if not message.get("more_body", False):
                    return
            raise ConnectionError("the answer ended before its end")

        return Answer(start["status"], list(start["headers"]), pieces()), exchange

    def request(self, method: str, path: str, **options: Any) -> Answer:
        """One request.

        Args:
            method: of HTTP.
            path: with the service's prefix; it may have a query.
            options: `json` (any value), `content` (bytes or a text), `headers`, `params` (the query), `files` (by
                name: bytes, a path, (file name, bytes), or a list of these; what is in `json` stands beside them).
        """
        answer, exchange = self._send(method, path, **options)
        try:
            _ = answer.content
        finally:
            exchange.leave()
        return answer

    def get(self, path: str, **options: Any) -> Answer:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Answer:
        return self.request("POST", path, **options)

    def put(self, path: str, **options: Any) -> Answer:
        return self.request("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Answer:
        return self.request("PATCH", path, **options)

    def delete(self, path: str, **options: Any) -> Answer:
        return self.request("DELETE", path, **options)

    @contextlib.contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[Answer]:
        """One request whose answer is read piece by piece; the client goes away when the block ends."""
        answer, exchange = self._send(method, path, **options)
        try:
            yield answer
        finally:
            exchange.leave()

    @contextlib.contextmanager
    def websocket(
        self, path: str, *, subprotocols: tuple[str, ...] = (), headers: Mapping[str, str] | None = None
    ) -> Iterator[TestWebSocket]:
        """Open a websocket, once the service accepts it: with its first receive or send, if not before.

        Raises:
            WebSocketDisconnect: the service refused.
        """
        scope = {**self._scope("websocket", path, headers or {}, None), "subprotocols": list(subprotocols)}
        exchange = _Exchange(self, scope, [{"type": "websocket.connect"}], "websocket.disconnect")
        try:
            accepted = exchange.get()
            if accepted is None or accepted["type"] != "websocket.accept":
                closed = accepted or {}
                raise WebSocketDisconnect(closed.get("code", 1006), closed.get("reason") or "refused")
            yield TestWebSocket(exchange, accepted)
        finally:
            exchange.leave()
