"""Arrays by name as the one value of an API: what a model takes and gives, known only when it is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from bentotool.sdk.arrays import array_schema, fitted, fitting_shape, plain
from bentotool.sdk.codecs import Batching, Codec, marker
from bentotool.sdk.tensors import Tensor

__all__ = ["ArraySpec", "ModelCard", "array_names"]

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class ArraySpec:
    """One input or output.

    Attributes:
        name: as the model calls it.
        dtype: numpy's name, ``str`` for texts, ``any`` for numbers as they come.
        shape: the length of each axis, None for one that is free; None where not even the number of axes is known.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def read(self, value: Any) -> np.ndarray[Any, Any]:
        """An array from what came; of texts one of objects, which takes no more memory than they do.

        Raises:
            ValueError: it is none of this type and shape.
        """
        if self.dtype == "str":
            return self._texts(value)
        dtype = None if self.dtype == "any" else np.dtype(self.dtype)
        return fitted(value, dtype, self.shape)

    def _texts(self, value: Any) -> np.ndarray[Any, Any]:
        if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind not in "OU"):
            raise ValueError("expected texts")
        array = np.asarray(value, dtype=object)  # which leaves a number among texts a number
        if not all(isinstance(item, str) for item in array.flat):
            raise ValueError("expected texts")
        return array if self.shape is None else array.reshape(fitting_shape(array.shape, self.shape))

    def schema(self, tensors: bool) -> dict[str, Any]:
        """Of the array as nested lists, or in BentoML's notation."""
        known = None if self.dtype == "any" else np.dtype(self.dtype)
        name, kind = (None, None) if known is None else (self.dtype, known.kind)
        return array_schema("numpy-array", name, kind, self.shape)("", tensors)[0]


@dataclass
class ModelCard:
    """A model that is served as itself, for callers who speak of models and not of APIs.

    Attributes:
        name, version: of the model.
        platform: its framework and format.
        api: the name of the API that asks it, whose one parameter and answer are arrays by name.
        inputs, outputs: empty until the model is loaded.
        rows: the first axis of all of them counts samples.
    """

    name: str
    version: str
    platform: str
    api: str
    inputs: tuple[ArraySpec, ...] = ()
    outputs: tuple[ArraySpec, ...] = ()
    rows: bool = True

    def input_type(self) -> Any:
        """A type for the annotation of the API's parameter."""
        return marker(Codec(Any, self._describe_inputs, load=self._read, batching=self._batching, **_ARRAYS), "Inputs")

    def output_type(self) -> Any:
        """A type for the annotation of the API's answer."""
        return marker(
            Codec(Any, self._describe_outputs, dump=_dump, prepare=dict, batching=self._batching, **_ARRAYS), "Outputs"
        )

    def _read(self, given: Any) -> dict[str, np.ndarray[Any, Any]]:
        names = [spec.name for spec in self.inputs]
        if not isinstance(given, dict):
            if len(names) != 1:
                raise ValueError(f"expected an object with {', '.join(names)}")
            given = {names[0]: given}
        for name in given:
            if name not in names:
                raise ValueError(f"there is no such input: the model has {', '.join(names)} - at `$.{name}`")
        found = {}
        for spec in self.inputs:
            if spec.name not in given:
                raise ValueError(f"required, and not given - at `$.{spec.name}`")
            try:
                found[spec.name] = spec.read(given[spec.name])
            except ValueError as error:
                raise ValueError(f"{error} - at `$.{spec.name}`") from None
        return found

    def _describe_inputs(self, _template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        schema = _object(self.inputs, tensors)
        if tensors or len(self.inputs) != 1:
            return schema, {}
        return {"anyOf": [schema, self.inputs[0].schema(False)]}, {}

    def _describe_outputs(self, _template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        return _object(self.outputs, tensors), {}

    def _batching(self, dimension: int) -> Batching:
        if dimension != 0:
            raise TypeError("arrays by name are batched along dimension 0")
        return Batching(self._count, self._key, _merge, self._split)

    def _count(self, arrays: Arrays) -> int:
        if not self.rows:
            return 1
        counts = {len(array) if array.ndim else -1 for array in arrays.values()}
        if len(counts) != 1 or not min(counts) > 0:
            sizes = ", ".join(f"{name} of shape {array.shape}" for name, array in arrays.items())
            raise ValueError(f"expected as many rows in each array, and one at least, got {sizes}")
        return counts.pop()

    def _key(self, arrays: Arrays) -> object:
        if not self.rows:
            return object()  # it shares its call with no other
        return tuple((array.dtype.str, array.shape[1:]) for array in arrays.values())

    def _split(self, merged: Arrays, counts: Sequence[int]) -> list[Any]:
        if not self.rows:
            return [merged]
        ends = list(accumulate(counts, initial=0))
        return [{name: array[start:end] for name, array in merged.items()} for start, end in pairwise(ends)]


_ARRAYS: dict[str, Any] = {"arrays": True, "foreign": True}


def _merge(parts: Sequence[Arrays]) -> Arrays:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _dump(arrays: Arrays) -> dict[str, Any]:
    return {name: plain(array) for name, array in arrays.items()}


def _object(specs: Sequence[ArraySpec], tensors: bool) -> dict[str, Any]:
    if not specs:  # the model is not loaded
        return {"type": "object"}
    properties = {spec.name: spec.schema(tensors) for spec in specs}
    return {"type": "object", "properties": properties, "required": array_names(specs), "additionalProperties": False}


def array_names(specs: Sequence[ArraySpec]) -> list[str]:
    """The names of some inputs or outputs."""
    return [spec.name for spec in specs]
