"""From a Python signature to what is decoded, called and encoded for one API."""

from __future__ import annotations

import inspect
import os
import re
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from bentotool.errors import ConfigError
from bentotool.sdk.api import ApiOptions
from bentotool.sdk.codecs import Codec, annotate, codec_for, load_foreign, split_annotated, to_plain
from bentotool.sdk.context import Context
from bentotool.sdk.exceptions import InvalidArgument, InvalidOutput
from bentotool.sdk.importing import PROBE_VARIABLE
from bentotool.sdk.response import is_response_type
from bentotool.sdk.routes import RouteParameters, route_names
from bentotool.sdk.validators import ContentType

__all__ = ["MethodSpec", "Parameter", "describe_method"]

_STREAMS = (abc.Generator, abc.AsyncGenerator, abc.Iterator, abc.AsyncIterator, abc.Iterable, abc.AsyncIterable)
_ENCODER = msgspec.json.Encoder(enc_hook=to_plain)
_ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "<absent>"})()


@dataclass(frozen=True)
class Parameter:
    """One input of an API."""

    name: str
    codec: Codec
    required: bool
    default: Any
    keyword_only: bool
    description: str | None = None


def _locate(message: str, prefix: str) -> tuple[str, str]:
    """Take the path out of a message of msgspec's: ``(what, path)``, with `prefix` before the path."""
    found = re.search(r" - at `\$?([^`]*)`$", message)
    what = message[: found.start()] if found else message
    return what[:1].lower() + what[1:], f"{prefix}{found.group(1) if found else ''}"


def _invalid(message: str, prefix: str = "$") -> InvalidArgument:
    what, path = _locate(message, prefix)
    return InvalidArgument(f"{path}: {what}", details={"path": path})


