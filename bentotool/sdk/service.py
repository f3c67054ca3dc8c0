"""``@service``: a class becomes a declared service."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import inspect
import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from bentotool.errors import ConfigError
from bentotool.sdk.api import hook_of, options_of
from bentotool.sdk.config import ServiceConfig, parse_config
from bentotool.sdk.dependency import Dependency, Handle, graph
from bentotool.sdk.mounting import Mount, bind_routes, declared_mounts, make_mount
from bentotool.sdk.signature import MethodSpec, describe_method
from bentotool.sdk.websocket import WebSocketSpec, describe_websocket, is_websocket

if TYPE_CHECKING:
    from bentotool.sdk.named_arrays import ModelCard

__all__ = ["Service", "service"]

T = TypeVar("T")
_OWN_ROUTES = ("/livez", "/readyz", "/healthz", "/schema.json", "/docs.json")
_OWN = ("name", "image", "description", "path_prefix", "envs", "labels", "cmd")


def _envs(service: str, given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, (list, tuple, type(None))):
        raise ConfigError(f"{given!r} is not a list of variables", path=(f"service {service}", "envs"))
    for number, entry in enumerate(given or ()):
        if not (isinstance(entry, Mapping) and isinstance(entry.get("name"), str) and entry["name"]):
            raise ConfigError(
                f"{entry!r} names no variable",
                path=(f"service {service}", "envs", str(number)),
                hint='as {"name": "NAME", "value": "text"}',
            )
    return [dict(entry) for entry in given or ()]


def _labels(service: str, given: Any) -> dict[str, str]:
    if not isinstance(given, (Mapping, type(None))):
        raise ConfigError(f"{given!r} is not a table of texts", path=(f"service {service}", "labels"))
    return dict(given or {})


class Service(Generic[T]):
    """A declared service. Nothing of the class runs until it is called.

    Attributes:
        name: the service's name.
        inner: the decorated class.
        config: checked options.
        image: what `image=` was given.
        envs: environment variables, ``{"name", "value"}``.
        labels: free text pairs, carried into the Bento.
        middlewares: classes of ASGI middleware and their options, outermost first.
        mounts: whole applications below paths of their own.
        card: of the model that the service is, for the Open Inference Protocol; None where it is more than a model.
    """

    def __init__(self, inner: type[T], options: Mapping[str, Any]) -> None:
        own = {key: options[key] for key in _OWN if key in options}
        self.inner = inner
        self.name: str = own.get("name") or inner.__name__
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}", self.name):
            raise ConfigError(
                f"{self.name!r} cannot be the name of a service", hint="use letters, digits, '-', '_', '.'"
            )
        self.config: ServiceConfig = parse_config(
            self.name, {key: value for key, value in options.items() if key not in _OWN}, declared=_OWN
        )
        self.image: Any = own.get("image")
        self.envs: list[dict[str, Any]] = _envs(self.name, own.get("envs"))
        self.labels: dict[str, str] = _labels(self.name, own.get("labels"))
        self.cmd: list[str] | None = own.get("cmd")
        self.path_prefix: str = (own.get("path_prefix") or "").rstrip("/")
        if not re.fullmatch(r"(/[A-Za-z0-9_.~-]+)*", self.path_prefix):
            raise ConfigError(f"{self.path_prefix!r} is not a path", path=(f"service {self.name}", "path_prefix"))
        self.description: str = own.get("description") or inspect.getdoc(inner) or ""
        self.__doc__ = inner.__doc__
        self.__module__ = inner.__module__
        self.middlewares: list[tuple[Callable[..., Any], dict[str, Any]]] = []
        self.mounts: list[Mount] = []
        self.card: ModelCard | None = None
        self._shared: T | None = None
        self._lock = threading.RLock()

        for mount in declared_mounts(inner):
            self.add_mount(mount)

    def __repr__(self) -> str:
        return f"<Service {self.name}>"

    def __call__(self) -> T:
        """A local instance: no server, no limits, no batching. Its methods are plain calls.

        ``.to_async`` has every method awaitable, ``.to_sync`` every one blocking; ``on_startup`` methods do not run.
        """
        instance: Any = self.inner()
        local = Handle(instance)
        for name in ("to_async", "to_sync"):
            if not hasattr(instance, name):
                with contextlib.suppress(AttributeError):  # a class with __slots__ has no place for it
                    setattr(instance, name, getattr(local, name))
        return instance  # type: ignore[no-any-return]

    def shared_instance(self) -> T:
        """The one instance that other services of this process use."""
        with self._lock:
            if self._shared is None:
                self._shared = self.inner()
            return self._shared

    def forget_instance(self) -> None:
        """Drop the shared instance, when its process is done with it."""
        self._shared = None

    def _attributes(self) -> dict[str, Any]:
        """Attributes of the class and its bases, in order of declaration, bases first."""
        found: dict[str, Any] = {}
        for cls in reversed(self.inner.__mro__[:-1]):
            found.update(vars(cls))
        return found

    @property
    def own_routes(self) -> tuple[str, ...]:
        """Paths that the server answers itself, without the prefix."""
        measured = ("/metrics",) if self.config.metrics_enabled else ()
        return (*_OWN_ROUTES, *measured, *self.config.endpoints.values())

    @functools.cached_property
    def apis(self) -> dict[str, MethodSpec]:
        """The APIs by name.

        Raises:
            ConfigError: a signature has no wire form, two APIs have the same name or route, or the route is one of the
                server's own.
        """
        found: dict[str, MethodSpec] = {}
        routes: dict[str, str] = {}
        for attribute, value in self._attributes().items():
            options = options_of(value)
            if options is None:
                continue
            spec = describe_method(self.name, attribute, value, options)
            if spec.name in found:
                raise ConfigError(f"service {self.name} has two APIs named {spec.name!r}")
            if spec.route in self.own_routes:
                raise ConfigError(
                    f"the server itself answers at {spec.route}",
                    path=(f"API {self.name}.{attribute}", "route"),
                    hint="give the API another route",
                )
            place = f"{options.method} {spec.route}"
            if place in routes:
                raise ConfigError(f"APIs {routes[place]!r} and {spec.name!r} have the same route {spec.route}")
            found[spec.name], routes[place] = spec, spec.name
        return found

    @property
    def dependencies(self) -> dict[str, Dependency[Any]]:
        return {name: value for name, value in self._attributes().items() if isinstance(value, Dependency)}

    @property
    def models(self) -> list[Any]:
        """Model references among the class attributes."""
        return [v for v in self._attributes().values() if getattr(v, "__bentotool_model__", False) is True]

    def hooks(self, kind: str) -> list[str]:
        """Names of the methods marked `on_startup` (``startup``) and the like.

        Raises:
            ConfigError: an ``on_deployment`` method needs an instance, and there is none yet.
        """
        found = {name: value for name, value in self._attributes().items() if hook_of(value) == kind}
        for name, value in found.items():
            # a plain function that takes nothing is called on the class, as BentoML's documentation has it
            if (
                kind == "deployment"
                and not isinstance(value, (staticmethod, classmethod))
                and inspect.signature(value).parameters
            ):
                raise ConfigError(
                    f"{self.name}.{name} runs before there is an instance", hint="write @staticmethod above it"
                )
        return list(found)

    def prepare(self) -> None:
        """Call the ``on_deployment`` methods of the services it depends on, and its own. For the runtime.

        Raises:
            ConfigError: see `hooks`.
        """
        for part in reversed(list(graph(self).values())):
            for name in part.hooks("deployment"):
                result = getattr(part.inner, name)()
                if inspect.iscoroutine(result):
                    asyncio.run(result)

    @functools.cached_property
    def websockets(self) -> dict[str, WebSocketSpec]:
        """The websockets by name.

        Raises:
            ConfigError: a signature does not fit, or two have the same route.
        """
        found: dict[str, WebSocketSpec] = {}
        for attribute, value in self._attributes().items():
            if is_websocket(value):
                spec = describe_websocket(self.name, attribute, value)
                if any(spec.route == other.route or spec.name == other.name for other in found.values()):
                    raise ConfigError(f"service {self.name} has two websockets at {spec.route} or named {spec.name!r}")
                found[spec.name] = spec
        return found

    def mount_asgi_app(self, app: Any, path: str = "/", name: str | None = None) -> None:
        """Mount an ASGI application. Raises: ConfigError: not a path, not an application, or two at one path."""
        self.add_mount(make_mount(app, path, name))

    def mount_wsgi_app(self, app: Any, path: str = "/", name: str | None = None) -> None:
        """Mount a WSGI application, which is called in threads. Raises as `mount_asgi_app`."""
        self.add_mount(make_mount(app, path, name, wsgi=True))

    def add_mount(self, mount: Mount) -> None:
        """Take a checked mount. Raises: ConfigError: there is one at its path."""
        if any(other.path == mount.path for other in self.mounts):
            raise ConfigError(f"service {self.name} has two applications mounted at {mount.path or '/'}")
        bind_routes(mount, self.inner, self.shared_instance)
        self.mounts.append(mount)

    def add_asgi_middleware(self, middleware: Callable[..., Any], **options: Any) -> None:
        """Run ASGI middleware in front of the service's routes; what is added first is outermost.

        Args:
            middleware: called as ``middleware(app, **options)``, gives an ASGI application.
        """
        self.middlewares.append((middleware, options))

    def schema(self) -> dict[str, Any]:
        """The document of ``GET /schema.json``, in BentoML's form."""
        from bentotool.sdk.schema import service_schema

        return service_schema(self)

    def openapi(self) -> dict[str, Any]:
        """The document of ``GET /docs.json``: OpenAPI 3.1."""
        from bentotool.sdk.openapi import openapi_document

        return openapi_document(self)

    def to_asgi(self) -> Any:
        """The service as an ASGI application of one process, for tests and for other servers."""
        # the runtime stands above the SDK, so it is named here and never imported at the top
        return importlib.import_module("bentotool.runtime.app").Application(self)


@overload
def service(inner: type[T], /) -> Service[T]: ...
@overload
def service(**options: Any) -> Callable[[type[T]], Service[T]]: ...
def service(inner: Any = None, /, **options: Any) -> Any:
    """Declare a class as a service.

    Args:
        options: ``name``, ``image``, ``description``, ``path_prefix``, ``envs``, ``labels``, ``cmd`` and the keys of
            `ServiceConfig` in BentoML's form: ``workers``, ``threads``, ``traffic``, ``resources``, ``http``, ...

    Raises:
        ConfigError: an unknown option (with a suggestion), or a wrong value.
    """

    def declare(cls: type[T]) -> Service[T]:
        if not isinstance(cls, type):
            raise ConfigError(f"@service stands on a class, not on {cls!r}")
        return Service(cls, options)

    return declare if inner is None else declare(inner)
