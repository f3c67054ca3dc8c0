"""ASGI middleware, the service's own and what a Bento names, put around the application's routes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bentotool.errors import ServiceLoadError
from bentotool.runtime.deadlines import Receive, Scope, Send, disconnect_probe
from bentotool.runtime.gate import ASGI, refuse_websocket

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["around", "with_middleware"]


def _load(target: str) -> Callable[[Any], ASGI]:
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise ServiceLoadError(f"middleware {target!r}: {type(error).__name__}: {text}") from error
    if not callable(found):
        raise ServiceLoadError(f"middleware {target!r} is not callable", hint="name a class or function that takes app")
    made: Callable[[Any], ASGI] = found
    return made


def with_middleware(app: Application, targets: Iterable[str]) -> Application:
    """The application, with middleware that a Bento names around its routes and its service's own middleware.

    Args:
        app: the application.
        targets: ``package.module:attribute`` of what is called with an application and gives one; outermost first.

    Raises:
        ServiceLoadError: one of them cannot be imported or made.
    """
    for target in reversed(list(targets)):
        app.use(_load(target), target)
    return app


def around(inner: ASGI, make: Callable[[Any], Any], name: str, app: Application) -> ASGI:
    """One middleware around an application. When it fails it is answered at once, as the application itself does.

    Raises:
        ServiceLoadError: it cannot be made.
    """
    try:
        made: ASGI = make(inner)
    except Exception as error:
        text = str(error).partition("\n")[0]
        raise ServiceLoadError(f"middleware {name!r}: {type(error).__name__}: {text}") from error

    async def guard(scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def noticing(message: dict[str, Any]) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await made(scope, receive, noticing)
            if not started and scope["type"] == "http" and not disconnect_probe(receive)():
                raise RuntimeError(f"middleware {name} answered nothing")
        except Exception as error:
            if started:
                raise  # the server cuts the connection: the caller sees that the answer is not whole
            if scope["type"] == "websocket":
                await refuse_websocket(app, error, scope, send)
            else:
                await app.send_failure(error, send, app.request_id(dict(scope["headers"])), "a middleware")

    return guard
