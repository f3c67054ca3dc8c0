"""``@websocket``: a method that talks to its caller as long as both like."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints, overload

from bentotool.errors import ConfigError
from bentotool.sdk.codecs import codec_for
from bentotool.sdk.context import Context, Request
from bentotool.sdk.exceptions import InvalidArgument, ServiceError
from bentotool.sdk.routes import RouteParameters, route_names

__all__ = ["WebSocket", "WebSocketDisconnect", "WebSocketSpec", "describe_websocket", "websocket"]

F = TypeVar("F", bound=Callable[..., Any])
_MARK = "__bentotool_websocket__"
_NO_STATUS = 1005


class WebSocketDisconnect(ServiceError):
    """The other side closed the connection, or the server is going down (1012).

    Attributes:
        close_code: of RFC 6455.
        reason: what the other side said.
    """

    code = "websocket_closed"
    http_status = 499

    def __init__(self, close_code: int = 1000, reason: str = "") -> None:
        super().__init__(f"the websocket was closed with {close_code}{': ' + reason if reason else ''}")
        self.close_code, self.reason = close_code, reason


class WebSocket:
    """One connection. It is accepted with the first thing that is sent or received, if not before.

    Iterating gives messages, texts as `str` and binary ones as `bytes`, until the other side leaves.

    Args:
        scope: ASGI's.
        path_params: what the route's ``{names}`` stand for.
    """

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
        path_params: Mapping[str, str] | None = None,
    ) -> None:
        self.request = Request({"method": "GET", **scope}, path_params=path_params)
        self._receive, self._send = receive, send
        self.accepted = self.closed = False

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def query_params(self) -> dict[str, str]:
        return self.request.query_params

    @property
    def path_params(self) -> Mapping[str, str]:
        return self.request.path_params

    @property
    def cookies(self) -> dict[str, str]:
        return self.request.cookies

    @property
    def client(self) -> tuple[str, int] | None:
        return self.request.client

    @property
    def subprotocols(self) -> Sequence[str]:
        """What the caller offers."""
        return tuple(self.request.scope.get("subprotocols", ()))

    async def accept(self, subprotocol: str | None = None, headers: Mapping[str, str] | None = None) -> None:
        """Open the connection; a second call does nothing.

        Raises:
            WebSocketDisconnect: the caller left.
        """
        if self.accepted or self.closed:
            return
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        self.accepted = True
        await self._put({"type": "websocket.accept", "subprotocol": subprotocol, "headers": raw})

    async def _put(self, message: dict[str, Any]) -> None:
        if self.closed:
            raise WebSocketDisconnect(1006, "nothing can be sent any more")
        try:
            await self._send(message)
        except (OSError, RuntimeError) as error:  # what servers raise when the other side has left
            self.closed = True
            raise WebSocketDisconnect(1006, "the connection is gone") from error

    async def receive(self) -> str | bytes:
        """The next message.

        Raises:
            WebSocketDisconnect: there is none: the connection is closed.
        """
        await self.accept()
        if self.closed:
            raise WebSocketDisconnect(1006, "it is closed")
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.closed = True
            raise WebSocketDisconnect(message.get("code") or _NO_STATUS, message.get("reason") or "")
        text = message.get("text")
        found: str | bytes = text if text is not None else message["bytes"]
        return found

    async def receive_text(self) -> str:
        """The next message, which must be a text. Raises `InvalidArgument` beside what `receive` raises."""
        found = await self.receive()
        if not isinstance(found, str):
            raise InvalidArgument("a text message was expected, and a binary one came")
        return found

    async def receive_bytes(self) -> bytes:
        """The next message, which must be binary. Raises `InvalidArgument` beside what `receive` raises."""
        found = await self.receive()
        if isinstance(found, str):
            raise InvalidArgument("a binary message was expected, and a text came")
        return found

    async def receive_json(self) -> Any:
        """The next message as JSON. Raises `InvalidArgument` beside what `receive` raises."""
        try:
            return json.loads(await self.receive())
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"the message is not JSON: {error}") from None

    async def send(self, message: str | bytes) -> None:
        """Send a text, or binary data.

        Raises:
            WebSocketDisconnect: the other side has left.
        """
        await self.accept()
        kind = "text" if isinstance(message, str) else "bytes"
        await self._put({"type": "websocket.send", kind: message})

    async def send_text(self, message: str) -> None:
        await self.send(message)

    async def send_bytes(self, message: bytes) -> None:
        await self.send(message)

    async def send_json(self, value: Any) -> None:
        """Send anything that has a JSON form, as a text."""
        import msgspec

        from bentotool.sdk.codecs import to_plain

        await self.send(msgspec.json.encode(value, enc_hook=to_plain).decode())

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection; before it was accepted the caller gets 403. A second call does nothing."""
        if not self.closed:
            self.closed = True
            # a close frame has room for 123 bytes
            short = reason.encode()[:123].decode("utf-8", "ignore")
            try:
                await self._send({"type": "websocket.close", "code": code, "reason": short})
            except (OSError, RuntimeError):
                return  # gone already

    async def __aiter__(self) -> AsyncIterator[str | bytes]:
        while True:
            try:
                message = await self.receive()
            except WebSocketDisconnect:
                return
            yield message


