"""The routes of the Open Inference Protocol (https://github.com/kserve/open-inference-protocol), and their part of an
OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from bentotool.sdk.inference_protocol import datatype_of

if TYPE_CHECKING:
    from bentotool.sdk.named_arrays import ArraySpec, ModelCard

__all__ = ["InferenceRoute", "add_inference", "model_metadata", "routes_of"]

_TAG = "Open Inference Protocol"


class InferenceRoute(NamedTuple):
    """One route: `what` is ``server``, ``live``, ``server_ready``, ``model``, ``model_ready`` or ``infer``."""

    method: str
    path: str
    what: str
    summary: str


def routes_of(card: ModelCard) -> Iterator[InferenceRoute]:
    """The routes of a server with one model."""
    yield InferenceRoute("GET", "/v2", "server", "What this server is")
    yield InferenceRoute("GET", "/v2/health/live", "live", "Whether the server works")
    yield InferenceRoute("GET", "/v2/health/ready", "server_ready", "Whether the server answers")
    for base in (f"/v2/models/{card.name}", f"/v2/models/{card.name}/versions/{card.version}"):
        yield InferenceRoute("POST", f"{base}/infer", "infer", "Ask the model")
        yield InferenceRoute("GET", base, "model", "What the model takes and gives")
        yield InferenceRoute("GET", f"{base}/ready", "model_ready", "Whether the model answers")


def model_metadata(card: ModelCard) -> dict[str, Any]:
    """What ``GET /v2/models/NAME`` answers."""
    return {
        "name": card.name,
        "versions": [card.version],
        "platform": card.platform,
        "inputs": [_tensor_metadata(spec) for spec in card.inputs],
        "outputs": [_tensor_metadata(spec) for spec in card.outputs],
    }


def _tensor_metadata(spec: ArraySpec) -> dict[str, Any]:
    """The protocol has no word for "any": numbers as they come are told as the most usual."""
    shape = [-1] if spec.shape is None else [-1 if size is None else size for size in spec.shape]
    return {
        "name": spec.name,
        "datatype": datatype_of("float32" if spec.dtype == "any" else spec.dtype),
        "shape": shape,
    }


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


_TEXT, _TRUTH = {"type": "string"}, {"type": "boolean"}
_SIZES = {"type": "array", "items": {"type": "integer"}}
_TENSOR = _object(
    ["name", "shape", "datatype"],
    name=_TEXT,
    shape=_SIZES,
    datatype=_TEXT,
    parameters={"type": "object"},
    data={"type": "array", "items": {}, "description": "flat or nested; absent where the elements follow as bytes"},
)
_METADATA = _object(["name", "datatype", "shape"], name=_TEXT, datatype=_TEXT, shape=_SIZES)
_REQUESTED = _object(["name"], name=_TEXT, parameters={"type": "object"})


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


_REQUEST = _object(
    ["inputs"], id=_TEXT, parameters={"type": "object"}, inputs=_list(_TENSOR), outputs=_list(_REQUESTED)
)
_ANSWERS = {
    "server": _object(["name", "version", "extensions"], name=_TEXT, version=_TEXT, extensions=_list(_TEXT)),
    "live": _object(["live"], live=_TRUTH),
    "server_ready": _object(["ready"], ready=_TRUTH),
    "model": _object(
        ["name", "versions", "platform", "inputs", "outputs"],
        name=_TEXT,
        versions=_list(_TEXT),
        platform=_TEXT,
        inputs=_list(_METADATA),
        outputs=_list(_METADATA),
    ),
    "model_ready": _object(["name", "ready"], name=_TEXT, ready=_TRUTH),
    "infer": _object(
        ["model_name", "outputs"], model_name=_TEXT, model_version=_TEXT, id=_TEXT, outputs=_list(_TENSOR)
    ),
}
_FAILURES = {
    "400": "The input is not one of the model's",
    "403": "A page of another site may not send this",
    "408": "The body did not come in time",
    "413": "The body is too large",
    "415": "The body is of a type that is not read",
    "429": "Too many requests in flight",
    "500": "The model failed",
    "503": "The service is overloaded or not ready",
    "504": "The deadline passed",
}


def add_inference(document: dict[str, Any], card: ModelCard, prefix: str) -> None:
    """Add the protocol's routes to an OpenAPI document."""
    document["tags"].append({"name": _TAG})
    shapes = document["components"]["schemas"]
    shapes["InferenceError"] = _object(["error"], error=_TEXT)
    shapes["InferenceRequest"], shapes["InferenceResponse"] = _REQUEST, _ANSWERS["infer"]
    refused = {"schema": {"$ref": "#/components/schemas/InferenceError"}}
    for number, route in enumerate(routes_of(card)):
        answer = {"$ref": "#/components/schemas/InferenceResponse"} if route.what == "infer" else _ANSWERS[route.what]
        content: dict[str, Any] = {"application/json": {"schema": answer}}
        operation: dict[str, Any] = {
            "operationId": f"v2_{route.what}_{number}",
            "tags": [_TAG],
            "summary": route.summary,
            "responses": {"200": {"description": "The answer", "content": content}},
        }
        if route.what == "infer":
            request = {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}
            binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
            content["application/octet-stream"] = binary
            body = {"application/json": request, "application/octet-stream": binary}
            operation["requestBody"] = {"required": True, "content": body}
            failures = {status: {"description": text} for status, text in _FAILURES.items()}
            operation["responses"] |= {
                status: {**told, "content": {"application/json": refused}} for status, told in failures.items()
            }
        elif route.what in ("live", "server_ready", "model_ready"):
            operation["responses"]["503"] = {"description": "Not now", "content": content}
        document["paths"].setdefault(prefix + route.path, {})[route.method.lower()] = operation
