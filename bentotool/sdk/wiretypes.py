"""From an annotation to a type that msgspec decodes, with markers in the places of types it does not know."""

from __future__ import annotations

import dataclasses
import datetime
import types
import typing
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Union, get_args, get_origin

import msgspec

from bentotool.sdk.codecs import (
    Codec,
    Describe,
    Marker,
    annotate,
    codec_for,
    family_of,
    foreign_codec,
    load_foreign,
    marker,
    native_schema,
    split_annotated,
    to_plain,
    uses_pydantic,
)

__all__ = ["Found", "wire_type"]

_MOMENT = msgspec.Meta(extra_json_schema={"format": "date-time"})
_NO_JSON: Any = type("NoJson", (), {})()


class Found:
    """What `wire_type` met on its way.

    Attributes:
        any: a type that msgspec does not know.
        files: a file, which also travels in a form.
        arrays: an array, which also travels in binary.
        whole_body: the annotation is a file, or one of several things of which one is.
        render: of the file among the members of a union.
    """

    def __init__(self) -> None:
        self.any = self.files = self.arrays = self.whole_body = False
        self.render: Callable[[Any], Any] | None = None
        self.open: dict[Any, Any] = {}


def _is_foreign(annotation: Any, seen: tuple[Any, ...] = ()) -> bool:
    tp, _ = split_annotated(annotation)
    if uses_pydantic(annotation) or family_of(annotation) is not None or _plain_defaults(tp):
        return True
    if tp in seen:
        return False
    fields = _fields(tp)
    inner = tuple(hint for hint, _ in fields.values()) if fields is not None else get_args(tp)
    return any(_is_foreign(item, (*seen, tp)) for item in inner)


def _plain_defaults(tp: Any) -> dict[str, Any]:
    """Defaults of a dataclass which msgspec leaves out of an instance's own fields, as the class has them too.

    Its encoder writes an instance's own fields, so what was read from ``{}`` would be written as ``{}``.
    """
    if not dataclasses.is_dataclass(tp) or not isinstance(tp, type) or not tp.__dictoffset__:
        return {}
    fields = dataclasses.fields(tp)
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def _fields(tp: Any) -> dict[str, tuple[Any, bool]] | None:
    """Name → (annotation, required) of a dataclass, TypedDict or Struct; None for anything else.

    A Struct that is written under other names than its own is read by msgspec alone.
    """
    if not isinstance(tp, type):
        return None
    if issubclass(tp, msgspec.Struct):
        if tp.__struct_config__.tag is not None or tp.__struct_fields__ != tp.__struct_encode_fields__:
            return None
        return {field.name: (field.type, field.required) for field in msgspec.structs.fields(tp)}
    if dataclasses.is_dataclass(tp):
        hints = typing.get_type_hints(tp, include_extras=True)
        missing = dataclasses.MISSING
        return {
            field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
            for field in dataclasses.fields(tp)
            if field.init
        }
    if hasattr(tp, "__required_keys__"):
        hints = typing.get_type_hints(tp, include_extras=True)
        return {name: (_bare(hint), name in tp.__required_keys__) for name, hint in hints.items()}
    return None


def _bare(hint: Any) -> Any:
    """A field's annotation without ``Required[...]`` and ``NotRequired[...]`` around it."""
    name = getattr(get_origin(hint), "_name", "")
    return get_args(hint)[0] if name in ("Required", "NotRequired", "ReadOnly") else hint


def wire_type(annotation: Any, found: Found) -> Any:
    """The type for msgspec.

    Raises:
        TypeError: a part of the annotation cannot be sent.
    """
    tp, metadata = split_annotated(annotation)
    constraints = tuple(item for item in metadata if isinstance(item, msgspec.Meta))
    if not _is_foreign(annotation):
        return annotate(tp, (*constraints, _MOMENT) if tp is datetime.datetime and not constraints else constraints)
    found.any = True
    codec = foreign_codec(annotation)
    if codec is not None:
        found.arrays |= codec.arrays
        found.files |= codec.files
        return marker(codec, getattr(tp, "__name__", "value"))
    if get_origin(tp) in (Union, types.UnionType):
        return annotate(_union(tp, metadata, found), constraints)
    fields = _fields(tp)
    if fields is not None:
        return _record(tp, fields, found)
    origin, arguments = get_origin(tp), get_args(tp)
    if origin is None or not arguments:
        return annotate(tp, constraints)
    inner = tuple(item if item is Ellipsis else wire_type(item, found) for item in arguments)
    return annotate(origin[inner if len(inner) > 1 else inner[0]], constraints)


def _union(tp: Any, metadata: tuple[Any, ...], found: Found) -> Any:
    """A union as it is where msgspec takes it, which knows of one custom type beside None; else a marker for it all."""
    members = [member for member in get_args(tp) if member is not type(None)]
    nullable = len(members) < len(get_args(tp))
    codecs = [_member(member, metadata, found) for member in members]
    found.arrays |= any(codec.arrays for codec in codecs)
    found.files |= any(codec.files for codec in codecs)
    found.whole_body |= any(codec.file for codec in codecs)
    renders = [codec.render for codec in codecs if codec.render is not None]
    if renders:
        found.render = _first_rendering(renders)
    if len(codecs) == 1:
        one = codecs[0].wire if codecs[0].load is None else marker(codecs[0], "value")
        return Union[one, None]  # noqa: UP007 - a type as a value
    whole = marker(_choice(codecs), "value")
    return Union[whole, None] if nullable else whole  # noqa: UP007


