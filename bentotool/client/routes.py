"""What ``/schema.json`` says of a service: its APIs, as something to call and as something to read.

The document comes from another machine, so it is data: names from it become attributes and parameters only where they
are plain identifiers, and nothing in it is run.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bentotool.errors import NotFoundError, RemoteError, UsageError

__all__ = ["Route", "Routes", "is_name", "read_routes", "type_text"]

_SCALARS = {"integer": "int", "number": "float", "boolean": "bool", "null": "None", "string": "str"}
_DEEPEST = 8


def is_name(text: object) -> bool:
    """Whether a text can be a parameter or an attribute, and does not look like one of Python's own."""
    return (
        isinstance(text, str)
        and text.isascii()
        and text.isidentifier()
        and not keyword.iskeyword(text)
        and not text.startswith("__")
    )


def _union(parts: list[str]) -> str:
    return " | ".join(dict.fromkeys(parts)) or "Any"


def type_text(schema: Any, depth: int = 0) -> str:
    """A type for a schema, as Python source made of a fixed vocabulary; ``Any`` for all that is not known."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return "Any"
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list):
            return _union([type_text(part, depth + 1) for part in schema[word]])
    kind = schema.get("type")
    if isinstance(kind, list):
        return _union([type_text({**schema, "type": part}, depth + 1) for part in kind])
    if kind == "string" and schema.get("format") == "binary":
        return "bytes"
    if kind == "array":
        return f"list[{type_text(schema.get('items'), depth + 1)}]"
    if kind == "object":
        return f"dict[str, {type_text(schema.get('additionalProperties'), depth + 1)}]"
    return _SCALARS.get(kind, "Any") if isinstance(kind, str) else "Any"


def has_files(schema: Any) -> bool:
    """Whether a value of this schema travels as a file, or as several."""
    if not isinstance(schema, Mapping):
        return False
    if schema.get("type") == "file":
        return True
    if schema.get("type") == "array":
        return has_files(schema.get("items"))
    return any(has_files(part) for word in ("anyOf", "oneOf") for part in schema.get(word) or ())


@dataclass(frozen=True)
class Route:
    """One API.

    Attributes:
        attribute: under which the client has it.
        path: without the service's prefix.
        input: schema of the body.
        output: schema of the answer.
        native: the server is bentotool: its streams have borders.
        placed: schemas of the parameters that stand in the path.
        order: of all arguments, where some stand in the path.
    """

    name: str
    attribute: str
    path: str
    method: str = "POST"
    doc: str = ""
    input: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    is_task: bool = False
    native: bool = False
    placed: Mapping[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()

    @property
    def is_stream(self) -> bool:
        return bool(self.output.get("is_stream"))

    @property
    def root(self) -> bool:
        """The body is the one argument itself."""
        return bool(self.input.get("root_input"))

    @property
    def properties(self) -> Mapping[str, Any]:
        found = self.input.get("properties")
        return found if isinstance(found, Mapping) else {}

    @property
    def named(self) -> Mapping[str, Any]:
        """Schemas of all arguments by name, those in the path too, in the order of the function."""
        known = {**self.properties, **self.placed}
        return {**{name: known[name] for name in self.order if name in known}, **known}

    @property
    def required(self) -> set[str]:
        found = self.input.get("required")
        body = {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()
        return body | set(self.placed)

    def arguments(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments by name.

        Raises:
            UsageError: too many, unknown, twice, or missing ones.
        """
        names = list(self.named)
        if len(args) > len(names):
            raise UsageError(f"{self.name} takes {len(names)} arguments, not {len(args)}", hint=self.usage)
        values = dict(zip(names, args, strict=False))
        for name, value in named.items():
            if name in values:
                raise UsageError(f"{self.name} got argument {name!r} twice", hint=self.usage)
            if name not in names and not self.open:
                raise UsageError(f"{self.name} has no argument {name!r}", hint=self.usage)
            values[name] = value
        missing = [name for name in names if name in self.required and name not in values]
        if missing:
            raise UsageError(f"{self.name} needs {', '.join(missing)} too", hint=self.usage)
        return values

    @property
    def open(self) -> bool:
        """It takes arguments that it does not name."""
        return bool(self.input.get("additionalProperties")) or (not self.properties and "type" not in self.input)

    @property
    def usage(self) -> str:
        return f"use {self.attribute}{self.signature}"

    @property
    def signature(self) -> inspect.Signature:
        """For ``help()`` and editors."""
        returned = "Iterator[Any]" if self.is_stream else type_text(self.output)
        if self.root:
            only = [
                inspect.Parameter("value", inspect.Parameter.POSITIONAL_ONLY, annotation=_Text(type_text(self.input)))
            ]
            return inspect.Signature(only, return_annotation=_Text(returned))
        required: list[inspect.Parameter] = []
        optional: list[inspect.Parameter] = []
        for name, schema in self.named.items():
            if not is_name(name):
                continue
            default: Any = inspect.Parameter.empty
            if name not in self.required:
                default = schema.get("default", ...) if isinstance(schema, Mapping) else ...
            parameter = inspect.Parameter(
                name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                annotation=_Text(type_text(schema)),
                default=default,
            )
            (required if default is inspect.Parameter.empty else optional).append(parameter)
        # those without a default come first, as Python asks for it; by name they may be given in any order
        return inspect.Signature([*required, *optional], return_annotation=_Text(returned))

    def dress(self, function: Callable[..., Any]) -> Any:
        """Give a function the API's name, text and signature."""
        function.__name__ = function.__qualname__ = self.attribute
        function.__doc__ = self.doc or None
        function.__signature__ = self.signature  # type: ignore[attr-defined]
        return function


