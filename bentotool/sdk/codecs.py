"""How a Python type travels: what JSON it is read from, what JSON it becomes, and its JSON Schema.

A codec says which plain type msgspec decodes (`wire`), and what turns that into the Python value and back. Types that
msgspec knows (scalars, containers, dataclasses, Structs, TypedDict, Enum, Literal, Optional, Union, datetime) need
nothing more. Other families register a factory under the name of the package that defines the type, so that it is
touched only when a service's annotation already imported it.
"""

from __future__ import annotations

import importlib
import operator
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec
import msgspec.inspect

from bentotool.sdk.validators import ContentType

__all__ = ["Batching", "Codec", "Describe", "codec_for", "split_annotated", "to_plain"]

Describe = Callable[[str, bool], "tuple[dict[str, Any], dict[str, Any]]"]
"""(reference template, BentoML's tensor notation?) → (schema, shared definitions)."""


@dataclass(frozen=True)
class Batching:
    """How values of a type are put together into one batch, and taken apart.

    Attributes:
        count: rows of a value along the batch dimension.
        key: values with different keys are never put into one batch.
        merge: values → one value.
        split: one value, rows of each part → the parts.
    """

    count: Callable[[Any], int]
    key: Callable[[Any], object]
    merge: Callable[[Sequence[Any]], Any]
    split: Callable[[Any, Sequence[int]], list[Any]]


@dataclass(frozen=True)
class Codec:
    """One type's way over the wire.

    Attributes:
        wire: the type msgspec decodes from JSON.
        describe: the JSON Schema.
        load: wire value → Python value; raises ValueError or TypeError for a wrong value. None: the wire value is it.
        dump: Python value → what msgspec can encode. None: as it is.
        batching: given the dimension, how values are batched; None where they cannot.
        media_type: of an answer of this type.
    """

    wire: Any
    describe: Describe
    load: Callable[[Any], Any] | None = None
    dump: Callable[[Any], Any] | None = None
    batching: Callable[[int], Batching] | None = None
    media_type: str = "application/json"


_FAMILIES = {"numpy": "bentotool.sdk.arrays", "pydantic": "bentotool.sdk.pydantic_models"}
"""Package that defines a type → our module with ``make(annotation, metadata) -> Codec`` and ``plain(value)``."""


def split_annotated(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """``Annotated[T, a, b]`` → ``(T, (a, b))``."""
    if get_origin(annotation) is Annotated:
        return annotation.__origin__, tuple(annotation.__metadata__)
    return annotation, ()


def annotate(tp: Any, metadata: tuple[Any, ...]) -> Any:
    """``Annotated[T, a, b]`` from its parts; `tp` itself where there is no metadata."""
    return operator.getitem(Annotated, (tp, *metadata)) if metadata else tp


def _package(tp: Any) -> str:
    return str(getattr(tp, "__module__", "")).partition(".")[0]


def family_of(annotation: Any) -> str | None:
    """The registered package that an annotation, or anything inside it, belongs to."""
    tp, metadata = split_annotated(annotation)
    for item in (*getattr(tp, "__mro__", (tp,)), *(type(value) for value in metadata)):
        if _package(item) in _FAMILIES:
            return _package(item)
    for argument in (get_origin(tp), *get_args(tp)):
        if argument is not None and (found := family_of(argument)):
            return found
    return None


def to_plain(value: Any) -> Any:
    """The hook for values that msgspec does not know: numpy arrays and scalars, pydantic models, sets of those."""
    for base in type(value).__mro__:
        family = _FAMILIES.get(_package(base))
        if family:
            return importlib.import_module(family).plain(value)
    raise TypeError(f"a {type(value).__qualname__} cannot be sent as JSON")


def load_foreign(tp: type, value: Any) -> Any:
    """The hook for types inside containers that msgspec does not know."""
    codec = codec_for(tp)
    return codec.load(value) if codec.load else value


def _native_schema(tp: Any) -> Describe:
    def describe(template: str, _tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        def foreign(other: type) -> dict[str, Any]:
            return codec_for(other).describe(template, _tensors)[0]

        (schema,), shared = msgspec.json.schema_components([tp], schema_hook=foreign, ref_template=template)
        return schema, shared

    return describe


def _list_batching(dimension: int) -> Batching:
    if dimension != 0:
        raise TypeError("lists are batched along dimension 0")

    def split(merged: Any, counts: Sequence[int]) -> list[Any]:
        parts, start = [], 0
        for count in counts:
            parts.append(merged[start : start + count])
            start += count
        return parts

    return Batching(len, lambda _value: None, lambda parts: [row for part in parts for row in part], split)


def _native(tp: Any, metadata: tuple[Any, ...]) -> Codec:
    media = next((item.content_type for item in metadata if isinstance(item, ContentType)), None)
    constraints = tuple(item for item in metadata if isinstance(item, msgspec.Meta))
    wire = annotate(tp, constraints)
    try:
        msgspec.json.Decoder(wire, dec_hook=load_foreign)
        if isinstance(msgspec.inspect.type_info(wire), msgspec.inspect.CustomType):
            raise TypeError("unknown type")
        _native_schema(wire)("{name}", False)  # looks into containers too
    except TypeError as error:
        raise TypeError(f"type {tp!r} has no JSON form: {error}") from None
    if tp is str:
        media = media or "text/plain; charset=utf-8"
    elif tp is bytes:
        media = media or "application/octet-stream"
    batching = _list_batching if (get_origin(tp) or tp) in (list, Sequence) else None
    return Codec(wire, _native_schema(wire), batching=batching, media_type=media or "application/json")


def _optional(inner: Codec) -> Codec:
    def describe(template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        schema, shared = inner.describe(template, tensors)
        return {"anyOf": [schema, {"type": "null"}]}, shared

    load, dump = inner.load, inner.dump
    return Codec(
        Union[inner.wire, None],  # noqa: UP007 - the wire type is a value here
        describe,
        load=None if load is None else lambda value: None if value is None else load(value),
        dump=None if dump is None else lambda value: None if value is None else dump(value),
    )


def codec_for(annotation: Any) -> Codec:
    """The codec of an annotation.

    Raises:
        TypeError: the type has no JSON form.
    """
    tp, metadata = split_annotated(annotation)
    family = family_of(annotation)
    if family is None:
        return _native(tp, metadata)
    if family == "numpy" and get_origin(tp) in (Union, types.UnionType):
        members = [member for member in get_args(tp) if member is not type(None)]
        if len(members) == 1 and len(get_args(tp)) == 2:
            return _optional(codec_for(annotate(members[0], metadata)))
    module = importlib.import_module(_FAMILIES[family])
    made: Codec | None = module.make(tp, metadata)
    return made if made is not None else _native(tp, metadata)
