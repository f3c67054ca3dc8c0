"""A Python module for one service: a class with a typed method for each API.

What is written depends on the schema alone, so the same service gives the same bytes. The schema is data of another
machine: names reach the source only as identifiers, everything else as literals that `ascii` wrote, and types come from
a fixed vocabulary. The module needs nothing but bentotool.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

from bentotool.client.routes import Route, Routes, is_name, read_routes, type_text

__all__ = ["generate_module"]

_HEAD = '''\
"""Client of a service, made by `bentotool client gen`: make it anew rather than edit it."""

# ruff: noqa
from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import EllipsisType
from typing import IO, Any, cast

from bentotool.client.http import AsyncHTTPClient, AsyncTask, SyncHTTPClient, Task

__all__ = {exported}

FileLike = Path | str | bytes | IO[bytes] | tuple[str, bytes] | tuple[str, bytes, str]
'''
_CLASS = '''

class {name}:
    """{title}

    Args:
        url: ``http://host:port`` of the service.
        options: those of `{client}`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.client = {client}(url, **options)

    {make}def {enter}(self) -> {name}:
        {before}return self

    {make}def {leave}(self, *_exc: object) -> None:
        {wait}self.client.close()
'''
_WORD = re.compile(r"[^A-Za-z0-9_]+")
_IMPORTED = {
    *("annotations", "cast", "Any", "Path", "IO", "FileLike", "EllipsisType", "Iterator", "AsyncIterator"),
    *("Task", "AsyncTask", "SyncHTTPClient", "AsyncHTTPClient"),
}
_TYPES = {"int", "float", "bool", "str", "bytes", "list", "dict", "tuple", "object"}
_TAKEN = {"client", *_IMPORTED, *_TYPES}
"""What a method may not be called, since the annotations of the others mean something else by it."""
_LONGEST_NAME = 80


def _identifier(text: str, taken: set[str], fallback: str) -> str:
    """An identifier like `text` that is not in `taken`, and joins it."""
    found = _WORD.sub("_", text).strip("_")[:_LONGEST_NAME] or fallback
    if found[0].isdigit() or keyword.iskeyword(found) or keyword.issoftkeyword(found):
        found = f"{fallback}_{found}"
    base, number = found, 2
    while found in taken:
        found, number = f"{base}_{number}", number + 1
    taken.add(found)
    return found


def _class_name(text: str) -> str:
    words = [word for word in _WORD.sub("_", text).split("_") if word]
    name = "".join(word[:1].upper() + word[1:] for word in words)[:_LONGEST_NAME]
    usable = is_name(name) and not {name, f"Async{name}"} & (_IMPORTED | _TYPES)
    return name if usable else f"Service{name}"


def _takes(schema: Any) -> str:
    """The type of an argument."""
    if isinstance(schema, Mapping) and schema.get("type") == "file":
        return "FileLike"
    if isinstance(schema, Mapping) and schema.get("type") == "array":
        items = schema.get("items")
        if isinstance(items, Mapping) and items.get("type") == "file":
            return "list[FileLike]"
    return type_text(schema)


def _gives(schema: Mapping[str, Any]) -> str:
    """The type of a result."""
    if schema.get("type") == "file":
        return "Any" if schema.get("pil") else "Path"
    return type_text(schema)


def _text(value: str) -> str:
    """A docstring: one line of plain characters."""
    line = " ".join(value.split())[:200]
    return "".join(char if char.isprintable() and char not in '"\\' else "'" for char in line)


class _Parameters:
    """The parameters of one method, and how they are passed on."""

    def __init__(self, route: Route) -> None:
        taken = {"self", "arguments", *_TAKEN}
        self.declared: list[str] = []
        self.passed: list[str] = []
        self.optional: list[tuple[str, str]] = []
        if route.root:
            self.declared.append(f"value: {_takes(route.input)}, /")
            self.passed.append("value")
            return
        for wire, schema in sorted(route.named.items(), key=lambda item: item[0] not in route.required):
            name = _identifier(wire, taken, "argument")
            if wire in route.required:
                self.declared.append(f"{name}: {_takes(schema)}")
                self.passed.append(f"{wire!a}: {name}")
            else:
                self.declared.append(f"{name}: {_optional(_takes(schema))} = ...")
                self.optional.append((wire, name))

    def head(self) -> str:
        return ", ".join(["self", *self.declared])

    def body(self, root: bool) -> list[str]:
        """Statements that leave the arguments in `arguments`."""
        if root:
            return []
        lines = [f"arguments: dict[str, Any] = {{{', '.join(self.passed)}}}"]
        for wire, name in self.optional:
            lines += [f"if {name} is not ...:", f"    arguments[{wire!a}] = {name}"]
        return lines


def _optional(tp: str) -> str:
    return "Any" if tp == "Any" else f"{tp} | EllipsisType"


def _method(route: Route, name: str, asynchronous: bool) -> Iterable[str]:
    parameters = _Parameters(route)
    prefix, wait = ("async ", "await ") if asynchronous else ("", "")
    values = "value" if route.root else "**arguments"
    doc = _text(route.doc) or f"Call {_text(route.name)}."
    head = parameters.head()
    result = _gives(route.output)
    if route.is_stream:
        kind = "AsyncIterator" if asynchronous else "Iterator"
        yield f"    def {name}({head}) -> {kind}[{result}]:"
        yield f'        """{doc}"""'
        yield from (f"        {line}" for line in parameters.body(route.root))
        yield f"        return cast({f'{kind}[{result}]'!a}, self.client.call({route.name!a}, {values}))"
        return
    yield f"    {prefix}def {name}({head}) -> {result}:"
    yield f'        """{doc}"""'
    yield from (f"        {line}" for line in parameters.body(route.root))
    call = f"{wait}self.client.call({route.name!a}, {values})"
    if result == "None":
        yield f"        {call}"
    else:  # a cast to Any would be redundant
        yield f"        return {call}" if result == "Any" else f"        return cast({result!a}, {call})"


def _submitting(route: Route, name: str, asynchronous: bool) -> Iterable[str]:
    parameters = _Parameters(route)
    prefix, wait, kind = ("async ", "await ", "AsyncTask") if asynchronous else ("", "", "Task")
    yield ""
    yield f"    {prefix}def {name}({parameters.head()}) -> {kind}:"
    yield '        """Submit the task; its result comes later."""'
    yield from (f"        {line}" for line in parameters.body(route.root))
    values = "value" if route.root else "**arguments"
    yield f"        return {wait}self.client.submit({route.name!a}, {values})"


def _class(routes: Routes, name: str, asynchronous: bool) -> Iterable[str]:
    client = "AsyncHTTPClient" if asynchronous else "SyncHTTPClient"
    yield _CLASS.format(
        name=name,
        title=f"Service {_text(routes.name)}.",
        client=client,
        make="async " if asynchronous else "",
        enter="__aenter__" if asynchronous else "__enter__",
        leave="__aexit__" if asynchronous else "__exit__",
        before="await self.client.__aenter__()\n        " if asynchronous else "",
        wait="await " if asynchronous else "",
    ).rstrip("\n")
    taken = set(_TAKEN)
    for route in sorted(routes.by_name.values(), key=lambda route: route.name):
        method = _identifier(route.name, taken, "api")
        yield ""
        yield from _method(route, method, asynchronous)
        if route.is_task:
            yield from _submitting(route, _identifier(f"submit_{method}", taken, "api"), asynchronous)


def generate_module(document: Any) -> str:
    """The source of a module for a service.

    Args:
        document: its ``/schema.json``.

    Raises:
        RemoteError: it is none.
    """
    routes = read_routes(document)
    name = _class_name(routes.name)
    exported = sorted([name, f"Async{name}"])
    lines = [_HEAD.replace("{exported}", repr(exported).replace("'", '"')).rstrip("\n")]
    lines += _class(routes, name, False)
    lines += _class(routes, f"Async{name}", True)
    return "\n".join(lines) + "\n"
