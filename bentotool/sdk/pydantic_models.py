"""pydantic models on the wire. Imported only when a service's annotation comes from pydantic.

pydantic reads a text for a ``Path`` as a path, and knows no arrays and images. So a model with such a field is read by
a subclass of its own, in which those fields are read as everywhere else.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Sequence
from typing import Any, Union, get_args, get_origin

import pydantic

from bentotool.sdk.codecs import Codec, annotate, as_read, family_of, foreign_codec, list_batching, split_annotated

__all__ = ["make", "one_line", "plain"]

_OURS = "bentotool.sdk.pydantic_models"
_ANSWERED = "Answer"
_NOTATION = "x-bentotool-notation"
"""Where the schema of a field of ours has what BentoML's clients read, until one of the two is chosen."""


def plain(value: Any) -> Any:
    """A pydantic model as plain Python."""
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json", fallback=_fallback)
    if isinstance(value, (pydantic.SecretStr, pydantic.SecretBytes)):
        return str(value)
    return pydantic.TypeAdapter(type(value)).dump_python(value, mode="json")


def _fallback(value: Any) -> Any:
    from bentotool.sdk.codecs import to_plain

    return to_plain(value)


def _is_model(tp: Any) -> bool:
    return isinstance(tp, type) and issubclass(tp, pydantic.BaseModel)


def _has_foreign(annotation: Any, seen: tuple[Any, ...] = ()) -> bool:
    tp, _ = split_annotated(annotation)
    if tp in seen:
        return False
    family = family_of(tp)
    if family is not None and family != _OURS:
        return tp not in (bytes, bytearray)  # pydantic's own reading of bytes is harmless
    inner: tuple[Any, ...] = get_args(tp)
    if _is_model(tp):
        inner = tuple(field.annotation for field in tp.model_fields.values())
    elif isinstance(tp, type) and hasattr(tp, "__annotations__") and tp.__module__ != "builtins":
        try:
            inner = tuple(typing.get_type_hints(tp).values())
        except (NameError, TypeError):
            inner = ()
    return any(_has_foreign(item, (*seen, tp)) for item in inner)


class _Patch:
    """Annotations for pydantic in which foreign types are read by their codecs."""

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}
        self.open: set[Any] = set()
        self.arrays = self.files = False

    def of(self, annotation: Any) -> Any:
        """Raises TypeError where the annotation has a foreign type in a place that cannot be patched."""
        if not _has_foreign(annotation):
            return annotation
        tp, metadata = split_annotated(annotation)
        family = family_of(tp)
        if family is not None and family != _OURS:
            codec = foreign_codec(annotate(tp, tuple(item for item in metadata if not _is_field(item))))
            if codec is not None:
                self.arrays |= codec.arrays
                self.files |= codec.files
                return annotate(_field_of(codec), tuple(item for item in metadata if _is_field(item)))
        if _is_model(tp):
            return annotate(self.model(tp), metadata)
        origin, arguments = get_origin(tp), get_args(tp)
        if origin is None:
            raise TypeError(f"{tp.__name__} has a file or an array in it: make it a pydantic model, or do without one")
        patched = tuple(item if item is Ellipsis else self.of(item) for item in arguments)
        if origin in (Union, types.UnionType):
            return annotate(Union[patched], metadata)  # noqa: UP007 - a type as a value
        return annotate(origin[patched], metadata)

    def model(self, tp: Any) -> Any:
        if tp in self.made:
            return self.made[tp]
        if tp in self.open:
            raise TypeError(f"{tp.__name__} contains itself and a file or an array, which are not read together")
        self.open.add(tp)
        fields: dict[str, Any] = {}
        for name, info in tp.model_fields.items():
            whole = annotate(info.annotation, tuple(info.metadata))
            if _has_foreign(whole):
                fresh = pydantic.fields.FieldInfo.merge_field_infos(info, annotation=self.of(whole))
                fresh.metadata = [item for item in fresh.metadata if item not in info.metadata]
                fields[name] = (self.of(whole), fresh)
        self.open.discard(tp)
        made = pydantic.create_model(tp.__name__, __base__=tp, __module__=tp.__module__, __doc__=tp.__doc__, **fields)
        self.made[tp] = made
        return made


