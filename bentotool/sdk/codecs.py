"""How a Python type travels: what it is read from, what it becomes, and its JSON Schema.

A codec says which plain type msgspec decodes (`wire`). Types that msgspec knows (scalars, containers, dataclasses,
Structs, TypedDict, Enum, Literal, Optional, Union, datetime) need nothing more. Other families register a factory under
the name of the package that defines the type, so that it is touched only when a service's annotation already imported
it; `bentotool.sdk.wiretypes` puts a marker in the place of each such type, whose codec then reads the value there.
"""

from __future__ import annotations

import importlib
import operator
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Union, get_args, get_origin

import msgspec
import msgspec.inspect

from bentotool.sdk.validators import ContentType
from bentotool.sdk.wording import kind_of

if TYPE_CHECKING:
    from bentotool.sdk.files import Rendered

__all__ = ["Batching", "Codec", "Describe", "as_read", "codec_for", "family_of", "split_annotated", "to_plain"]

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
        wire: the type msgspec decodes.
        describe: the JSON Schema of what is read.
        describe_answer: that of what is sent, where it is another one.
        load: what came → Python value; raises ValueError or TypeError for a wrong value. None: what `wire` gives is it.
        dump: Python value → what msgspec can encode. None: as it is.
        prepare: Python value → the same with numpy arrays in it, for a binary answer. None: found by walking.
        render: Python value → an answer that is no JSON; None where the value is one for JSON after all.
        batching: given the dimension, how values are batched; None where they cannot.
        media_type: of an answer of this type.
        file: the whole body of a request may be this value, whatever its content type.
        files: there are files in it, so it also travels as a form.
        arrays: there are arrays in it, so it also travels as tensors.
        foreign: msgspec does not know it.
    """

    wire: Any
    describe: Describe
    load: Callable[[Any], Any] | None = None
    dump: Callable[[Any], Any] | None = None
    prepare: Callable[[Any], Any] | None = None
    render: Callable[[Any], Rendered | None] | None = None
    batching: Callable[[int], Batching] | None = None
    media_type: str = "application/json"
    file: bool = False
    files: bool = False
    arrays: bool = False
    foreign: bool = False
    describe_answer: Describe | None = None


_FAMILIES = {
    "numpy": "bentotool.sdk.arrays",
    "pandas": "bentotool.sdk.frames",
    "polars": "bentotool.sdk.frames",
    "torch": "bentotool.sdk.torch_tensors",
    "PIL": "bentotool.sdk.pictures",
    "pathlib": "bentotool.sdk.files",
    "pydantic": "bentotool.sdk.pydantic_models",
    "pydantic_core": "bentotool.sdk.pydantic_models",
    "annotated_types": "bentotool.sdk.pydantic_models",
}
"""Package that defines a type → our module with ``make(annotation, metadata) -> Codec | None`` and ``plain(value)``."""
_VALUES = ("default", "enum", "const", "examples")
"""Keys of a schema whose values are no schemas."""
_VALIDATED_BY_PYDANTIC = "bentotool.sdk.pydantic_models"


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
    """Our module for a type, by the type itself and the metadata on it; what is inside a container does not count."""
    tp, metadata = split_annotated(annotation)
    if tp in (bytes, bytearray):
        return "bentotool.sdk.files"
    origin = get_origin(tp) or tp
    for item in getattr(origin, "__mro__", (origin,)):
        if _package(item) in _FAMILIES:
            return _FAMILIES[_package(item)]
    for value in metadata:
        if _package(type(value)) in _FAMILIES:
            return _FAMILIES[_package(type(value))]
    return None


def uses_pydantic(annotation: Any) -> bool:
    """Whether pydantic defines the type, anything inside it, or metadata on it: then it validates the whole."""
    if family_of(annotation) == _VALIDATED_BY_PYDANTIC:
        return True
    tp, _ = split_annotated(annotation)
    return any(uses_pydantic(argument) for argument in get_args(tp))


def to_plain(value: Any) -> Any:
    """The hook for values that msgspec does not know: arrays, frames, images, models; as they stand in JSON."""
    for base in type(value).__mro__:
        family = _FAMILIES.get(_package(base))
        if family:
            return importlib.import_module(family).plain(value)
    raise TypeError(f"{kind_of(value)} cannot be sent as JSON")


class Marker(type):
    """The class of the types that stand in a wire type for what msgspec does not know."""

    codec: Codec

    def __instancecheck__(cls, instance: object) -> bool:
        return True  # msgspec asks about what `load` made


def marker(codec: Codec, name: str) -> Any:
    """A type for msgspec, whose values the codec reads."""
    return Marker(name, (), {"codec": codec})


@lru_cache(maxsize=512)
def _codec_of_class(tp: Any) -> Codec:
    return codec_for(tp)


def load_foreign(tp: Any, value: Any) -> Any:
    """The hook for types, wherever they stand, that msgspec does not know."""
    codec = tp.codec if isinstance(tp, Marker) else _codec_of_class(tp)
    if codec.load is None:
        return value
    try:
        return codec.load(value)
    except msgspec.ValidationError as error:  # msgspec puts the path of this place around any error but its own
        raise ValueError(str(error)) from error
    except (OverflowError, AttributeError, KeyError, IndexError) as error:
        raise ValueError(f"cannot be read as the declared type: {error}") from error


def native_schema(tp: Any) -> Describe:
    """The description of a type that msgspec knows, and of the foreign ones inside."""

    def describe(template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        inner: dict[str, Any] = {}

        def foreign(other: Any) -> dict[str, Any]:
            codec = other.codec if isinstance(other, Marker) else codec_for(other)
            schema, definitions = codec.describe(template, tensors)
            inner.update(definitions)
            return dict(schema)

        (schema,), shared = msgspec.json.schema_components([tp], schema_hook=foreign, ref_template=template)
        return as_read(schema), {**as_read(shared), **inner}

    return describe


def as_read(schema: Any) -> Any:
    """A schema that says what is read: sets from any list, decimals from numbers too."""
    if isinstance(schema, list):
        return [as_read(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: value if key in _VALUES else as_read(value) for key, value in schema.items()}
    if made.get("uniqueItems") is True and made.get("type") == "array":
        del made["uniqueItems"]
    if made.get("type") == "string" and made.get("format") == "decimal":
        made["type"] = ["string", "number"]
    return made


def list_batching(dimension: int) -> Batching:
    """Lists, batched by their items."""
    if dimension != 0:
        raise TypeError("lists are batched along dimension 0")

    def split(merged: Any, counts: Sequence[int]) -> list[Any]:
        parts, start = [], 0
        for count in counts:
            parts.append(merged[start : start + count])
            start += count
        return parts

    return Batching(len, lambda _value: None, lambda parts: [row for part in parts for row in part], split)


def _native(annotation: Any) -> Codec:
    from bentotool.sdk.wiretypes import Found, wire_type

    tp, metadata = split_annotated(annotation)
    media = next((item.content_type for item in metadata if isinstance(item, ContentType)), None)
    found = Found()
    wire = wire_type(annotation, found)
    try:
        msgspec.json.Decoder(wire, dec_hook=load_foreign)
        if isinstance(msgspec.inspect.type_info(wire), msgspec.inspect.CustomType) and not isinstance(wire, Marker):
            raise TypeError("unknown type")
        native_schema(wire)("{name}", False)  # looks into containers too
    except (TypeError, ValueError) as error:
        raise TypeError(f"type {tp!r} has no JSON form: {error}") from None
    if tp is str:
        media = media or "text/plain; charset=utf-8"
    batching = list_batching if (get_origin(tp) or tp) in (list, Sequence) else None
    union = get_origin(tp) in (Union, types.UnionType)
    return Codec(
        wire,
        native_schema(wire),
        batching=batching,
        media_type=media or "application/json",
        render=found.render if union else None,
        file=found.whole_body if union else False,
        files=found.files,
        arrays=found.arrays,
        foreign=found.any,
    )


def foreign_codec(annotation: Any) -> Codec | None:
    """The codec of a type that msgspec does not know; None for one that it does, or that only contains such types."""
    if isinstance(annotation, Marker):  # it brings its own
        return annotation.codec
    family = _VALIDATED_BY_PYDANTIC if uses_pydantic(annotation) else family_of(annotation)
    if family is None:
        return None
    made: Codec | None = importlib.import_module(family).make(*split_annotated(annotation))
    return made


def codec_for(annotation: Any) -> Codec:
    """The codec of an annotation.

    Raises:
        TypeError: the type has no JSON form.
    """
    made = foreign_codec(annotation)
    return made if made is not None else _native(annotation)