def _member(member: Any, metadata: tuple[Any, ...], found: Found) -> Codec:
    """The codec of one of a union's types."""
    if family_of(member) or uses_pydantic(member) or not _is_foreign(member):
        return codec_for(annotate(member, metadata) if family_of(member) else member)
    wire = wire_type(member, found)
    if not isinstance(wire, Marker):
        msgspec.json.Decoder(wire, dec_hook=load_foreign)  # raises TypeError where msgspec does not take it
        return Codec(wire, native_schema(wire), foreign=True)

    def describe(template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        return wire.codec.describe(template, tensors)

    # what contains itself is still being made: its reader is asked for when something is read
    return Codec(Any, describe, load=lambda value: load_foreign(wire, value), foreign=True)


def _first_rendering(renders: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def render(value: Any) -> Any:
        for one in renders:
            made = one(value)
            if made is not None:
                return made
        return None

    return render


def _read(codec: Codec, value: Any) -> Any:
    return (
        codec.load(value)
        if codec.load is not None
        else msgspec.convert(value, codec.wire, dec_hook=load_foreign, from_attributes=True)
    )


def _choice(codecs: list[Codec]) -> Codec:
    """The first member that takes a value has it, in the order in which they are declared; plain ones first for text
    and numbers, of which an array or a file could be made too.
    """
    plain_first = sorted(codecs, key=lambda codec: codec.foreign)

    def load(value: Any) -> Any:
        reasons = []
        for codec in plain_first if isinstance(value, (str, int, float)) else codecs:
            try:
                return _read(codec, value)
            except (ValueError, TypeError, OverflowError) as error:
                reasons.append(str(error))
        raise ValueError("; or ".join(reasons))

    def describe(template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        schemas, shared = [], {}
        for codec in codecs:
            schema, definitions = codec.describe(template, tensors)
            schemas.append(schema)
            shared.update(definitions)
        return {"anyOf": schemas}, shared

    return Codec(Any, describe, load=load, foreign=True)


def _record(tp: Any, fields: dict[str, tuple[Any, bool]], found: Found) -> Any:
    """A dataclass, TypedDict or Struct with foreign types in it: read as a Struct of its fields' wire types."""
    if tp in found.open:
        return found.open[tp]  # it contains itself
    found.open[tp] = made = marker(Codec(Any, native_schema(tp)), tp.__name__)
    declared: list[Any] = [
        (name, wire_type(hint, found))
        if required
        else (name, Union[wire_type(hint, found), msgspec.UnsetType], msgspec.UNSET)  # noqa: UP007
        for name, (hint, required) in fields.items()
    ]
    text = tp.__doc__ if tp.__doc__ and not tp.__doc__.startswith(f"{tp.__name__}(") else None  # not a dataclass's own
    shadow = msgspec.defstruct(tp.__name__, declared, kw_only=True, namespace={"__doc__": text} if text else None)
    describe = _record_schema(tp, shadow)
    made.codec = Codec(Any, describe, load=_record_reader(tp, shadow, fields), files=found.files, foreign=True)
    return made


def _record_reader(tp: Any, shadow: Any, fields: dict[str, tuple[Any, bool]]) -> Callable[[Any], Any]:
    is_typed_dict = hasattr(tp, "__required_keys__")
    defaults = _plain_defaults(tp)
    alone = bool(defaults) and not any(_is_foreign(hint) for hint, _ in fields.values())

    def load(value: Any) -> Any:
        if alone and isinstance(value, dict):  # the usual case, and several times as fast
            made = msgspec.convert(value, tp, dec_hook=load_foreign)
            made.__dict__.update({**defaults, **made.__dict__})
            return made
        read = msgspec.convert(value, shadow, dec_hook=load_foreign, from_attributes=True)
        if not is_typed_dict and isinstance(value, tp):
            return value  # an answer: checked, and what its author made
        given = {name: getattr(read, name) for name in fields}
        return tp(**{name: item for name, item in given.items() if item is not msgspec.UNSET})

    return load


def _record_schema(tp: Any, shadow: Any) -> Describe:
    plain = native_schema(shadow)
    within: ContextVar[bool] = ContextVar("within", default=False)

    def describe(template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        if within.get():
            return {"$ref": template.format(name=tp.__name__)}, {}
        token = within.set(True)
        try:
            schema, shared = plain(template, tensors)
        finally:
            within.reset(token)
        properties = shared.get(tp.__name__, {}).get("properties", {})
        for name, default in _plain_defaults(tp).items():
            if name in properties and (shown := _shown(default)) is not _NO_JSON:
                properties[name] = {**properties[name], "default": shown}
        return schema, shared

    return describe


def _shown(value: Any) -> Any:
    """A default value for a schema; `_NO_JSON` for what has no JSON form."""
    try:
        return msgspec.to_builtins(value, enc_hook=to_plain, order="deterministic")
    except (TypeError, ValueError):
        return _NO_JSON
