"""What every request passes before it is answered: CORS outermost, then the Host check, the keys, the middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bentotool.runtime.access import KeyRing, Unauthorized, ask_service, load_keys
from bentotool.runtime.cors import Cors
from bentotool.runtime.deadlines import Receive, Scope, Send
from bentotool.runtime.hosts import HostCheck
from bentotool.sdk.context import Request
from bentotool.sdk.exceptions import ServiceError

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["ASGI", "Gate"]

ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_POLICY_VIOLATION = 1008


class WrongHost(ServiceError):
    code = "host_not_served"
    http_status = 421


class WrongOrigin(ServiceError):
    code = "origin_not_allowed"
    http_status = 403


class Gate:
    """Lets a request through to `inner`, or answers it.

    Args:
        app: the application.
        loopback: the server listens on a loopback address only.

    Attributes:
        inner: the application's routes, inside their middleware.
        open: nothing is to be checked but the Host header: then the application asks that alone.
    """

    def __init__(self, app: Application, loopback: bool) -> None:
        config = app.service.config
        self._app = app
        self.exempt = frozenset(("/livez", "/readyz", "/healthz", *config.endpoints.values()))
        self.hosts = HostCheck(config.allowed_hosts, loopback, self.exempt)
        self._cors = Cors(config.cors) if config.cors is not None else None
        self._keys: KeyRing | None = load_keys(config.api_keys) if config.api_keys is not None else None
        self._question = "__authenticate__" if hasattr(app.service.inner, "__authenticate__") else None
        self.inner: ASGI = app.answer
        self.open = self._cors is None and self._keys is None and self._question is None

    def wrap(self, inner: ASGI) -> None:
        """Put middleware around what answers."""
        self.inner = inner
        self.open = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        cors = self._cors
        if cors is not None:
            send = cors.around(scope, send)
        try:
            self._check_host(scope)
            if cors is not None and cors.is_preflight(scope):
                await cors.answer_preflight(scope, send)  # a browser shows no key when it asks if it may
                return
            await self._check_caller(scope)
        except Exception as error:
            headers = dict(scope["headers"])
            extra = {"www-authenticate": "Bearer"} if isinstance(error, Unauthorized) else None
            await self._app.send_failure(error, send, self._app.request_id(headers), scope["path"], extra)
            return
        await self.inner(scope, receive, send)

    def _check_host(self, scope: Scope) -> None:
        if self.hosts.active and not self.hosts.allows(scope, self._app.service.path_prefix):
            host = self.hosts.of(scope)
            raise WrongHost(f"host {host!r} is not served here", hint="set http.allowed_hosts")

    async def _check_caller(self, scope: Scope) -> None:
        if scope["path"].removeprefix(self._app.service.path_prefix) in self.exempt:
            return
        if self._keys is not None:
            self._keys.check(dict(scope["headers"]))
        if self._question is not None:
            if self._app.instance is None:
                raise ServiceError("the service has not started", 503, retry_after=1.0)
            await ask_service(getattr(self._app.instance, self._question), Request(scope))

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_host(scope)
            self._check_origin(dict(scope["headers"]), scope.get("scheme", "ws"))
            await self._check_caller(scope)
        except Exception as error:
            await receive()  # websocket.connect
            await refuse_websocket(self._app, error, scope, send)
            return
        await self.inner(scope, receive, send)

    def _check_origin(self, headers: Mapping[bytes, bytes], scheme: str) -> None:
        """A page may open a websocket to any server, with its visitor's cookies and without asking: so its origin has
        to be the server's own, or one that ``http.cors`` allows. Who is no browser sends none.
        """
        raw = headers.get(b"origin")
        if raw is None:
            return
        origin = raw.decode("latin-1")
        if self._cors is not None and self._cors.allows(origin):
            return
        try:
            parts = urlsplit(origin)
            theirs = (parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme))
            own = urlsplit(f"//{headers.get(b'host', b'').decode('latin-1')}")
            ours = (own.hostname, own.port or _DEFAULT_PORTS.get(scheme))
        except ValueError:
            theirs, ours = (None, None), ("", None)
        if theirs != ours:
            raise WrongOrigin(
                f"a page of {origin} may not open a websocket here", hint="set http.cors.access_control_allow_origins"
            )


async def refuse_websocket(app: Application, error: Exception, scope: Scope, send: Send) -> None:
    """Refuse a websocket that asks to be opened: with the error itself where the server can, else with 403."""
    if "websocket.http.response" in scope.get("extensions", {}):

        async def sending(message: dict[str, Any]) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        await app.send_failure(error, sending, app.request_id(dict(scope["headers"])), scope["path"])
    else:
        await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": str(error)[:120]})
