"""A WSGI application (PEP 3333) as an ASGI one: called in threads, its answer sent piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any

from bentotool.runtime.body import Disconnected, pieces
from bentotool.runtime.deadlines import Receive, Scope, Send, disconnect_probe
from bentotool.runtime.lane import Lane
from bentotool.sdk.exceptions import ClientGone

__all__ = ["Wsgi"]

_log = logging.getLogger("bentotool.service")
_THREADS = 10
_WAITING = 1000


class Wsgi:
    """Calls a WSGI application.

    Args:
        app: the application.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._lane = Lane(_THREADS, _WAITING)

    def close(self) -> None:
        self._lane.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            body = b"".join([piece async for piece in pieces(receive, sys.maxsize)])  # its size is bounded before
        except Disconnected:
            return
        loop, gone = asyncio.get_running_loop(), disconnect_probe(receive)

        def sending(message: dict[str, Any]) -> None:
            if gone():
                raise ClientGone("the client went away before its answer was whole")

            # the thread waits: a slow reader holds the application back, and not memory
            async def put() -> None:
                await send(message)

            asyncio.run_coroutine_threadsafe(put(), loop).result()

        with contextlib.suppress(ClientGone):
            await self._lane.run(lambda: self._call(_environ(scope, body), sending), gone=gone)

    def _call(self, environ: dict[str, Any], send: Callable[[dict[str, Any]], None]) -> None:
        answer = _Answer(send)
        pieces: Iterable[bytes] = self._app(environ, answer.start_response)
        try:
            for piece in pieces:
                if piece:
                    answer.put(piece)
            answer.put(b"")
            send({"type": "http.response.body", "body": b""})
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                close()


class _Answer:
    """The status and headers wait for the first piece: until then the application may change its mind."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        self._send = send
        self._start: dict[str, Any] | None = None
        self._begun = False

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        if exc_info is not None and self._begun:
            raise exc_info[1].with_traceback(exc_info[2])
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._start = {"type": "http.response.start", "status": int(status.partition(" ")[0]), "headers": raw}
        return self.put

    def put(self, piece: bytes) -> None:
        if not isinstance(piece, bytes):
            raise TypeError(f"the WSGI application gave {type(piece).__name__} where bytes belong")
        if not self._begun:
            if self._start is None:
                raise RuntimeError("the WSGI application did not call start_response")
            self._begun = True
            self._send(self._start)
        if piece:
            self._send({"type": "http.response.body", "body": piece, "more_body": True})


def _environ(scope: Scope, body: bytes) -> dict[str, Any]:
    root = scope.get("root_path", "")
    host, port = scope.get("server") or ("localhost", 80)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        # PEP 3333: bytes of the path, each as one character
        "SCRIPT_NAME": root.encode().decode("latin-1"),
        "PATH_INFO": scope["path"].removeprefix(root).encode().decode("latin-1"),
        "QUERY_STRING": scope.get("query_string", b"").decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope.get('http_version', '1.1')}",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 0),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if scope.get("client"):
        environ["REMOTE_ADDR"] = scope["client"][0]
    for raw, given in scope["headers"]:
        name, value = raw.decode("latin-1"), given.decode("latin-1")
        if name == "content-type":
            environ["CONTENT_TYPE"] = value
        elif name == "content-length":
            environ["CONTENT_LENGTH"] = value
        elif "_" not in name:  # x_y and x-y would be the same variable: a caller could pass one for the other
            key = "HTTP_" + name.upper().replace("-", "_")
            joined = ";" if name == "cookie" else ","
            environ[key] = f"{environ[key]}{joined}{value}" if key in environ else value
    if body and "CONTENT_LENGTH" not in environ:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ
