"""Which part of the application a path belongs to.

First the exact routes of APIs, then the server's own paths, then routes with parameters, then mounted applications,
the deepest first; what is left is for the pages. So no API and no mount takes a probe away by accident.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from bentotool.runtime.deadlines import Receive, Scope, Send
from bentotool.runtime.mounts import Mounted
from bentotool.runtime.observing import REACHED
from bentotool.sdk.exceptions import ServiceError
from bentotool.sdk.routes import matcher, route_names

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["Handler", "Routes"]

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]
_OWN = ("/livez", "/readyz", "/healthz", "/metrics", "/schema.json", "/docs.json")
_ASSETS = "/assets/"


class _WrongMethod(ServiceError):
    code = "method_not_allowed"
    http_status = 405


class _NotFound(ServiceError):
    code = "not_found"
    http_status = 404


class _NoUpgrade(ServiceError):
    code = "upgrade_required"
    http_status = 426


class Routes:
    """The routes of one application.

    Args:
        app: the application, which has its metrics and limits by now.

    Attributes:
        exact: handlers of routes without parameters, by path and method.
        mounted: applications, the deepest first.
    """

    def __init__(self, app: Application) -> None:
        from bentotool.runtime.pages import make_pages

        service = app.service
        self._app, self._prefix = app, service.path_prefix
        self.exact: dict[str, dict[str, Handler]] = {}
        self._patterned: dict[str, dict[str, Handler]] = {}
        self._sockets: dict[str, Handler] = {}
        self._socket_patterns: dict[str, Handler] = {}
        self._find: Callable[[str], tuple[str, dict[str, str]] | None] | None = None
        self._find_socket: Callable[[str], tuple[str, dict[str, str]] | None] | None = None
        if service.websockets:
            from bentotool.runtime.websockets import WebSocketEndpoint

            for spec in service.websockets.values():
                target = self._socket_patterns if route_names(spec.route) else self._sockets
                target[self._prefix + spec.route] = WebSocketEndpoint(spec, app)
            self._find_socket = matcher(self._socket_patterns) if self._socket_patterns else None
        self.mounted = sorted((Mounted(mount, app) for mount in service.mounts), key=lambda one: -len(one.path))
        own = (*_OWN, *service.config.endpoints.values())
        self._own = frozenset(self._prefix + path for path in own)
        self._root = self._prefix + "/"
        self._pages: Any = make_pages(app)

    def add(self, method: str, route: str, handler: Handler) -> None:
        """Answer a method and a route, which is without the service's prefix."""
        path = self._prefix + route
        if route_names(route):
            self._patterned.setdefault(path, {})[method] = handler
            self._find = matcher(self._patterned)
        else:
            self.exact.setdefault(path, {})[method] = handler

    def template(self, scope: Scope) -> str:
        """The route that a path belongs to, as it was declared and without the service's prefix; empty for none."""
        path: str = scope["path"]
        if scope["type"] == "websocket":
            known, find = path in self._sockets, self._find_socket
        else:
            known, find = path in self.exact or path in self._own or path == self._root, self._find
        if not known and self._is_own(path):
            path = f"{self._prefix}{_ASSETS}{{name}}"
        elif not known:
            found = find(path) if find is not None else None
            mounted = next((f"{one.path}/{{path}}" for one in self.mounted if one.holds(path)), "")
            proxied = f"{self._prefix}/{{path}}" if self._app.proxy is not None else ""
            path = found[0] if found is not None else mounted or proxied
        return path.removeprefix(self._prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        path = scope["path"]
        methods = self.exact.get(path)
        if methods is None:
            methods = self._parameters(path, scope)
        if methods is None:
            await self._elsewhere(scope, receive, send)
            return
        method = scope["method"]
        handler = methods.get(method)
        if handler is not None:
            _reach(scope)
            await handler(scope, receive, send)
        elif method == "HEAD" and "GET" in methods:
            _reach(scope)
            await methods["GET"](scope, receive, _without_body(send))
        elif path == self._root and method in ("GET", "HEAD"):
            await self._elsewhere(scope, receive, send)  # an API at / leaves the page to browsers
        else:
            allowed = ", ".join(sorted(methods))
            error = _WrongMethod(f"{method} is not answered at {path}", hint=f"use {allowed}")
            request_id = self._app.request_id(dict(scope["headers"]))
            await self._app.send_failure(error, send, request_id, path, {"allow": allowed})

    def _is_own(self, path: str) -> bool:
        return path in self._own or path.startswith(self._prefix + _ASSETS)

    def _parameters(self, path: str, scope: Scope) -> dict[str, Handler] | None:
        if self._find is None or self._is_own(path):
            return None
        found = self._find(path)
        if found is None:
            return None
        scope["path_params"] = found[1]
        return self._patterned[found[0]]

    async def _elsewhere(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in self._sockets or (self._find_socket is not None and self._find_socket(path) is not None):
            error = _NoUpgrade(f"{path} is a websocket", hint="open it with a client for websockets")
            request_id = self._app.request_id(dict(scope["headers"]))
            await self._app.send_failure(error, send, request_id, path, {"upgrade": "websocket"})
            return
        if path not in self._own:
            for mounted in self.mounted:
                if mounted.holds(path) and self._gives_way(mounted, scope):
                    _reach(scope)
                    await mounted(scope, receive, send)
                    return
            if self._app.proxy is not None:
                _reach(scope)
                await self._app.proxy(scope, receive, send)
                return
        if path == self._root or self._is_own(path):
            _reach(scope)
        send = _with_id(self._app.request_id(dict(scope["headers"])), send)
        if scope["method"] == "HEAD":  # all there is answers GET; the same without its body
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        await self._pages(scope, receive, send)

    def _gives_way(self, mounted: Mounted, scope: Scope) -> bool:
        """Whether the server's page and its files are the application's: where it has a route for them itself."""
        path = scope["path"]
        if mounted.mount.path or (path != self._root and not path.startswith(self._prefix + _ASSETS)):
            return True
        return mounted.has(scope)

    def has_websocket(self, path: str) -> bool:
        """Whether a websocket is the service's own, or of an application that it mounts."""
        if path in self._sockets or (self._find_socket is not None and self._find_socket(path) is not None):
            return True
        return any(mounted.holds(path) for mounted in self.mounted)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        handler = self._sockets.get(path)
        if handler is None and self._find_socket is not None and (found := self._find_socket(path)) is not None:
            scope["path_params"] = found[1]
            handler = self._socket_patterns[found[0]]
        if handler is None:
            handler = next((mounted for mounted in self.mounted if mounted.holds(path)), None)
        if handler is None:
            handler = self._app.proxy
        if handler is not None:
            await handler(scope, receive, send)
            return
        from bentotool.runtime.gate import refuse_websocket

        await receive()  # websocket.connect
        await refuse_websocket(self._app, _NotFound(f"no websocket is at {path}"), scope, send)


def _with_id(request_id: bytes, send: Send) -> Send:
    """The pages of Litestar know nothing of ids."""

    async def send_named(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"x-request-id", request_id)]}
        await send(message)

    return send_named


def _reach(scope: Scope) -> None:
    """Say that who answers from here on counts its requests itself, or is not to be counted."""
    if (reached := scope.get(REACHED)) is not None:
        reached.append(True)


def _without_body(send: Send) -> Send:
    async def send_head(message: dict[str, Any]) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return send_head
