"""The body of a call: JSON, a form with files, one file, or tensors in binary."""

from __future__ import annotations

import io
import mimetypes
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import IO, Any
from urllib.parse import quote

from bentotool.client.routes import Route, has_files
from bentotool.errors import UsageError
from bentotool.sdk.wording import kind_of

__all__ = ["Prepared", "plain", "prepare"]

_JSON = {"content-type": "application/json"}
_ANYTHING = "application/octet-stream"
_STEPS = re.compile(r"[.\[\]]")
_File = tuple[str, Any, str]


@dataclass
class Prepared:
    """What is sent, in the words of httpx.

    Attributes:
        path: of the call, with what stands in the route.
        files: parts of a form that are files: name and (file name, content, type).
        opened: files to be closed once the request was sent.
        binary: tensors are sent as such, which an older service may not read.
    """

    content: Any = None
    data: dict[str, Any] | None = None
    files: list[tuple[str, _File]] | None = None
    params: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    opened: ExitStack = field(default_factory=ExitStack)
    binary: bool = False
    path: str = ""

    def options(self) -> dict[str, Any]:
        """Keyword arguments of ``build_request``."""
        found = {"content": self.content, "data": self.data, "files": self.files, "params": self.params}
        return {"headers": self.headers, **{name: value for name, value in found.items() if value is not None}}

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent a second time: httpx begins with an open file anew where it can."""
        contents = [file[1] for _, file in self.files or ()]
        return isinstance(self.content, (bytes, type(None))) and all(
            isinstance(content, (bytes, str)) or (hasattr(content, "seekable") and content.seekable())
            for content in contents
        )


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
    if isinstance(value, PurePath) and isinstance(schema, Mapping) and schema.get("format") == "binary":
        value = _content(value)
    if isinstance(value, bytes) and not route.native:
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise UsageError("bytes that are not UTF-8 cannot be sent to a BentoML service as JSON") from None
    if isinstance(schema, Mapping) and schema.get("type") == "dataframe" and hasattr(value, "to_dict"):
        return value.to_dict("list" if schema.get("orient") == "columns" else "records")
    return value


def _content(path: PurePath) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


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
    raise UsageError(f"argument {name!r}: {kind_of(value)} is no file", hint="give a path or bytes")


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
    if isinstance(value, Mapping) and any(has_files(schema) for schema in route.properties.values()):
        return _form(route, dict(value), prepared)
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


def _is_array(value: Any) -> bool:
    """An array of numbers of numpy or torch, which a body of tensors can hold."""
    package = type(value).__module__.partition(".")[0]
    if package == "torch" and hasattr(value, "detach"):
        return True
    return package == "numpy" and hasattr(value, "ndim") and value.ndim > 0 and value.dtype.kind in "biufc"


def _parted(value: Any, place: str, arrays: dict[str, Any]) -> Any:
    """A value without its arrays, which are put into `arrays` by their places, as ``rows[2].name``.

    Raises:
        ValueError: the name of a field on the way would be read as several steps.
    """
    if _is_array(value):
        arrays[place] = value
        return None
    if isinstance(value, (list, tuple)):
        return [_parted(item, f"{place}[{index}]", arrays) for index, item in enumerate(value)]
    if isinstance(value, dict):
        inner: dict[str, Any] = {}
        rest = {name: _parted(item, f"{place}.{name}", inner) for name, item in value.items()}
        if inner and not all(isinstance(name, str) and name and not _STEPS.search(name) for name in value):
            raise ValueError(place)
        arrays.update(inner)
        return rest
    return value


def _tensors(route: Route, values: Mapping[str, Any]) -> Prepared | None:
    """Arguments as a body of tensors, the others beside them; None where there is none, or one without that form."""
    from bentotool.sdk.tensors import MEDIA_TYPE, encode_tensors, tensor_of

    arrays: dict[str, Any] = {}
    try:
        rest = {
            name: _parted(_shaped(value, route.properties.get(name), route), name, arrays)
            for name, value in values.items()
        }
        if not arrays:
            return None
        tensors = {
            place: tensor_of(array.detach().cpu().numpy() if hasattr(array, "detach") else array)
            for place, array in arrays.items()
        }
        rest = {name: value for name, value in rest.items() if name not in arrays}
        pieces = encode_tensors(tensors, _encode(rest) if rest else None)
    except (TypeError, ValueError):
        return None
    return Prepared(b"".join(pieces), headers={"content-type": MEDIA_TYPE}, binary=True)


def _text(value: Any) -> str:
    """A value as it stands in a path or a query: as in JSON, without quotes."""
    import msgspec

    if isinstance(value, str):
        return value
    encoded = _encode(value)
    return str(msgspec.json.decode(encoded)) if encoded.startswith(b'"') else encoded.decode()


def _path(route: Route, values: dict[str, Any]) -> str:
    """The path of a call; what stands in it is taken out of `values`.

    Raises:
        UsageError: one of them cannot stand there.
    """
    path = route.path
    for name in route.placed:
        text = _text(values.pop(name))
        whole = f"{{{name}:path}}" in path
        if not text or ("/" in text and not whole):
            raise UsageError(f"argument {name!r}: {text[:40]!r} cannot stand in the path {route.path}")
        path = path.replace(f"{{{name}:path}}" if whole else f"{{{name}}}", quote(text, safe="/" if whole else ""))
    return path


def _body(route: Route, args: tuple[Any, ...], named: Mapping[str, Any], binary: bool) -> Prepared:
    prepared = Prepared()
    try:
        in_query = route.method in ("GET", "DELETE")
        binary = binary and route.native and not in_query
        if route.root:
            alone = binary and len(args) == 1 and not named and _is_array(args[0])
            if alone and (made := _tensors(route, {"value": args[0]})):
                return made
            return _root(route, args, named, prepared)
        values = route.arguments(args, named)
        if in_query:
            prepared.params = {
                name: [_text(one) for one in value] if isinstance(value, (list, tuple, set)) else _text(value)
                for name, value in values.items()
                if value is not None
            }
            return prepared
        if any(has_files(schema) for schema in route.properties.values()):
            return _form(route, values, prepared)
        if binary and (made := _tensors(route, values)):
            return made
        shaped = {name: _shaped(value, route.properties.get(name), route) for name, value in values.items()}
        prepared.content = _encode(shaped)
        prepared.headers.update(_JSON)
        return prepared
    except BaseException:
        prepared.opened.close()
        raise


def prepare(route: Route, args: tuple[Any, ...], named: Mapping[str, Any], *, binary: bool = False) -> Prepared:
    """What is sent for a call.

    Args:
        binary: the service may read tensors in binary.

    Raises:
        UsageError: the arguments do not fit, or one of them has no form in which it can be sent.
    """
    path = route.path
    if route.placed:
        named = dict(named) if route.root else route.arguments(args, named)
        args = args if route.root else ()
        if missing := [name for name in route.placed if name not in named]:
            raise UsageError(f"{route.name} needs {', '.join(missing)} too", hint=route.usage)
        path = _path(route, named)
        route = replace(route, placed={})
    prepared = _body(route, args, named, binary)
    prepared.path = path
    return prepared
