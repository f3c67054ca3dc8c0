"""What a class of template arguments asks for: dataclasses and msgspec Structs here, pydantic models by their own."""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from bentotool.errors import ConfigError, UsageError
from bentotool.sdk.secret import Secret

__all__ = ["Form", "FormField", "WrongValue", "form_of", "json_text", "read_json", "secret_in", "shown_type"]


class WrongValue(Exception):
    """A value that does not fit.

    Args:
        name: of the argument; empty where several do not fit together.
        reason: without the value itself.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name, self.reason = name, reason


@dataclass(frozen=True)
class FormField:
    """One argument that a class asks for.

    Args:
        type: in words, e.g. ``list[str]``.
        secret: whether its value may not be recorded.
    """

    name: str
    type: str
    required: bool
    secret: bool


@dataclass(frozen=True)
class Form:
    """A class of arguments.

    Args:
        make: an instance from values by name; raises `WrongValue`.
        dump: the values of an instance by name, as JSON values.
        schema: JSON schema of all of them; defaults of secrets are left out.
        open: whether it takes arguments of any name.
    """

    fields: tuple[FormField, ...]
    make: Callable[[Mapping[str, Any]], Any]
    dump: Callable[[Any], dict[str, Any]]
    schema: dict[str, Any]
    open: bool = False


class _Namespace(SimpleNamespace):
    """Arguments of a service that declares no type; asking for one that was not given says how to give it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise _NotGiven(f"argument {name!r} is missing", hint=f"--arg {name}=VALUE, or args: in the configuration")


class _NotGiven(UsageError, AttributeError):
    """Also an AttributeError, so that ``getattr`` with a default and ``hasattr`` work."""


def form_of(cls: type | None) -> Form:
    """Read a class.

    Raises:
        ConfigError: it is neither a dataclass, a msgspec Struct nor a pydantic model, or has no JSON schema.
    """
    if cls is None:
        schema = {"type": "object", "additionalProperties": {"type": "string"}}
        return Form((), lambda values: _Namespace(**_texts(values)), lambda made: dict(vars(made)), schema, open=True)
    if isinstance(cls, type):
        if any(base.__module__.partition(".")[0] == "pydantic" for base in cls.__mro__) and hasattr(
            cls, "model_fields"
        ):
            from bentotool.sdk.pydantic_arguments import pydantic_form

            return pydantic_form(cls)
        msgspec = sys.modules.get("msgspec")  # a Struct cannot be there without it
        if dataclasses.is_dataclass(cls) or (msgspec is not None and issubclass(cls, msgspec.Struct)):
            return _plain_form(cls)
    raise ConfigError(
        f"use_arguments({getattr(cls, '__name__', cls)!s}) cannot be read",
        hint="give a dataclass, a msgspec.Struct or a pydantic model, or nothing",
    )


def _texts(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json_text(value) for name, value in values.items()}


def json_text(value: Any) -> str:
    """A value as a person would write it after ``--arg``."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def read_json(text: str) -> Any:
    """A list or a table as it is written on a command line, in JSON; None for any other text."""
    try:
        return json.loads(text) if text.lstrip()[:1] in ("[", "{") else None
    except (ValueError, RecursionError):
        return None


def shown_type(tp: Any) -> str:
    """An annotation in words."""
    if isinstance(tp, type) and not typing.get_args(tp):
        return tp.__name__
    if typing.get_origin(tp) is typing.Annotated:
        return shown_type(typing.get_args(tp)[0])
    return repr(tp).replace("typing.", "").replace("bentotool.sdk.secret.", "")[:120]


def secret_in(schema: Any, definitions: Mapping[str, Any], seen: frozenset[str] = frozenset()) -> bool:
    """Whether a JSON schema asks anywhere for something that is only ever written."""
    if isinstance(schema, list):
        return any(secret_in(item, definitions, seen) for item in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("writeOnly") is True:
        return True
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name in definitions and name not in seen and secret_in(definitions[name], definitions, seen | {name}):
        return True
    return any(secret_in(value, definitions, seen) for key, value in schema.items() if key != "default")


def _plain_form(cls: Any) -> Form:
    import msgspec

    def hook(tp: type) -> dict[str, Any]:
        if tp is Secret:
            return {"type": "string", "format": "password", "writeOnly": True}
        raise NotImplementedError

    try:
        types = _types(cls)
        schemas, definitions = msgspec.json.schema_components(
            [item.type for item in types.values()], schema_hook=hook, ref_template="#/$defs/{name}"
        )
    except (TypeError, NameError, NotImplementedError) as error:
        raise ConfigError(f"use_arguments({cls.__name__}): {error}", hint="use types that have a JSON form") from None
    fields, properties = [], {}
    for (name, item), schema in zip(types.items(), schemas, strict=True):
        secret = secret_in(schema, definitions)
        properties[name] = schema if secret or item.required else {**schema, **_default(item.default)}
        fields.append(FormField(name, shown_type(item.type), item.required, secret))
    document: dict[str, Any] = {"type": "object", "title": cls.__name__, "properties": properties}
    document["required"] = [field.name for field in fields if field.required]
    document |= {"$defs": definitions} if definitions else {}

    def make(values: Mapping[str, Any]) -> Any:
        found = {types[name].keyword: _converted(name, value, types[name].type) for name, value in values.items()}
        try:
            return cls(**found)
        except (ValueError, TypeError) as error:
            raise WrongValue("", str(error)) from None

    def dump(made: Any) -> dict[str, Any]:
        values = {name: getattr(made, item.keyword) for name, item in types.items()}
        return {n: msgspec.to_builtins(value, enc_hook=str, order="sorted") for n, value in values.items()}

    return Form(tuple(fields), make, dump, document)


@dataclass(frozen=True)
class _Item:
    """A field of a class: the keyword that sets it, and its default or the maker of that in a tuple."""

    keyword: str
    type: Any
    required: bool
    default: tuple[Any, ...] = ()


def _default(default: tuple[Any, ...]) -> dict[str, Any]:
    import msgspec

    try:
        return {"default": msgspec.to_builtins(default[0], order="sorted")} if default else {}
    except TypeError:
        return {}


def _types(cls: Any) -> dict[str, _Item]:
    """The fields by the argument's name."""
    import msgspec

    if dataclasses.is_dataclass(cls):
        hints, none = typing.get_type_hints(cls, include_extras=True), dataclasses.MISSING
        return {
            item.name: _Item(
                item.name, hints[item.name], item.default is none and item.default_factory is none,
                () if item.default is none else (item.default,),
            )
            for item in dataclasses.fields(cls)
            if item.init
        }  # fmt: skip
    return {
        item.encode_name: _Item(
            item.name, item.type, item.required, () if item.default is msgspec.NODEFAULT else (item.default,)
        )
        for item in msgspec.structs.fields(cls)
    }


def _converted(name: str, value: Any, tp: Any) -> Any:
    import msgspec

    def decode(wanted: type, given: Any) -> Any:
        if wanted is Secret and isinstance(given, str):
            return Secret(given)
        raise msgspec.ValidationError(f"Expected `{wanted.__name__}`, got `{type(given).__name__}`")

    try:
        return msgspec.convert(value, tp, strict=False, dec_hook=decode)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        reason = str(error)
    read = read_json(value) if isinstance(value, str) else None
    if read is not None:
        try:
            return msgspec.convert(read, tp, strict=False, dec_hook=decode)
        except (msgspec.ValidationError, TypeError, ValueError) as error:
            reason = str(error)
    raise WrongValue(name, reason.replace("`", ""))
