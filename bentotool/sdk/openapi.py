"""The OpenAPI 3.1 document of a service (https://spec.openapis.org/oas/v3.1.1; schemas are JSON Schema 2020-12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bentotool.sdk.schema import input_schema, output_schema, stream_media_type
from bentotool.sdk.signature import MethodSpec

if TYPE_CHECKING:
    from bentotool.sdk.service import Service

__all__ = ["openapi_document"]

_TEMPLATE = "#/components/schemas/{name}"
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": ["string", "null"]},
                "path": {"type": "string", "description": "the field that is wrong, as $.x[2]"},
            },
        }
    },
}
_FAILURES = {
    "400": "The input does not have the declared form",
    "413": "The body is too large",
    "429": "Too many requests in flight",
    "500": "The service failed",
    "503": "The service is overloaded or not ready",
    "504": "The deadline passed",
}
_PROBES = {
    "/livez": "Whether the process works",
    "/readyz": "Whether requests are answered",
    "/healthz": "The same as /livez",
    "/metrics": "Prometheus metrics",
    "/schema.json": "The service's schema",
}


def _failure(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": description, "content": content}


def _media_type(spec: MethodSpec) -> str:
    media = stream_media_type(spec) if spec.stream else spec.output.media_type
    return media.partition(";")[0]


def _operation(service: str, spec: MethodSpec, shared: dict[str, Any]) -> dict[str, Any]:
    body, body_definitions = input_schema(spec, _TEMPLATE, False)
    answer, answer_definitions = output_schema(spec, _TEMPLATE, False)
    shared.update(body_definitions)
    shared.update(answer_definitions)
    responses: dict[str, Any] = {
        "200": {"description": "The answer", "content": {_media_type(spec): {"schema": answer}}}
    }
    responses.update({status: _failure(text) for status, text in _FAILURES.items()})
    operation: dict[str, Any] = {
        "operationId": f"{service}__{spec.name}",
        "tags": ["Service APIs"],
        "summary": spec.doc.partition("\n")[0] or spec.name,
        "responses": responses,
    }
    if spec.doc:
        operation["description"] = spec.doc
    if spec.parameters and spec.options.method != "GET":
        required = any(parameter.required for parameter in spec.parameters)
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": body}}}
    return operation


def openapi_document(service: Service[Any]) -> dict[str, Any]:
    """Describe every route of a service."""
    shared: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for spec in service.apis.values():
        operation = _operation(service.name, spec, shared)
        paths.setdefault(service.path_prefix + spec.route, {})[spec.options.method.lower()] = operation
    for path, text in _PROBES.items():
        answers: dict[str, Any] = {"200": {"description": text}}
        if path in ("/livez", "/readyz", "/healthz"):
            answers["503"] = _failure("Not now")
        infrastructure = {"tags": ["Infrastructure"], "summary": text, "responses": answers}
        paths.setdefault(service.path_prefix + path, {})["get"] = infrastructure
    info = {"title": service.name, "version": service.labels.get("version", "0"), "description": service.description}
    return {
        "openapi": "3.1.0",
        "info": info,
        "tags": [{"name": "Service APIs"}, {"name": "Infrastructure"}],
        "paths": paths,
        "components": {"schemas": {**shared, "Error": _ERROR}},
    }
