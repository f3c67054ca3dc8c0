"""Answering websockets: admission, the handler's life, how it ends on the wire."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING, Any

from bentotool.errors import ServiceLoadError
from bentotool.runtime.deadlines import Receive, Scope, Send
from bentotool.runtime.gate import refuse_websocket
from bentotool.sdk.context import Context
from bentotool.sdk.exceptions import ServiceError
from bentotool.sdk.websocket import WebSocket, WebSocketDisconnect, WebSocketSpec

if TYPE_CHECKING:
    from bentotool.runtime.app import Application
    from bentotool.sdk.service import Service

__all__ = ["WEBSOCKET_LIBRARY", "WebSocketEndpoint", "websocket_protocol"]

_log = logging.getLogger("bentotool.service")
_REFUSED, _FAILED, _LATER = 1008, 1011, 1013
WEBSOCKET_LIBRARY = "wsproto>=1.2"
"""What a Bento gets whose service talks over websockets, or may: an application that is mounted does not say."""
_LIBRARIES = (("wsproto", "wsproto"), ("websockets", "bentotool.runtime.refusals:RefusingProtocol"))
_OVERLOADED = (429, 503)


def websocket_protocol(service: Service[Any]) -> str:
    """What uvicorn calls the library that reads websockets here, or what to import; ``none`` where none is needed.

    Raises:
        ServiceLoadError: the service has a websocket, and there is no library for it.
    """
    if not service.websockets and not service.mounts:
        return "none"
    for module, name in _LIBRARIES:
        if importlib.util.find_spec(module) is not None:
            return name
    if service.websockets:
        first = next(iter(service.websockets))
        raise ServiceLoadError(
            f"{service.name}.{first} is a websocket, and no library for websockets is installed",
            hint="pip install wsproto; a Bento gets it by itself when it is built",
        )
    return "none"


class WebSocketEndpoint:
    """Serves one ``@websocket`` method.

    Args:
        spec: the method.
        app: the application it belongs to.
    """

    def __init__(self, spec: WebSocketSpec, app: Application) -> None:
        self.spec, self._app = spec, app
        self._metrics = app.metrics.socket(spec.route) if app.metrics else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app, spec = self._app, self.spec
        socket: WebSocket | None = None
        context: Context | None = None
        await receive()  # websocket.connect
        app.request_id(dict(scope["headers"]))
        app.in_flight += 1
        if self._metrics is not None:
            receive, send = self._metrics.around(receive, send)
            self._metrics.connections.inc()
        try:
            app.admit()
            socket = WebSocket(scope, receive, send, scope.get("path_params"))
            named = spec.load(socket.path_params, socket.query_params)
            named[spec.socket] = socket
            if spec.context is not None:
                named[spec.context] = context = Context(socket.request, app.state)
            await spec.func.__get__(app.instance)(**named)
            await socket.close()
        except WebSocketDisconnect:
            if socket is not None and not socket.closed:
                await socket.close()
        except Exception as error:
            if socket is None or not (socket.accepted or socket.closed):
                await refuse_websocket(app, error, scope, send)
            else:
                await self._close(socket, error)
        finally:
            app.in_flight -= 1
            if self._metrics is not None:
                self._metrics.connections.dec()
            if context is not None:
                context.close()

    async def _close(self, socket: WebSocket, error: Exception) -> None:
        """Say why in the close frame: what the service means for the caller, and nothing of any other failure."""
        if isinstance(error, ServiceError) and error.http_status < 500:
            await socket.close(_REFUSED, error.message)
        elif isinstance(error, ServiceError) and error.http_status in _OVERLOADED:
            await socket.close(_LATER, error.message)
        else:
            _log.error("websocket %s failed", self.spec.name, exc_info=error)
            await socket.close(_FAILED, "the service failed")