@dataclass(frozen=True)
class MethodSpec:
    """One API: how its input is read, how it is run, how its output is written.

    Attributes:
        func: the plain function, `self` first.
        kind: ``sync``, ``async``, ``generator`` or ``async_generator``.
        root: the body is the value of the one positional-only parameter.
        context: name of the parameter that gets the `Context`, or None.
        stream_media_type: of a stream, what its annotation asks for.
        in_route: the parameters that the route's ``{names}`` stand for; they are in no body and no query.
    """

    name: str
    route: str
    func: Callable[..., Any]
    options: ApiOptions
    kind: str
    parameters: tuple[Parameter, ...]
    root: bool
    context: str | None
    output: Codec
    stream_media_type: str | None
    doc: str
    in_route: RouteParameters | None
    _decoder: Any
    _checked_output: Any
    _simple: bool

    @property
    def stream(self) -> bool:
        return self.kind in ("generator", "async_generator")

    def decode(self, body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in a JSON body.

        Raises:
            InvalidArgument: not JSON, a missing, unknown or wrong field; ``details["path"]`` says where.
        """
        try:
            value = self._decoder.decode(body or b"{}" if not self.root else body)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"the body is not JSON: {error}") from None
        except RecursionError:
            raise InvalidArgument("the body is nested too deeply") from None
        return self._bind(value)

    def decode_query(self, query: dict[str, str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in a query string, for an API whose method is GET. Raises as `decode` does."""
        try:
            value = msgspec.convert(query, self._decoder.type, strict=False, dec_hook=load_foreign)
        except msgspec.ValidationError as error:
            raise _invalid(str(error)) from None
        return self._bind(value)

    def _bind(self, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.root:
            return (self._load(self.parameters[0], value, "$"),), {}
        values = msgspec.structs.astuple(value)
        if self._simple:
            return values, {}
        return self._arguments(values)

    def _arguments(self, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter, given in zip(self.parameters, values, strict=True):
            value = parameter.default if given is _ABSENT else self._load(parameter, given, f"$.{parameter.name}")
            if parameter.keyword_only:
                named[parameter.name] = value
            else:
                positional.append(value)
        return tuple(positional), named

    @staticmethod
    def _load(parameter: Parameter, value: Any, path: str) -> Any:
        if parameter.codec.load is None:
            return value
        try:
            return parameter.codec.load(value)
        except (ValueError, TypeError, OverflowError) as error:
            raise _invalid(str(error), path) from None

    def encode(self, value: Any) -> bytes:
        """The body of an answer. NaN and infinity, which JSON does not have, become null.

        Raises:
            InvalidOutput: the value is not of the declared type.
        """
        try:
            if self.output.dump is not None:
                value = self.output.dump(value)
            elif self._checked_output is not Any:
                value = self._check(value)
            if isinstance(value, str) and self.output.media_type.startswith("text/"):
                return value.encode()
            if isinstance(value, bytes) and self.output.media_type != "application/json":
                return value
            return _ENCODER.encode(value)
        except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
            what, path = _locate(str(error), "$")
            raise InvalidOutput(f"{self.name} returned something it does not declare at {path}: {what}") from error

    def _check(self, value: Any) -> Any:
        try:
            return msgspec.convert(value, self._checked_output, dec_hook=load_foreign)
        except msgspec.ValidationError:
            # numpy scalars and models inside containers are right once they are plain
            plain = msgspec.to_builtins(value, enc_hook=to_plain)
            return msgspec.convert(plain, self._checked_output, dec_hook=load_foreign)


def _hints(func: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return get_type_hints(func, include_extras=True)
    except NameError as error:
        if os.environ.get(PROBE_VARIABLE):  # the package that has the type may be absent while probing
            return {}
        raise ConfigError(f"an annotation of {where} is not defined: {error}") from error


def _codec(annotation: Any, where: str) -> Codec:
    try:
        return codec_for(Any if annotation is inspect.Parameter.empty else annotation)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _is_context(name: str, annotation: Any) -> bool:
    return annotation is Context or (name in ("ctx", "context") and annotation is inspect.Parameter.empty)


def _parameters(
    func: Callable[..., Any], hints: dict[str, Any], where: str
) -> tuple[list[Parameter], bool, str | None]:
    found: list[Parameter] = []
    context, roots = None, 0
    for position, (name, parameter) in enumerate(inspect.signature(func).parameters.items()):
        if position == 0:
            continue  # self
        annotation = hints.get(name, inspect.Parameter.empty)
        if _is_context(name, annotation):
            context = name
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"{where}: *{name} has no place in an API", hint="declare a list or a dict parameter")
        roots += parameter.kind is parameter.POSITIONAL_ONLY
        required, default = parameter.default is parameter.empty, parameter.default
        if type(default).__module__.startswith("pydantic"):  # x: int = pydantic.Field(default=3, gt=0)
            annotation = annotate(annotation, (default,))
            required, default = default.is_required(), default.get_default(call_default_factory=True)
        codec = _codec(annotation, f"parameter {name!r} of {where}")
        found.append(Parameter(name, codec, required, default, parameter.kind is parameter.KEYWORD_ONLY))
    if roots and (roots != 1 or len(found) != 1):
        raise ConfigError(f"{where}: a positional-only parameter is the whole body, so it stands alone")
    return found, bool(roots), context


def _input_type(name: str, parameters: list[Parameter]) -> Any:
    fields: list[Any] = []
    for parameter in parameters:
        if parameter.required:
            fields.append((parameter.name, parameter.codec.wire))
        else:
            # a default is the author's own value: it is passed as it is, not decoded
            fields.append((parameter.name, parameter.codec.wire, msgspec.field(default_factory=lambda: _ABSENT)))
    return msgspec.defstruct(f"{name}Input", fields, forbid_unknown_fields=True, kw_only=True, gc=False)


def _kind(func: Callable[..., Any]) -> str:
    if inspect.isasyncgenfunction(func):
        return "async_generator"
    if inspect.iscoroutinefunction(func):
        return "async"
    return "generator" if inspect.isgeneratorfunction(func) else "sync"


def _split_route(route: str, parameters: list[Parameter], where: str) -> tuple[list[Parameter], RouteParameters | None]:
    """Take out what the route's ``{names}`` stand for; what is left is given by name, wherever it stands."""
    names = route_names(route)
    if not names:
        return parameters, None
    found = {parameter.name: parameter for parameter in parameters if parameter.name in names}
    if missing := [name for name in names if name not in found]:
        raise ConfigError(
            f"{where}: the route has {{{missing[0]}}} and the function no such parameter",
            hint=f"add the parameter {missing[0]!r}",
        )
    described = {name: parameter.description or "" for name, parameter in found.items()}
    rest = [replace(parameter, keyword_only=True) for parameter in parameters if parameter.name not in found]
    return rest, RouteParameters({name: parameter.codec for name, parameter in found.items()}, described)


def _check_batchable(
    options: ApiOptions, parameters: list[Parameter], context: str | None, kind: str, where: str
) -> None:
    if len(parameters) != 1 or context is not None:
        raise ConfigError(f"{where}: a batchable API has exactly one parameter and no context")
    if kind in ("generator", "async_generator"):
        raise ConfigError(f"{where}: a stream cannot be batchable")
    if parameters[0].codec.batching is None:
        raise ConfigError(
            f"{where}: a batchable API takes an array or a list", hint="annotate it as np.ndarray or list[...]"
        )


def describe_method(service: str, attribute: str, func: Callable[..., Any], options: ApiOptions) -> MethodSpec:
    """Read one API of a service.

    Raises:
        ConfigError: a parameter or return type has no wire form, or the options do not fit the signature.
    """
    name = options.name or attribute
    where = f"API {service}.{attribute}"
    route = options.route if options.route is not None else ("/" if attribute == "__call__" else f"/{name}")
    kind, hints = _kind(func), _hints(func, where)
    parameters, root, context = _parameters(func, hints, where)
    parameters, in_route = _split_route(route, parameters, where)
    if options.batchable:
        if in_route:
            raise ConfigError(f"{where}: a batchable API has no parameters in its route")
        _check_batchable(options, parameters, context, kind, where)
    returned, metadata = split_annotated(hints.get("return", inspect.Parameter.empty))
    media = next((item.content_type for item in metadata if isinstance(item, ContentType)), None)
    if kind in ("generator", "async_generator"):
        item = get_args(returned)[0] if get_origin(returned) in _STREAMS and get_args(returned) else Any
        output = _codec(item, f"output of {where}")
    else:
        annotation = options.output_spec or hints.get("return", inspect.Parameter.empty)
        annotation = Any if is_response_type(annotation) else annotation
        output = _codec(annotation, f"output of {where}")
    wire = parameters[0].codec.wire if root else _input_type(name, parameters)
    return MethodSpec(
        name=name,
        route=route if route.startswith("/") else f"/{route}",
        func=func,
        options=options,
        kind=kind,
        parameters=tuple(parameters),
        root=root,
        context=context,
        output=output,
        stream_media_type=media,
        doc=options.description or inspect.getdoc(func) or "",
        in_route=in_route,
        _decoder=msgspec.json.Decoder(wire, dec_hook=load_foreign),
        _checked_output=output.wire,
        _simple=all(p.codec.load is None and p.required and not p.keyword_only for p in parameters),
    )
