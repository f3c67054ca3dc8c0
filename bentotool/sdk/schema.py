"""The service schema, in the form of the ``/schema.json`` that BentoML's clients read (BentoML 1.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bentotool.sdk.arguments import arguments_schema
from bentotool.sdk.signature import MethodSpec
from bentotool.sdk.task import TaskOptions

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["input_schema", "output_schema", "service_schema", "stream_media_type"]

_TEMPLATE = "#/$defs/{name}"


def jsonable(value: Any) -> Any:
    """A default value for a schema; what has no JSON form is left out as None.

    Sets are sorted: their order differs between versions of Python, even with one hash seed.
    """
    import msgspec

    from bentotool.sdk.codecs import to_plain

    try:
        return msgspec.to_builtins(value, enc_hook=to_plain, order="deterministic")
    except TypeError:
        return None


def input_schema(spec: MethodSpec, template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of an API's body, and the definitions it refers to."""
    properties: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for parameter in spec.parameters:
        schema, definitions = parameter.codec.describe(template, tensors)
        shared.update(definitions)
        if spec.root:
            return ({**schema, "root_input": True} if tensors else schema), shared
        if not parameter.required:
            schema = {**schema, "default": jsonable(parameter.default)}
        properties[parameter.name] = schema
    document: dict[str, Any] = {"type": "object", "properties": properties}
    required = [parameter.name for parameter in spec.parameters if parameter.required]
    if required:
        document["required"] = required
    if tensors:
        document["title"] = "Input"
    else:
        document["additionalProperties"] = False
    return document, shared


def stream_media_type(spec: MethodSpec) -> str:
    """What a stream is sent as when the client asks for nothing: the annotation's, else by the items' type."""
    if spec.stream_media_type:
        return spec.stream_media_type
    return "application/jsonl" if spec.output.media_type == "application/json" else spec.output.media_type


def output_schema(spec: MethodSpec, template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of an API's answer, and the definitions it refers to."""
    schema, shared = spec.output.describe(template, tensors)
    if tensors and spec.stream:
        schema = {**schema, "is_stream": True, "media_type": stream_media_type(spec)}
    elif tensors and spec.output.media_type != "application/json":
        schema = {**schema, "media_type": spec.output.media_type.partition(";")[0]}
    return schema, shared


def service_schema(service: Service[Any]) -> dict[str, Any]:
    """``{name, type, description, routes: [...], paths: {...}}``; ``arguments``, a JSON schema, where it takes some."""
    routes = []
    for spec in service.apis.values():
        entry: dict[str, Any] = {
            "name": spec.name,
            "route": spec.route,
            "description": spec.doc,
            "batchable": spec.options.batchable,
            "is_task": isinstance(spec.options, TaskOptions),
            "method": spec.options.method,
        }
        for side, describe in (("input", input_schema), ("output", output_schema)):
            schema, shared = describe(spec, _TEMPLATE, True)
            entry[side] = {**schema, "$defs": shared} if shared else schema
        routes.append(entry)
    arguments = arguments_schema()
    return {
        "name": service.name,
        "type": "service",
        "description": service.description,
        "routes": routes,
        "paths": {spec.route: {"mounted": False} for spec in service.apis.values()},
        **({"arguments": arguments} if arguments else {}),
    }