def _is_field(item: Any) -> bool:
    return isinstance(item, pydantic.fields.FieldInfo) or type(item).__module__.partition(".")[0] == "annotated_types"


def _field_of(codec: Codec) -> Any:
    load = codec.load
    assert load is not None

    def read(value: Any) -> Any:
        return load(value)

    def write(value: Any) -> Any:
        return codec.dump(value) if codec.dump is not None else value

    template = "#/$defs/{name}"
    schema = {**codec.describe(template, False)[0], _NOTATION: codec.describe(template, True)[0]}
    return annotate(
        Any,
        (
            pydantic.PlainValidator(read),
            pydantic.PlainSerializer(write, when_used="json"),
            pydantic.WithJsonSchema(schema),
        ),
    )


def _chosen(schema: Any, tensors: bool) -> Any:
    """A schema in one of the two notations of files and arrays."""
    if isinstance(schema, list):
        return [_chosen(item, tensors) for item in schema]
    if not isinstance(schema, dict):
        return schema
    notation = schema.get(_NOTATION)
    if notation is not None:
        others = {key: value for key, value in schema.items() if key in ("title", "description", "default")}
        if tensors:
            return {**others, **notation}
        schema = {key: value for key, value in schema.items() if key != _NOTATION}
    return {key: _chosen(value, tensors) for key, value in schema.items()}


def one_line(error: pydantic.ValidationError) -> ValueError:
    """What pydantic found first, with its place as msgspec writes it."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    text = first["msg"].removeprefix("Value error, ")
    return ValueError(f"{text} - at `${where}`")


def _cause(error: pydantic.ValidationError) -> Exception | None:
    """What the reader of a file or an array raised, which decides on the status."""
    found = error.errors(include_url=False, include_input=False)[0].get("ctx", {}).get("error")
    return found if isinstance(found, Exception) else None


def _loader(adapter: pydantic.TypeAdapter[Any]) -> Callable[[Any], Any]:
    def load(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            raise one_line(error) from _cause(error)

    return load


def make(tp: Any, metadata: tuple[Any, ...]) -> Codec:
    """The codec of any annotation with pydantic in it: pydantic validates, serializes and describes it."""
    whole = annotate(tp, metadata)
    patch = _Patch()
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(patch.of(whole))

    def checked(value: Any) -> Any:
        try:
            return adapter.validate_python(value, from_attributes=True)
        except pydantic.ValidationError as error:
            raise one_line(error) from None

    def describe(template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        schema = adapter.json_schema(ref_template=template.replace("{name}", "{model}"))
        schema = as_read(_chosen(schema, tensors))
        return schema, schema.pop("$defs", {})

    def describe_answer(template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        schema = adapter.json_schema(by_alias=False)
        if schema == adapter.json_schema() or (_is_model(tp) and tp.model_config.get("serialize_by_alias")):
            return describe(template, tensors)
        # the names of fields are sent and their aliases are read: one name for both forms of a model would not do
        schema = adapter.json_schema(by_alias=False, ref_template=template.replace("{name}", f"{{model}}{_ANSWERED}"))
        schema = as_read(_chosen(schema, tensors))
        return schema, {f"{name}{_ANSWERED}": inner for name, inner in schema.pop("$defs", {}).items()}

    return Codec(
        Any,
        describe,
        batching=list_batching if (get_origin(tp) or tp) in (list, Sequence) else None,
        load=_loader(adapter),
        dump=lambda value: adapter.dump_python(checked(value), mode="json"),
        prepare=lambda value: adapter.dump_python(checked(value), mode="python"),
        files=patch.files,
        arrays=patch.arrays,
        foreign=True,
        describe_answer=describe_answer,
    )