class _Text(str):
    """A type as text, shown without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class Routes:
    """The APIs of a service.

    Attributes:
        name: of the service.
        by_name: APIs by name.
        by_attribute: APIs by the attribute of a client.
    """

    def __init__(self, name: str, routes: list[Route]) -> None:
        self.name = name
        self.by_name = {route.name: route for route in routes}
        self.by_attribute = {route.attribute: route for route in routes}

    def find(self, name: str) -> Route:
        """Raises: NotFoundError: there is no such API."""
        if name not in self.by_name:
            known = ", ".join(self.by_name) or "none"
            raise NotFoundError(f"service {self.name} has no API {name!r}", hint=f"it has: {known}")
        return self.by_name[name]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def read_routes(document: Any, taken: Callable[[str], bool] = lambda _name: False) -> Routes:
    """Read a ``/schema.json`` of bentotool, or of BentoML 1.4.

    Args:
        taken: whether a client has an attribute of that name already; then the API is ``api_<name>``.

    Raises:
        RemoteError: it is none.
    """
    if not isinstance(document, Mapping) or not isinstance(document.get("routes"), list):
        raise RemoteError("the service's /schema.json is not one", hint="is this the address of a service?")
    routes = []
    for entry in document["routes"]:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            continue
        name, path = entry["name"], entry.get("route")
        if not isinstance(path, str) or not path.startswith("/") or path.startswith("//"):
            continue  # an address of another host is no path
        method, placed = entry.get("method"), _mapping(entry.get("path_parameters"))
        order = placed.get("order")
        routes.append(
            Route(
                name=name,
                attribute=f"api_{name}" if taken(name) else name,
                path=path,
                method=method if isinstance(method, str) else "POST",
                doc=_text(entry.get("description")) or _text(entry.get("doc")),
                input=_mapping(entry.get("input")),
                output=_mapping(entry.get("output")),
                is_task=entry.get("is_task") is True,
                native=method is not None,
                placed=_mapping(placed.get("properties")),
                order=tuple(map(_text, order)) if isinstance(order, list) else (),
            )
        )
    return Routes(_text(document.get("name")) or "service", routes)
