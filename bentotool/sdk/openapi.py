"""The OpenAPI 3.1 document of a service (https://spec.openapis.org/oas/v3.1.1; schemas are JSON Schema 2020-12)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bentotool.sdk.contents import Definitions, answer_content, body_content
from bentotool.sdk.inference_documents import add_inference
from bentotool.sdk.mounted_documents import add_mounts
from bentotool.sdk.routes import plain_route
from bentotool.sdk.schema import field_schema
from bentotool.sdk.signature import MethodSpec
from bentotool.sdk.task import TaskOptions
from bentotool.sdk.task_documents import TASK_SCHEMAS, task_operations

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
    "403": "A page of another site may not send this",
    "408": "The body did not come in time",
    "413": "The body is too large",
    "415": "The body is of a type that is not read",
    "429": "Too many requests in flight",
    "500": "The service failed",
    "503": "The service is overloaded or not ready",
    "504": "The deadline passed",
}
_IN_QUERY = ("GET", "DELETE")
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


def _failures() -> dict[str, Any]:
    return {status: _failure(text) for status, text in _FAILURES.items()}


def _parameters(spec: MethodSpec, definitions: Definitions) -> list[dict[str, Any]]:
    """Parameters of the route, and those of the query where there is no body."""
    found: list[dict[str, Any]] = []
    if spec.in_route is not None:
        for name, codec in spec.in_route.codecs.items():
            schema = definitions.add(*codec.describe(_TEMPLATE, False))
            entry: dict[str, Any] = {"name": name, "in": "path", "required": True, "schema": schema}
            found.append(entry)
    if spec.options.method in _IN_QUERY:
        for parameter in spec.parameters:
            schema = definitions.add(*field_schema(parameter, _TEMPLATE, False))
            found.append({"name": parameter.name, "in": "query", "required": parameter.required, "schema": schema})
    return found


def _operation(service: str, spec: MethodSpec, definitions: Definitions) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "The answer", "content": answer_content(spec, definitions)}}
    responses.update(_failures())
    operation: dict[str, Any] = {
        "operationId": f"{service}__{spec.name}",
        "tags": ["Service APIs"],
        "summary": spec.doc.partition("\n")[0] or spec.name,
        "responses": responses,
    }
    if spec.doc:
        operation["description"] = spec.doc
    parameters = _parameters(spec, definitions)
    if parameters:
        operation["parameters"] = parameters
    if spec.parameters and spec.options.method not in _IN_QUERY:
        required = any(parameter.required for parameter in spec.parameters)
        operation["requestBody"] = {"required": required, "content": body_content(spec, definitions)}
        if any(parameter.codec.files for parameter in spec.parameters):
            responses["422"] = _failure("An address stands where a file belongs")
    return operation


def openapi_document(service: Service[Any]) -> dict[str, Any]:
    """Describe every route of a service."""
    definitions = Definitions()
    definitions.found["Error"] = _ERROR
    paths: dict[str, Any] = {}
    for spec in service.apis.values():
        operation = _operation(service.name, spec, definitions)
        paths.setdefault(service.path_prefix + plain_route(spec.route), {})[spec.options.method.lower()] = operation
        if isinstance(spec.options, TaskOptions):
            definitions.found.update(TASK_SCHEMAS)
            for path, method, word in task_operations(service.name, spec, operation, _failures()):
                paths.setdefault(service.path_prefix + plain_route(path), {})[method] = word
    for path, text in _PROBES.items():
        answers: dict[str, Any] = {"200": {"description": text}}
        if path in ("/livez", "/readyz", "/healthz"):
            answers["503"] = _failure("Not now")
        infrastructure = {"tags": ["Infrastructure"], "summary": text, "responses": answers}
        paths.setdefault(service.path_prefix + path, {})["get"] = infrastructure
    info = {"title": service.name, "version": service.labels.get("version", "0"), "description": service.description}
    document = {
        "openapi": "3.1.0",
        "info": info,
        "tags": [{"name": "Service APIs"}, {"name": "Infrastructure"}],
        "paths": paths,
        "components": {"schemas": definitions.found},
    }
    add_mounts(document, service.mounts, service.path_prefix)
    if service.card is not None:
        add_inference(document, service.card, service.path_prefix)
    _add_keys(document, service)
    return document


def _add_keys(document: dict[str, Any], service: Service[Any]) -> None:
    """Say how callers show who they are, and what they get when they do not."""
    keys = service.config.api_keys
    if keys is None and not hasattr(service.inner, "__authenticate__"):
        return
    if keys is not None:
        schemes = document["components"].setdefault("securitySchemes", {})
        schemes["BearerKey"] = {"type": "http", "scheme": "bearer"}
        schemes["HeaderKey"] = {"type": "apiKey", "in": "header", "name": keys.header}
        document["security"] = [{"BearerKey": []}, {"HeaderKey": []}]
    open_paths = {f"{service.path_prefix}/{probe}" for probe in ("livez", "readyz", "healthz")}
    for path, item in document["paths"].items():
        for operation in item.values():
            if path in open_paths:
                operation["security"] = []
            elif isinstance(operation, dict) and "responses" in operation:
                operation["responses"].setdefault("401", _failure("The caller is not known"))
