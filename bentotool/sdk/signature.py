"""From a Python signature to what is decoded, called and encoded for one API."""

from __future__ import annotations

import inspect
import os
from collections import abc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from bentotool.errors import ConfigError
from bentotool.sdk.answers import encode_answer
from bentotool.sdk.api import ApiOptions
from bentotool.sdk.codecs import Codec, annotate, codec_for, load_foreign, marker, split_annotated
from bentotool.sdk.context import Context
from bentotool.sdk.exceptions import InvalidArgument
from bentotool.sdk.importing import PROBE_VARIABLE
from bentotool.sdk.places import invalid
from bentotool.sdk.response import ServerSentEvent, is_response_type
from bentotool.sdk.routes import RouteParameters, route_names
from bentotool.sdk.validators import ContentType

__all__ = ["MethodSpec", "Parameter", "describe_method"]

_STREAMS = (abc.Generator, abc.AsyncGenerator, abc.Iterator, abc.AsyncIterator, abc.Iterable, abc.AsyncIterable)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
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
    variadic: str | None = None


@dataclass(frozen=True)
class MethodSpec:
    """One API: how its input is read, how it is run, how its output is written.

    Attributes:
        func: the plain function, `self` first.
        kind: ``sync``, ``async``, ``generator`` or ``async_generator``.
        root: the body is the value of the one positional-only parameter.
        context: name of the parameter that gets the `Context`, or None.
        stream_media_type: of a stream, what its annotation asks for.
        spread: names of the fields of an ``input_spec``, which the function gets one by one; None without one.
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
    spread: tuple[str, ...] | None
    _decoder: Any
    _simple: bool

    @property
    def stream(self) -> bool:
        return self.kind in ("generator", "async_generator")

    def decode(self, body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in a JSON body.

        Raises:
            InvalidArgument: not JSON, a missing, unknown or wrong field; ``details["path"]`` says where.
        """
        if not body and self.root and not self.parameters[0].required:
            return (self.parameters[0].default,), {}
        try:
            value = self._decoder.decode(body or b"{}" if not self.root else body)
        except msgspec.ValidationError as error:
            raise invalid(error) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"the body is not JSON: {error}") from None
        except RecursionError:
            raise InvalidArgument("the body is nested too deeply") from None
        return self._bind(value)

    def decode_tree(self, tree: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in plain values with uploads, tensors and arrays in them. Raises as `decode` does."""
        try:
            value = msgspec.convert(tree, self._decoder.type, dec_hook=load_foreign)
        except msgspec.ValidationError as error:
            raise invalid(error) from None
        except RecursionError:
            raise InvalidArgument("the body is nested too deeply") from None
        return self._bind(value)

    def decode_query(self, query: dict[str, str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments in a query string, for an API whose method is GET. Raises as `decode` does."""
        try:
            value = msgspec.convert(query, self._decoder.type, strict=False, dec_hook=load_foreign)
        except msgspec.ValidationError as error:
            raise invalid(error) from None
        return self._bind(value)

    def _bind(self, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.root:
            if self.spread is None:
                return (value,), {}
            return (), {name: value[name] if isinstance(value, dict) else getattr(value, name) for name in self.spread}
        values = msgspec.structs.astuple(value)
        return (values, {}) if self._simple else self._arguments(values)

    def _arguments(self, values: tuple[Any, ...]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for parameter, given in zip(self.parameters, values, strict=True):
            value = parameter.default if given is _ABSENT else given
            if parameter.variadic == "args":
                positional.extend(value)
            elif parameter.variadic == "kwargs":
                for name in value:
                    if name in named or any(name == other.name for other in self.parameters):
                        raise InvalidArgument(f"$.kwargs: {name!r} is given twice", details={"path": "$.kwargs"})
                named.update(value)
            elif parameter.keyword_only:
                named[parameter.name] = value
            else:
                positional.append(value)
        return tuple(positional), named

    def encode(self, value: Any) -> bytes:
        """The body of an answer as JSON or text. NaN and infinity, which JSON does not have, become null.

        Raises:
            InvalidOutput: the value is not of the declared type.
        """
        return encode_answer(self.name, self.output, value)


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


def _description(annotation: Any) -> str | None:
    """What the author says of a parameter: pydantic's ``Field(description=...)`` or msgspec's ``Meta``."""
    for item in split_annotated(annotation)[1]:
        if isinstance(found := getattr(item, "description", None), str):
            return found
    return None


def _variadic(name: str, kind: Any, annotation: Any, where: str) -> Parameter:
    """``*args`` and ``**kwargs``: a list and an object, under these two names whatever the function calls them."""
    item = Any if annotation is inspect.Parameter.empty else annotation
    several = kind is inspect.Parameter.VAR_POSITIONAL
    codec = _codec(list[item] if several else dict[str, item], f"parameter {name!r} of {where}")  # type: ignore[valid-type]
    which = "args" if several else "kwargs"
    return Parameter(which, codec, False, () if several else {}, not several, variadic=which)


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
        if parameter.kind in _VARIADIC:
            found.append(_variadic(name, parameter.kind, annotation, where))
            continue
        roots += parameter.kind is parameter.POSITIONAL_ONLY
        required, default = parameter.default is parameter.empty, parameter.default
        if type(default).__module__.startswith("pydantic"):  # x: int = pydantic.Field(default=3, gt=0)
            annotation = annotate(annotation, (default,))
            required, default = default.is_required(), default.get_default(call_default_factory=True)
        codec = _codec(annotation, f"parameter {name!r} of {where}")
        text = _description(annotation)
        # what stands behind the context is given by name, as the context is
        by_name = parameter.kind is parameter.KEYWORD_ONLY or context is not None
        found.append(Parameter(name, codec, required, default, by_name, text))
    if roots and (roots != 1 or len(found) != 1):
        raise ConfigError(f"{where}: a positional-only parameter is the whole body, so it stands alone")
    return found, bool(roots), context


def _input_type(name: str, parameters: list[Parameter]) -> Any:
    fields: list[Any] = []
    for parameter in parameters:
        wire = read_type(parameter.codec)
        if parameter.required:
            fields.append((parameter.name, wire))
        else:
            # a default is the author's own value: it is passed as it is, not decoded
            fields.append((parameter.name, wire, msgspec.field(default_factory=lambda: _ABSENT)))
    return msgspec.defstruct(f"{name}Input", fields, forbid_unknown_fields=True, kw_only=True, gc=False)


def read_type(codec: Codec) -> Any:
    """The type that msgspec decodes a whole value of a codec as."""
    return codec.wire if codec.load is None else marker(codec, "value")


def _whole_input(declared: Any, where: str) -> tuple[list[Parameter], bool]:
    """The parameters of an API with an ``input_spec``: one, which is the whole body."""
    return [Parameter("input", _codec(declared, f"input_spec of {where}"), True, None, False)], True


def _field_names(declared: Any, where: str) -> tuple[str, ...]:
    names = getattr(declared, "model_fields", None) or getattr(declared, "__struct_fields__", None)
    names = names or getattr(declared, "__dataclass_fields__", None) or getattr(declared, "__required_keys__", None)
    if not names:
        raise ConfigError(f"{where}: an input_spec is a model with fields", hint="give a pydantic model or a dataclass")
    return tuple(getattr(declared, "__annotations__", names) if hasattr(declared, "__required_keys__") else names)


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
    options: ApiOptions, parameters: list[Parameter], output: Codec, context: str | None, kind: str, where: str
) -> None:
    if len(parameters) != 1 or context is not None:
        raise ConfigError(f"{where}: a batchable API has exactly one parameter and no context")
    if kind in ("generator", "async_generator"):
        raise ConfigError(f"{where}: a stream cannot be batchable")
    if parameters[0].codec.batching is None:
        raise ConfigError(
            f"{where}: a batchable API takes an array or a list", hint="annotate it as np.ndarray or list[...]"
        )
    for codec, dimension in zip((parameters[0].codec, output), options.batch_dim, strict=True):
        try:
            _ = codec.batching(dimension) if codec.batching is not None else None
        except TypeError as error:
            raise ConfigError(f"{dimension} is not a dimension here: {error}", path=(where, "batch_dim")) from None


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
    spread = None
    if options.input_spec is not None:
        parameters, root, spread = *_whole_input(options.input_spec, where), _field_names(options.input_spec, where)
    parameters, in_route = _split_route(route, parameters, where)
    if options.batchable and in_route:
        raise ConfigError(f"{where}: a batchable API has no parameters in its route")
    returned, metadata = split_annotated(hints.get("return", inspect.Parameter.empty))
    media = next((item.content_type for item in metadata if isinstance(item, ContentType)), None)
    if kind in ("generator", "async_generator"):
        item = get_args(returned)[0] if get_origin(returned) in _STREAMS and get_args(returned) else Any
        media = "text/event-stream" if item is ServerSentEvent else media
        output = _codec(item, f"output of {where}")
    else:
        annotation = options.output_spec or hints.get("return", inspect.Parameter.empty)
        annotation = Any if is_response_type(annotation) else annotation
        output = _codec(annotation, f"output of {where}")
    if options.batchable:
        _check_batchable(options, parameters, output, context, kind, where)
    wire = read_type(parameters[0].codec) if root else _input_type(name, parameters)
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
        spread=spread,
        _simple=all(p.required and not p.keyword_only for p in parameters),
    )
