"""Routes with parameters: ``/items/{id}``, and ``/files/{name:path}`` for what may hold slashes."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bentotool.errors import ConfigError
from bentotool.sdk.codecs import Codec, load_foreign
from bentotool.sdk.exceptions import InvalidArgument
from bentotool.sdk.places import locate

__all__ = ["RouteParameters", "read_route", "route_names"]

_PART = re.compile(r"\{([^{}]*)\}")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:path)?")


@functools.lru_cache(maxsize=1024)
def read_route(route: str) -> tuple[tuple[str, ...], re.Pattern[str]]:
    """The names in a route, and what matches it.

    Raises:
        ConfigError: braces that hold no name, or one name twice.
    """
    names: list[str] = []
    pattern, end = "", 0
    for found in _PART.finditer(route):
        named = _NAME.fullmatch(found.group(1))
        if named is None:
            raise ConfigError(f"route {route!r}: {found.group()} holds no name", hint="write /items/{id}")
        if named.group(1) in names:
            raise ConfigError(f"route {route!r} has two parameters named {named.group(1)!r}")
        names.append(named.group(1))
        pattern += re.escape(route[end : found.start()]) + ("(.+)" if named.group(2) else "([^/]+)")
        end = found.end()
    rest = route[end:]
    if "{" in _PART.sub("", route) or "}" in _PART.sub("", route):
        raise ConfigError(f"route {route!r} has a brace without its other", hint="write /items/{id}")
    return tuple(names), re.compile(pattern + re.escape(rest))


def route_names(route: str) -> tuple[str, ...]:
    """The names of a route's parameters. Raises as `read_route`."""
    return read_route(route)[0]


def plain_route(route: str) -> str:
    """The route as OpenAPI writes it: ``{name:path}`` becomes ``{name}``."""
    return route.replace(":path}", "}")


@dataclass(frozen=True)
class RouteParameters:
    """The parameters of one API that are read from its path.

    Args:
        codecs: by name.
    """

    codecs: Mapping[str, Codec]
    descriptions: Mapping[str, str] = field(default_factory=dict)

    def load(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """The values for the call.

        Raises:
            InvalidArgument: a text is not of the declared type; ``details["path"]`` names the parameter.
        """
        values: dict[str, Any] = {}
        for name, text in texts.items():
            codec = self.codecs.get(name)
            if codec is None:
                continue
            try:
                value = msgspec.convert(text, codec.wire, strict=False, dec_hook=load_foreign)
                values[name] = value if codec.load is None else codec.load(value)
            except (msgspec.ValidationError, ValueError, TypeError, OverflowError) as error:
                what, path = locate(str(error), f"$.{name}")
                raise InvalidArgument(f"{path}: {what}", details={"path": path}) from None
        return values


def matcher(templates: Iterable[str]) -> Callable[[str], tuple[str, dict[str, str]] | None]:
    """A search for the route that a path is of, the most exact first: ``(route, texts by name)``."""
    compiled = [(route, *read_route(route)) for route in templates]
    # a letter of the route itself says more than a parameter, and one without slashes more than one with them
    compiled.sort(key=lambda entry: (":path}" in entry[0], len(entry[1]), -len(_PART.sub("", entry[0]))))

    def find(path: str) -> tuple[str, dict[str, str]] | None:
        for route, names, pattern in compiled:
            found = pattern.fullmatch(path)
            if found is not None:
                return route, dict(zip(names, found.groups(), strict=True))
        return None

    return find