@dataclass(frozen=True)
class WebSocketSpec:
    """One ``@websocket`` method.

    Attributes:
        func: the plain function, `self` first.
        socket: name of the parameter that gets the `WebSocket`.
        context: name of the parameter that gets the `Context`, or None.
        parameters: from the route and the query, by name.
        required: those of them that a call must have.
    """

    name: str
    route: str
    func: Callable[..., Any]
    socket: str
    context: str | None
    parameters: RouteParameters
    required: tuple[str, ...]
    doc: str

    def load(self, path: Mapping[str, str], query: Mapping[str, str]) -> dict[str, Any]:
        """The arguments of a call, beside the socket.

        Raises:
            InvalidArgument: one is missing or wrong.
        """
        texts = {**query, **path}
        for name in self.required:
            if name not in texts:
                raise InvalidArgument(f"$.{name}: required in the query, and not given", details={"path": f"$.{name}"})
        return self.parameters.load({name: texts[name] for name in self.parameters.codecs if name in texts})


@overload
def websocket(target: F, /) -> F: ...
@overload
def websocket(target: str, /, *, name: str | None = None) -> Callable[[F], F]: ...
@overload
def websocket(*, route: str | None = None, name: str | None = None) -> Callable[[F], F]: ...
def websocket(target: Any = None, /, *, route: str | None = None, name: str | None = None) -> Any:
    """Answer websockets with an ``async def`` method: ``async def chat(self, socket: bentotool.WebSocket)``.

    Args:
        route: path, by default ``/<name>``; ``/rooms/{id}`` gives the parameter `id`. Other parameters are read from
            the query.
        name: by default the function's.
    """
    if isinstance(target, str):
        target, route = None, target

    def mark(func: F) -> F:
        setattr(func, _MARK, (route, name))
        return func

    return mark if target is None else mark(target)


def is_websocket(func: object) -> bool:
    return hasattr(func, _MARK)


def describe_websocket(service: str, attribute: str, func: Callable[..., Any]) -> WebSocketSpec:
    """Read one ``@websocket`` method.

    Raises:
        ConfigError: it is not ``async def``, takes no socket, or its route names what it does not take.
    """
    route, given = getattr(func, _MARK)
    name = given or attribute
    where = f"websocket {service}.{attribute}"
    if not inspect.iscoroutinefunction(func):
        raise ConfigError(f"{where} is not a coroutine", hint=f"write async def {attribute}(self, socket)")
    route = route if route is not None else f"/{name}"
    route = route if route.startswith("/") else f"/{route}"
    try:
        hints = get_type_hints(func, include_extras=True)
    except NameError as error:
        raise ConfigError(f"an annotation of {where} is not defined: {error}") from error
    socket = context = None
    codecs, required = {}, []
    for parameter in list(inspect.signature(func).parameters.values())[1:]:
        annotation = hints.get(parameter.name, str)
        if socket is None and (annotation is WebSocket or parameter.name not in hints):
            socket = parameter.name
        elif annotation is Context or (parameter.name in ("ctx", "context") and parameter.name not in hints):
            context = parameter.name
        else:
            try:
                codecs[parameter.name] = codec_for(annotation)
            except TypeError as error:
                raise ConfigError(f"parameter {parameter.name!r} of {where}: {error}") from error
            if parameter.default is parameter.empty:
                required.append(parameter.name)
    if socket is None:
        raise ConfigError(f"{where} takes no socket", hint=f"async def {attribute}(self, socket: bentotool.WebSocket)")
    if missing := [entry for entry in route_names(route) if entry not in codecs]:
        raise ConfigError(f"{where}: the route has {{{missing[0]}}} and the function no such parameter")
    parameters, doc = RouteParameters(codecs), inspect.getdoc(func) or ""
    return WebSocketSpec(name, route, func, socket, context, parameters, tuple(required), doc)
