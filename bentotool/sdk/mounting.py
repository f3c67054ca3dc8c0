"""Whole applications inside a service: ``@asgi_app(app, path="/ui")``, WSGI, and FastAPI routes written as methods."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

from bentotool.errors import ConfigError

__all__ = ["Mount", "asgi_app", "declared_mounts", "make_mount", "mount_asgi_app", "wsgi_app"]

T = TypeVar("T")
_MARK = "__bentotool_mounts__"
_PATH = re.compile(r"(/[A-Za-z0-9_.~%@:-]+)*")


@dataclass(frozen=True)
class Mount:
    """One application.

    Attributes:
        path: below the service's prefix, without a slash at its end; empty for the root.
        name: for schemas.
        wsgi: called as WSGI, in threads.
    """

    app: Any
    path: str
    name: str
    wsgi: bool = False


def make_mount(app: Any, path: str, name: str | None, *, wsgi: bool = False) -> Mount:
    """A checked mount.

    Raises:
        ConfigError: not a path, or not an application.
    """
    trimmed = path.rstrip("/")
    if not _PATH.fullmatch(trimmed):
        raise ConfigError(f"{path!r} is not a path to mount an application at", hint='write path="/ui"')
    if not callable(app):
        raise ConfigError(f"{type(app).__name__} at {path!r} is not an application", hint="mount an ASGI application")
    return Mount(app, trimmed, name or trimmed.strip("/").replace("/", "_") or "root", wsgi)


def _mounting(app: Any, path: str, name: str | None, wsgi: bool) -> Callable[[T], T]:
    mount = make_mount(app, path, name, wsgi=wsgi)

    def decorate(target: T) -> T:
        if hasattr(target, "add_mount"):  # a declared service: the decorator stands above @service
            target.add_mount(mount)
        elif isinstance(target, type):
            setattr(target, _MARK, (*vars(target).get(_MARK, ()), mount))
        else:
            raise ConfigError(f"an application is mounted on a service, not on {target!r}")
        return target

    return decorate


def asgi_app(app: Any, path: str = "/", name: str | None = None) -> Callable[[T], T]:
    """Mount an ASGI application (FastAPI, Starlette, Litestar, ...) on a service, above or below ``@service``.

    Routes of a FastAPI application may be methods of the service's class: ``self`` is its instance there.
    """
    return _mounting(app, path, name, wsgi=False)


mount_asgi_app = asgi_app
"""BentoML's other name for it."""


def wsgi_app(app: Any, path: str = "/", name: str | None = None) -> Callable[[T], T]:
    """Mount a WSGI application (Flask, Django, ...) on a service; it is called in threads."""
    return _mounting(app, path, name, wsgi=True)


def declared_mounts(inner: type) -> list[Mount]:
    """What decorators left on a class and its bases."""
    return [mount for cls in reversed(inner.__mro__) for mount in vars(cls).get(_MARK, ())]


def bind_routes(mount: Mount, inner: type, instance: Callable[[], Any]) -> None:
    """Give the methods of a class that are routes of a FastAPI application their ``self``.

    FastAPI reads a route's signature when the route is declared, in the body of the class, and takes ``self`` for a
    query parameter. So the signature is changed and the route is declared again, in its place.

    Args:
        instance: gives the service's instance, once it runs.
    """
    routes = getattr(getattr(mount.app, "router", None), "routes", None)
    if not isinstance(routes, list) or type(mount.app).__module__.partition(".")[0] != "fastapi":
        return
    methods = {id(value) for cls in inner.__mro__ for value in vars(cls).values() if inspect.isfunction(value)}
    changed: set[int] = set()

    async def current() -> Any:
        return instance()

    for position, route in enumerate(routes):
        endpoint = getattr(route, "endpoint", None)
        dependant = hasattr(route, "dependant")  # a plain Starlette route takes a request, and no self
        if dependant and endpoint is not None and _take_self(endpoint, methods, current, changed):
            taken = inspect.signature(type(route).__init__).parameters
            given = {name: getattr(route, name) for name in taken if name != "self" and hasattr(route, name)}
            routes[position] = type(route)(**given)


def _take_self(func: Any, methods: set[int], current: Any, changed: set[int]) -> bool:
    """Change a function's signature, and those of its dependencies; whether there was anything to change."""
    if not inspect.isfunction(func):
        return False
    signature = inspect.signature(func)
    found = False
    for parameter in signature.parameters.values():
        for mark in (parameter.default, *get_args(parameter.annotation)[1:]):
            dependency = getattr(mark, "dependency", None)
            if dependency is not None and dependency is not current:
                found |= _take_self(dependency, methods, current, changed)
    if id(func) in methods and next(iter(signature.parameters), None) == "self":
        if id(func) not in changed:
            depends = importlib.import_module("fastapi").Depends  # there is no such route without it
            first, *rest = signature.parameters.values()
            given = first.replace(default=depends(current), kind=inspect.Parameter.KEYWORD_ONLY)
            ordered = [entry.replace(kind=inspect.Parameter.KEYWORD_ONLY) for entry in rest]
            func.__signature__ = signature.replace(parameters=[given, *ordered])  # type: ignore[attr-defined]
            changed.add(id(func))
        found = True
    return found or id(func) in changed
