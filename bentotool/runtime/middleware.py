"""ASGI middleware that a Bento names, put around the application."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from bentotool.errors import ServiceLoadError

if TYPE_CHECKING:
    from bentotool.runtime.app import Application

__all__ = ["with_middleware"]

_Message = dict[str, Any]
_ASGI = Callable[[_Message, Callable[[], Awaitable[_Message]], Callable[[_Message], Awaitable[None]]], Awaitable[None]]


def _load(target: str) -> Callable[[Any], _ASGI]:
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
    made: Callable[[Any], _ASGI] = found
    return made


def with_middleware(app: Application, targets: Iterable[str]) -> _ASGI:
    """The application inside its middleware.

    Args:
        app: the innermost application.
        targets: ``package.module:attribute`` of what is called with an application and gives one; outermost first.

    Raises:
        ServiceLoadError: one of them cannot be imported or made.
    """
    names = list(targets)
    if not names:
        return app
    inner: _ASGI = app
    for target in reversed(names):
        make = _load(target)
        try:
            inner = make(inner)
        except Exception as error:
            text = str(error).partition("\n")[0]
            raise ServiceLoadError(f"middleware {target!r}: {type(error).__name__}: {text}") from error
    return _guarded(inner, app)


def _guarded(inner: _ASGI, app: Application) -> _ASGI:
    """Answer at once when a middleware fails, as the application itself does."""

    async def guard(
        scope: _Message, receive: Callable[[], Awaitable[_Message]], send: Callable[[_Message], Awaitable[None]]
    ) -> None:
        started = False

        async def noticing(message: _Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await inner(scope, receive, noticing)
        except Exception as error:
            if started or scope["type"] != "http":
                raise  # the server cuts the connection: the caller sees that the answer is not whole
            await app.send_failure(error, send, app.request_id(dict(scope["headers"])), "a middleware")

    return guard
