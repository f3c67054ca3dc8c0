"""Arguments and answers in binary: what is an array in them travels as a tensor, the rest beside it as JSON."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from bentotool.sdk.answers import WRONG, checked, objection
from bentotool.sdk.codecs import Codec, to_plain
from bentotool.sdk.exceptions import InvalidArgument
from bentotool.sdk.files import Rendered
from bentotool.sdk.inference_protocol import LENGTH_HEADER, InferenceRequest, write_inference
from bentotool.sdk.npy import MEDIA_TYPE as NPY
from bentotool.sdk.npy import read_npy, write_npy
from bentotool.sdk.places import parse_path, place
from bentotool.sdk.tensors import MEDIA_TYPE as TENSORS
from bentotool.sdk.tensors import Tensor, decode_tensors, encode_tensors, tensor_of

if TYPE_CHECKING:
    from bentotool.sdk.signature import MethodSpec

__all__ = ["arguments_tree", "inference_tree", "render_binary", "sole_array", "wanted"]


_TENSORS, _NPY = TENSORS.encode(), NPY.encode()
_STEPS = re.compile(r"[.\[\]]")
_UNCLEAR = "\0"
"""Starts the place of a tensor below a field whose name would be read as several steps."""


def wanted(accept: bytes) -> str | None:
    """The binary form that a caller takes an answer in, by its ``Accept``."""
    return TENSORS if _TENSORS in accept else NPY if _NPY in accept else None


def _for_codec(codec: Codec, value: Any) -> Any:
    """Lists are made where no array is declared."""
    if codec.arrays:
        return value
    if isinstance(value, Tensor):
        value = value.numpy()
    return value.tolist() if hasattr(value, "tolist") else value


def _spread(spec: MethodSpec, tree: dict[str, Any]) -> Any:
    if spec.root:
        return tree
    return {name: _for_codec(parameter.codec, tree[name]) for name in tree for parameter in _parameter(spec, name)}


def _parameter(spec: MethodSpec, name: str) -> list[Any]:
    found = [parameter for parameter in spec.parameters if parameter.name == name]
    if not found:
        raise InvalidArgument(f"$.{name}: there is no such field", details={"path": f"$.{name}"})
    return found


def arguments_tree(spec: MethodSpec, media: str, body: bytearray) -> Any:
    """The arguments of an API in a body of tensors or an ``.npy`` array, for ``MethodSpec.decode_tree``.

    Raises:
        InvalidArgument: the body is not of its form.
    """
    try:
        if media == NPY:
            return _alone(spec, read_npy(body))
        tensors, rest = decode_tensors(body)
        beside = msgspec.json.decode(rest) if rest is not None else {}
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"$: {error}", details={"path": "$"}) from None
    return _tree(spec, dict(tensors), beside)


def inference_tree(spec: MethodSpec, request: InferenceRequest) -> Any:
    """The arguments of an API in an Open Inference Protocol request."""
    return _tree(spec, request.tensors, {})


def sole_array(spec: MethodSpec) -> Any:
    """The parameter that a body of one array is: the only one, or the only array where the others have defaults."""
    if spec.spread is not None:
        return None
    arrays = [parameter for parameter in spec.parameters if parameter.codec.arrays]
    others = [parameter for parameter in spec.parameters if parameter.required and not parameter.codec.arrays]
    if len(spec.parameters) == 1:
        return spec.parameters[0]
    return arrays[0] if len(arrays) == 1 and not others else None


def _alone(spec: MethodSpec, value: Any) -> Any:
    parameter = sole_array(spec)
    if parameter is None:
        raise InvalidArgument("$: one array is sent to an API that takes one", details={"path": "$"})
    value = _for_codec(parameter.codec, value)
    return value if spec.root else {parameter.name: value}


def _tree(spec: MethodSpec, tensors: dict[str, Any], beside: Any) -> Any:
    if spec.root and spec.spread is None and len(tensors) == 1 and not beside:
        (value,) = tensors.values()
        schema, _ = spec.parameters[0].codec.describe("{name}", True)
        if schema.get("type") != "dataframe" and "properties" not in schema and "$ref" not in schema:
            return _for_codec(spec.parameters[0].codec, value)
    if not isinstance(beside, dict):
        raise InvalidArgument("$: the JSON beside the tensors is not an object", details={"path": "$"})
    for name, tensor in tensors.items():
        steps: list[str | int] = [name] if name in {p.name for p in spec.parameters} else parse_path(name)
        if not place(beside, steps, tensor):
            raise InvalidArgument(f"$.{name}: there is no such place", details={"path": f"$.{name}"})
    return _spread(spec, beside)


def _as_tensor(value: Any) -> Tensor | None:
    """An array of numpy or torch as a tensor; None for anything else, and for elements without a binary form."""
    package = type(value).__module__.partition(".")[0]
    if package == "torch" and hasattr(value, "detach"):
        from bentotool.sdk.torch_tensors import tensor_of as of_torch

        return of_torch(value)
    if package == "numpy" and hasattr(value, "dtype") and value.dtype.kind in "biufc" and hasattr(value, "tobytes"):
        import numpy as np

        return tensor_of(np.asarray(value)) if isinstance(value, np.ndarray) else None
    return None


def _taken_apart(value: Any) -> tuple[Any, list[Tensor], str]:
    """Plain values with a mark where each tensor stood, the tensors, and what the marks are called."""
    from bentotool.sdk.frames import tree_of

    tensors: list[Tensor] = []
    mark = f"\0tensor-{id(tensors)}"  # no field of a JSON document that anybody means

    def hook(item: Any) -> Any:
        table = tree_of(item)
        if table is not None:
            return table
        try:
            tensor = _as_tensor(item)
        except TypeError:
            tensor = None
        if tensor is None:
            return to_plain(item)
        tensors.append(tensor)
        return {mark: len(tensors) - 1}

    return msgspec.to_builtins(value, enc_hook=hook), tensors, mark


def _named(tree: Any, mark: str, path: str, found: dict[int, str]) -> Any:
    """Take the marks out of a tree and note their places; fields that hold nothing else go with them."""
    if isinstance(tree, dict):
        if mark in tree:
            found[tree[mark]] = path
            return None
        kept = {}
        for name, item in tree.items():
            one = isinstance(item, dict) and mark in item
            clear = name and not _STEPS.search(str(name))
            rest = _named(item, mark, (f"{path}.{name}" if path else str(name)) if clear else _UNCLEAR, found)
            if not (one and not path):
                kept[name] = rest
        return kept
    if isinstance(tree, list):
        return [_named(item, mark, f"{path}[{index}]", found) for index, item in enumerate(tree)]
    return tree


def _numeric(value: Any) -> Any:
    """A list of numbers as an array, where numpy is in use; anything else as it is."""
    if isinstance(value, list) and "numpy" in sys.modules:
        import numpy as np

        from bentotool.sdk.arrays import element_types

        try:
            types = element_types(value)
            if str in types:  # numpy would make each text as wide as the longest
                return value
            array = np.asarray(value)
            if types == {int} and array.dtype.kind == "f":  # above 2**63, where numpy's fractions are not exact
                array = np.asarray(value, dtype=object)
                return array.astype("uint64") if array.min() >= 0 and array.max() < 2**64 else value
        except ValueError:
            return value
        return array if array.dtype.kind in "biuf" else value
    return value


def render_binary(
    name: str, codec: Codec, value: Any, form: str, request: InferenceRequest | None = None
) -> Rendered | None:
    """An answer in binary; None where there is no array in it, or it has no such form.

    Raises:
        InvalidOutput: the value is not of the declared type.
    """
    try:
        if codec.prepare is not None:
            value = codec.prepare(value)
        elif codec.load is not None:
            value = codec.load(value)
        else:
            value = _numeric(checked(codec, value))
        tree, tensors, mark = _taken_apart(value)
        places: dict[int, str] = {}
        rest = _named(tree, mark, "", places)
        if not tensors:
            return None
        if form == NPY:
            return Rendered([write_npy(tensors[0].numpy())], NPY) if len(tensors) == 1 and rest is None else None
        named = {places[index] or "value": tensor for index, tensor in enumerate(tensors)}
        if form == TENSORS and any(name.startswith(_UNCLEAR) for name in named):
            return None
        if request is not None:
            pieces, length = write_inference(name, named, request)
            if not request.binary:
                return Rendered(pieces, "application/json")
            return Rendered(pieces, "application/octet-stream", {LENGTH_HEADER.decode(): str(length)})
        # an object with the one field "value" is told from a bare tensor by the empty object beside it
        bare = rest is None or (rest == {} and list(named) != ["value"])
        beside = None if bare else msgspec.json.encode(rest, enc_hook=to_plain)
        return Rendered(encode_tensors(named, beside), TENSORS)
    except WRONG as error:
        raise objection(name, error) from error
