"""The service schema, in the form of the ``/schema.json`` that BentoML's clients read (BentoML 1.4)."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from bentotool.sdk.arguments import arguments_schema
from bentotool.sdk.signature import MethodSpec, Parameter
from bentotool.sdk.task import TaskOptions

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["field_schema", "input_schema", "output_schema", "service_schema", "stream_media_type"]

_TEMPLATE = "#/$defs/{name}"
_KEPT = ("default", "enum", "const")


def jsonable(value: Any) -> Any:
    """A default value for a schema; what has no JSON form is left out as None.

    Sets are sorted: their order differs between versions of Python, even with one hash seed.
    """
    import msgspec

    from bentotool.sdk.codecs import to_plain

    try:
        return msgspec.to_builtins(value, enc_hook=to_plain, order="deterministic")
    except (TypeError, ValueError):
        return None


def _for_clients(schema: Any) -> Any:
    """A schema that BentoML's clients can walk: every array says what its items are, and an optional file is a file.

    Their client looks for ``type: file`` at the top of a field to know that it has to send a form.
    """
    if isinstance(schema, list):
        return [_for_clients(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: item if key in _KEPT else _for_clients(item) for key, item in schema.items()}
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        schema["items"] = {}
    choices = schema.get("anyOf")
    if isinstance(choices, list):
        others = [item for item in choices if item != {"type": "null"}]
        if len(others) == 1 and len(choices) == 2 and _is_file(others[0]):
            kept = {key: item for key, item in schema.items() if key != "anyOf"}
            return {**others[0], **kept, "nullable": True}
    return schema


def _is_file(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    return schema.get("type") == "file" or (schema.get("type") == "array" and _is_file(schema.get("items")))


def _inlined(schema: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    """A model that is the whole body, with its fields at the top, where BentoML's clients look for them."""
    name = schema.get("$ref", "").rpartition("/")[2]
    return {**shared[name], **{k: v for k, v in schema.items() if k != "$ref"}} if name in shared else schema


def field_schema(parameter: Parameter, template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of one parameter with its default and description, and the definitions it refers to."""
    schema, shared = parameter.codec.describe(template, tensors)
    schema = dict(schema)
    if not parameter.required and not parameter.variadic:
        default = jsonable(parameter.default)
        if default is not None or parameter.default is None:
            schema.setdefault("default", default)
    if parameter.description and "description" not in schema:
        schema["description"] = parameter.description
    return (_for_clients(schema) if tensors else schema), shared


def input_schema(spec: MethodSpec, template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of an API's body, and the definitions it refers to."""
    properties: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for parameter in spec.parameters:
        schema, definitions = field_schema(parameter, template, tensors)
        shared.update(definitions)
        if spec.root:
            if not tensors:
                return schema, shared
            schema = _inlined(schema, shared) if spec.spread is not None or "$ref" in schema else schema
            schema = _for_clients(schema)
            return (schema if spec.spread is not None else {**schema, "root_input": True}), _for_clients(shared)
        properties[parameter.name] = schema
    document: dict[str, Any] = {"type": "object", "properties": properties}
    required = [parameter.name for parameter in spec.parameters if parameter.required]
    if required:
        document["required"] = required
    if tensors:
        document["title"] = "Input"
        return document, _for_clients(shared)
    document["additionalProperties"] = False
    return document, shared


def stream_media_type(spec: MethodSpec) -> str:
    """What a stream is sent as when the client asks for nothing: the annotation's, else by the items' type."""
    if spec.stream_media_type:
        return spec.stream_media_type
    return "application/jsonl" if spec.output.media_type == "application/json" else spec.output.media_type


def output_schema(spec: MethodSpec, template: str, tensors: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """JSON Schema of an API's answer, and the definitions it refers to."""
    schema, shared = (spec.output.describe_answer or spec.output.describe)(template, tensors)
    if tensors:
        schema, shared = _for_clients(schema), _for_clients(shared)
    if tensors and schema.get("type") == "string" and spec.output.media_type == "application/json":
        schema = {"anyOf": [schema]}  # BentoML's clients would take the text with the quotes of its JSON
    if tensors and spec.stream:
        schema = {**schema, "is_stream": True, "media_type": stream_media_type(spec)}
    elif tensors and spec.output.media_type != "application/json":
        schema = {**schema, "media_type": spec.output.media_type.partition(";")[0]}
    return schema, shared


def _in_route(spec: MethodSpec) -> dict[str, Any]:
    """``properties`` of what stands in the route, and the ``order`` in which the function takes all arguments."""
    assert spec.in_route is not None
    known = {*spec.in_route.codecs, *(parameter.name for parameter in spec.parameters)}
    return {
        "properties": {
            name: _for_clients(dict(codec.describe(_TEMPLATE, True)[0])) for name, codec in spec.in_route.codecs.items()
        },
        "order": [name for name in inspect.signature(spec.func).parameters if name in known],
    }


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
        if spec.in_route is not None:
            entry["path_parameters"] = _in_route(spec)
        routes.append(entry)
    arguments = arguments_schema()
    return {
        "name": service.name,
        "type": "service",
        "description": service.description,
        "routes": routes,
        "paths": {
            **{mount.path or "/": {"mounted": True} for mount in service.mounts},
            **{spec.route: {"mounted": False} for spec in service.apis.values()},
        },
        **({"arguments": arguments} if arguments else {}),
    }
