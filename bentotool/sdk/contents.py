"""What bodies and answers of an API look like, by content type, for its OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

from bentotool.sdk.binary import sole_array
from bentotool.sdk.npy import MEDIA_TYPE as NPY
from bentotool.sdk.schema import input_schema, output_schema, stream_media_type
from bentotool.sdk.signature import MethodSpec
from bentotool.sdk.tensors import MEDIA_TYPE as TENSORS

__all__ = ["Definitions", "answer_content", "body_content"]

_JSON = "application/json"
_TEMPLATE = "#/components/schemas/{name}"


class Definitions:
    """The schemas that a document's parts refer to by name. Two of one name that differ get names of their own."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def add(self, schema: Any, shared: dict[str, Any]) -> Any:
        """Take definitions in; give the schema with references to what they are called here."""
        renamed = {}
        for name, definition in shared.items():
            number, free = 1, name
            while free in self.found and self.found[free] != definition:
                number += 1
                free = f"{name}_{number}"
            renamed[name] = free
        for name, definition in shared.items():
            self.found[renamed[name]] = _renamed(definition, renamed)
        return _renamed(schema, renamed)


def _renamed(schema: Any, names: dict[str, str]) -> Any:
    if all(old == new for old, new in names.items()):
        return schema
    text = json.dumps(schema)
    for old, new in names.items():
        if old != new:
            reference = json.dumps(_TEMPLATE.format(name=old))
            text = text.replace(reference, json.dumps(_TEMPLATE.format(name=new)))
    return json.loads(text)


def _binary(media: str) -> dict[str, Any]:
    return {media: {"schema": {"type": "string", "contentMediaType": media}}}


def _whole_file(spec: MethodSpec) -> str | None:
    """The media type of a body that is one file; None where bodies are not."""
    if not spec.root or not spec.parameters[0].codec.file:
        return None
    schema = spec.parameters[0].codec.describe(_TEMPLATE, False)[0]
    return str(schema.get("contentMediaType", "application/octet-stream"))


def body_content(spec: MethodSpec, definitions: Definitions) -> dict[str, Any]:
    """The ``content`` of a request's body."""
    schema, shared = input_schema(spec, _TEMPLATE, False)
    schema = definitions.add(schema, shared)
    media = _whole_file(spec)
    if media is not None:
        return {media: {"schema": schema}}
    content: dict[str, Any] = {_JSON: {"schema": schema}}
    if spec.root and spec.parameters[0].codec.wire is str:
        content["text/plain"] = {"schema": schema}
    if any(parameter.codec.files for parameter in spec.parameters):
        content["multipart/form-data"] = {"schema": schema}
    if any(parameter.codec.arrays for parameter in spec.parameters):
        content |= _binary(TENSORS)
        if sole_array(spec) is not None:
            content |= _binary(NPY)
    return content


def answer_content(spec: MethodSpec, definitions: Definitions) -> dict[str, Any]:
    """The ``content`` of the answer."""
    schema, shared = output_schema(spec, _TEMPLATE, False)
    schema = definitions.add(schema, shared)
    if spec.stream:
        return {stream_media_type(spec).partition(";")[0]: {"schema": schema}}
    media = spec.output.media_type.partition(";")[0]
    if spec.output.file and "contentMediaType" in schema:  # a file is sent as what its name says, an image as it was
        media = "*/*" if schema["contentMediaType"] == "application/octet-stream" else schema["contentMediaType"]
    content = {media: {"schema": schema}}
    if spec.output.render is not None and spec.output.media_type == _JSON:
        content["*/*"] = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    if spec.output.arrays:
        content |= _binary(TENSORS) | _binary(NPY)
    return content
