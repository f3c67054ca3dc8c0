"""pydantic models on the wire. Imported only when a service's annotation comes from pydantic."""

from __future__ import annotations

from typing import Any

import pydantic

from bentotool.sdk.codecs import Codec, annotate

__all__ = ["make", "plain"]


def plain(value: Any) -> Any:
    """A pydantic model as plain Python."""
    if isinstance(value, pydantic.BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"a {type(value).__qualname__} cannot be sent as JSON")


def make(tp: Any, metadata: tuple[Any, ...]) -> Codec:
    """The codec of any annotation with pydantic in it: pydantic validates, serializes and describes it."""
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(annotate(tp, metadata))

    def load(value: Any) -> Any:
        try:
            return adapter.validate_python(value)
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
            raise ValueError(f"{first['msg']} - at `${where}`") from None

    def dump(value: Any) -> Any:
        checked = adapter.validate_python(value, from_attributes=True)
        return adapter.dump_python(checked, mode="json")

    def describe(template: str, _tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        schema = adapter.json_schema(ref_template=template.replace("{name}", "{model}"))
        return schema, schema.pop("$defs", {})

    return Codec(Any, describe, load=load, dump=dump)
