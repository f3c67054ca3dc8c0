"""The body of a call: JSON, a form with files, one file, or tensors in binary."""

from __future__ import annotations

import io
import mimetypes
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, Any

from bentotool.client.routes import Route, has_files
from bentotool.errors import UsageError

__all__ = ["Prepared", "plain", "prepare"]

_JSON = {"content-type": "application/json"}
_ANYTHING = "application/octet-stream"
_File = tuple[str, Any, str]


@dataclass
class Prepared:
    """What is sent, in the words of httpx.

    Attributes:
        files: parts of a form that are files: name and (file name, content, type).
        opened: files to be closed once the request was sent.
    """

    content: Any = None
    data: dict[str, Any] | None = None
    files: list[tuple[str, _File]] | None = None
    params: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    opened: ExitStack = field(default_factory=ExitStack)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``build_request``."""
        found = {"content": self.content, "data": self.data, "files": self.files, "params": self.params}
        return {"headers": self.headers, **{name: value for name, value in found.items() if value is not None}}

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent a second time as it is."""
        return self.files is None and isinstance(self.content, (bytes, type(None)))


def plain(value: Any) -> Any:
    """What msgspec does not know, as plain values: data frames, tensors of other libraries, numpy, pydantic."""
    package = type(value).__module__.partition(".")[0]
    if package == "pandas":
        return value.to_dict("records") if hasattr(value, "columns") else value.tolist()
    if package == "polars":
        return value.to_dicts() if hasattr(value, "to_dicts") else value.to_list()
    if package in ("torch", "tensorflow", "jax", "jaxlib"):
        return value.detach().cpu().tolist() if package == "torch" else value.numpy().tolist()
    if isinstance(value, PurePath):
        return str(value)
    from bentotool.sdk.codecs import to_plain

    return to_plain(value)


def _shaped(value: Any, schema: Any, route: Route) -> Any:
    """A value in the form its schema asks for: data frames by their orientation; BentoML's bytes, which are UTF-8."""
    if isinstance(value, bytes) and not route.native:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise UsageError("bytes that are not UTF-8 cannot be sent to a BentoML service as JSON") from None
    if isinstance(schema, Mapping) and schema.get("type") == "dataframe" and hasattr(value, "to_dict"):
        return value.to_dict("list" if schema.get("orient") == "columns" else "records")
    return value


def _encode(value: Any) -> bytes:
    import msgspec

    try:
        return msgspec.json.encode(value, enc_hook=plain)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"an argument cannot be sent: {error}") from error


def _guess(name: str) -> str:
    return mimetypes.guess_type(name)[0] or _ANYTHING


def _image(value: Any) -> _File:
    form = value.format or "PNG"
    content = io.BytesIO()
    value.save(content, format=form)
    content.seek(0)
    return f"image.{form.lower()}", content, f"image/{form.lower()}"


def as_file(value: Any, name: str, opened: ExitStack) -> _File:
    """A file to be sent: from a path, bytes, an open file, a PIL image, or (name, content) and (name, content, type).

    Raises:
        UsageError: it is none of these, or there is no such file.
    """
    if isinstance(value, (str, PurePath)):
        path = Path(value)
        try:
            return path.name, opened.enter_context(path.open("rb")), _guess(path.name)
        except OSError as error:
            raise UsageError(f"argument {name!r}: {path} cannot be read: {error.strerror}") from error
    if isinstance(value, (bytes, bytearray, memoryview)):
        return name, bytes(value), _ANYTHING
    if isinstance(value, tuple) and len(value) in (2, 3) and isinstance(value[0], str):
        media = value[2] if len(value) == 3 else None
        return value[0], value[1], str(media or _guess(value[0]))
    if type(value).__module__.partition(".")[0] == "PIL":
        return _image(value)
    if hasattr(value, "read"):
        file: IO[bytes] = value
        found = PurePath(str(getattr(value, "name", name))).name
        return found, file, _guess(found)
    raise UsageError(f"argument {name!r}: a {type(value).__qualname__} is no file", hint="give a path or bytes")


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _form(route: Route, values: dict[str, Any], prepared: Prepared) -> Prepared:
    prepared.data, prepared.files = {}, []
    for name, value in values.items():
        schema = route.properties.get(name)
        if not has_files(schema) or value is None:
            if value is not None or not has_files(schema):
                prepared.data[name] = _encode(_shaped(value, schema, route)).decode()
        elif _is_address(value):
            prepared.data[name] = value  # for the service to fetch, if it may
        else:
            for one in value if isinstance(value, list) else [value]:
                prepared.files.append((name, as_file(one, name, prepared.opened)))
    if not prepared.files:
        if not any(_is_address(value) for value in values.values()):
            # no file after all: a form without one would be of another type
            return Prepared(_encode({k: v for k, v in values.items() if v is not None}), headers=dict(_JSON))
        prepared.files = None
    return prepared


def _root(route: Route, args: tuple[Any, ...], named: Mapping[str, Any], prepared: Prepared) -> Prepared:
    if route.properties and not args:
        args = (dict(named),)
    elif len(args) != 1 or named:
        raise UsageError(f"{route.name} takes one positional argument", hint=route.usage)
    value = args[0]
    if route.input.get("type") == "file":
        _, content, media = as_file(value, "value", prepared.opened)
        prepared.content = content if isinstance(content, bytes) else content.read()
        prepared.headers["content-type"] = media
    elif isinstance(value, bytes) or (isinstance(value, str) and not route.native):
        prepared.content = value if isinstance(value, bytes) else value.encode()
        prepared.headers["content-type"] = _ANYTHING if isinstance(value, bytes) else "text/plain"
    else:
        prepared.content = _encode(_shaped(value, route.input, route))
        prepared.headers.update(_JSON)
    return prepared


def prepare(route: Route, args: tuple[Any, ...], named: Mapping[str, Any]) -> Prepared:
    """The body for a call.

    Raises:
        UsageError: the arguments do not fit, or one of them has no form in which it can be sent.
    """
    prepared = Prepared()
    try:
        if route.root:
            return _root(route, args, named, prepared)
        values = route.arguments(args, named)
        if route.method == "GET":
            prepared.params = {k: v if isinstance(v, str) else _encode(v).decode() for k, v in values.items()}
            return prepared
        if any(has_files(schema) for schema in route.properties.values()):
            return _form(route, values, prepared)
        shaped = {name: _shaped(value, route.properties.get(name), route) for name, value in values.items()}
        prepared.content = _encode(shaped)
        prepared.headers.update(_JSON)
        return prepared
    except BaseException:
        prepared.opened.close()
        raise
