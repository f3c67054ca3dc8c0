"""The paths of a task in its service's OpenAPI document: submit, status, get, cancel, retry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bentotool.sdk.signature import MethodSpec

__all__ = ["TASK_SCHEMAS", "task_operations"]

_MOMENT = {"type": ["string", "null"], "format": "date-time"}
_STATES = ["pending", "in_progress", "completed", "failed", "canceled"]
TASK_SCHEMAS: dict[str, Any] = {
    "TaskStatus": {
        "type": "object",
        "required": ["task_id", "status"],
        "properties": {
            "task_id": {"type": "string"},
            "status": {"type": "string", "enum": _STATES},
            "created_at": _MOMENT,
            "executed_at": _MOMENT,
            "completed_at": _MOMENT,
            "attempt": {"type": "integer"},
            "priority": {"type": "integer"},
            "progress": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            "message": {"type": ["string", "null"]},
        },
    }
}
"""Definitions that the operations refer to."""
_ID = {"name": "task_id", "in": "query", "required": True, "schema": {"type": "string", "minLength": 1}}
_SUBMITTING = [
    {"name": "Idempotency-Key", "in": "header", "required": False, "schema": {"type": "string", "maxLength": 255}},
    {
        "name": "X-Task-Priority",
        "in": "header",
        "required": False,
        "schema": {"type": "integer", "minimum": -100, "maximum": 100},
    },
]
_WORDS = (
    ("status", ("get",), "How far a task is"),
    ("get", ("get",), "What a task gave; an error where it failed"),
    ("cancel", ("put", "post"), "Stop a task"),
    ("retry", ("post", "put"), "Run a task that has ended once more"),
)


def task_operations(
    service: str, spec: MethodSpec, call: dict[str, Any], failures: dict[str, Any]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Path, method and operation of each word that is said to a task.

    Args:
        service: its name.
        spec: the task.
        call: the operation that calls it and waits.
        failures: the answers of an operation that fails, by status.
    """
    answer = {
        "description": "The task",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TaskStatus"}}},
    }
    reused = {"422": {**failures["400"], "description": "The key, or an address that stands where a file belongs"}}

    def operation(word: str, text: str, answered: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
        return {
            "tags": call["tags"],
            "summary": f"{text}: {spec.name}",
            "operationId": f"{service}__{spec.name}__{word}",
            "responses": {"200": answered, **failures, **more.pop("responses", {})},
            **more,
        }

    base = spec.route.rstrip("/")
    submit: dict[str, Any] = {"parameters": [*_SUBMITTING, *call.get("parameters", [])], "responses": reused}
    if "requestBody" in call:
        submit["requestBody"] = call["requestBody"]
    yield f"{base}/submit", "post", operation("submit", "Put a task into the queue", answer, submit)
    placed = [parameter for parameter in call.get("parameters", []) if parameter["in"] == "path"]
    missing = {"404": {**failures["400"], "description": "There is no such task"}}
    for word, methods, text in _WORDS:
        answered = call["responses"]["200"] if word == "get" else answer
        for number, method in enumerate(methods):
            more = {"parameters": [*placed, _ID], "responses": missing}
            name = word if number == 0 else f"{word}_by_{method}"
            yield f"{base}/{word}", method, operation(name, text, answered, more)
