"""The fields of a form as the arguments of an API: which of them are files, lists, JSON or plain text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from bentotool.sdk.exceptions import InvalidArgument
from bentotool.sdk.files import Upload
from bentotool.sdk.places import parse_path, place
from bentotool.sdk.signature import MethodSpec

__all__ = ["Form"]

_PLAIN = ("integer", "number", "boolean", "array", "object", "tensor", "dataframe")


class Form:
    """How one API reads forms.

    Args:
        spec: the API.
    """

    def __init__(self, spec: MethodSpec) -> None:
        self._spec = spec
        self._alone = spec.parameters[0].name if spec.root and spec.spread is None else None
        fields: Mapping[str, Any] = {}
        if spec.root:
            schema, shared = spec.parameters[0].codec.describe("{name}", True)
            schema = shared.get(schema.get("$ref", ""), schema)
            fields = schema.get("properties", {})
            if fields:
                self._alone = None
        else:
            fields = {p.name: p.codec.describe("{name}", True)[0] for p in spec.parameters}
        self._lists = {name for name, schema in fields.items() if _has(schema, ("array",))}
        self._texts = {
            name for name, schema in fields.items() if _has(schema, ("string",)) and not _has(schema, _PLAIN)
        }
        self._names = set(fields)

    def tree(self, fields: Iterable[tuple[str, Upload | str]]) -> Any:
        """The arguments, for ``MethodSpec.decode_tree``.

        A field's name may be a place, as ``item.photo`` or ``files[1]``.

        Raises:
            InvalidArgument: one field twice that takes one value, or a place that is none.
        """
        gathered: dict[str, list[Any]] = {}
        for name, value in fields:
            gathered.setdefault(name, []).append(value if isinstance(value, Upload) else self._text(name, value))
        if self._alone is not None:
            values = gathered.get(self._alone) or next(iter(gathered.values()), [])
            if len(gathered) != 1 or len(values) != 1:
                raise InvalidArgument("$: expected a form with one field", details={"path": "$"})
            return values[0]
        tree: dict[str, Any] = {}
        for name, values in sorted(gathered.items(), key=lambda item: item[0] not in self._names):
            steps: list[str | int] = [name] if name in self._names else parse_path(name)
            value = self._one(name, values, len(steps) == 1)
            if not place(tree, steps, value):
                raise InvalidArgument(f"$.{name}: there is no such place", details={"path": f"$.{name}"})
        return tree

    def _one(self, name: str, values: list[Any], whole: bool) -> Any:
        if whole and name in self._lists:
            return values[0] if len(values) == 1 and isinstance(values[0], (list, type(None))) else values
        if len(values) == 1:
            return values[0]
        raise InvalidArgument(f"$.{name}: expected one value, got {len(values)}", details={"path": f"$.{name}"})

    def _text(self, name: str, text: str) -> Any:
        """A part that is no file: JSON, as BentoML's client writes it, or what a browser's form has."""
        try:
            value = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return text
        if name in self._texts and not isinstance(value, (str, type(None))):
            return text
        return value


def _has(schema: Any, kinds: tuple[str, ...]) -> bool:
    if not isinstance(schema, Mapping):
        return False
    declared = schema.get("type")
    if declared in kinds or (isinstance(declared, list) and any(kind in kinds for kind in declared)):
        return True
    return any(_has(inner, kinds) for inner in schema.get("anyOf", ()))
