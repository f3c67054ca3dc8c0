"""What the OpenAPI document says of tasks, beside what the routes do."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import bentotool
from bentotool.client.routes import read_routes
from bentotool.testing import TestClient


@bentotool.service(path_prefix="/p")
class Work:
    @bentotool.task
    def double(self, x: int) -> int:
        return 2 * x

    @bentotool.task(route="/other/way")
    def wrong(self) -> None:
        raise bentotool.exceptions.InvalidArgument("no")


def document() -> dict[str, Any]:
    with TestClient(Work) as client:
        found: dict[str, Any] = client.get("/p/docs.json").json()
    return found


def test_every_path_of_the_document_is_answered_and_none_is_left_out() -> None:
    described = {
        (path, method) for path, item in document()["paths"].items() for method in item if method != "parameters"
    }
    words = {("submit", "post"), ("status", "get"), ("get", "get"), ("cancel", "put"), ("retry", "post")}
    for base in ("/p/double", "/p/other/way"):
        assert {(f"{base}/{word}", method) for word, method in words} | {(base, "post")} <= described
    with TestClient(Work) as client:
        for path, method in described:
            if "double" in path or "way" in path:
                answer = client.request(method.upper(), path)
                assert answer.status_code in (200, 400), (path, method, answer.text)


def test_a_status_is_what_the_document_says() -> None:
    schema = document()["components"]["schemas"]["TaskStatus"]
    with TestClient(Work) as client:
        submitted = client.post("/p/double/submit", json={"x": 1}).json()
        assert set(schema["required"]) <= set(submitted)
        end = time.monotonic() + 20
        while True:
            status = client.get("/p/double/status", params=submitted).json()
            assert set(status) == set(schema["properties"])
            assert status["status"] in schema["properties"]["status"]["enum"]
            if status["status"] == "completed":
                break
            assert time.monotonic() < end
            time.sleep(0.01)
        assert client.get("/p/double/get", params=submitted).json() == 2


def test_the_document_is_valid(require_package: Callable[[str], None]) -> None:
    require_package("openapi_spec_validator")
    from openapi_spec_validator import validate

    validate(document())


@pytest.mark.parametrize("name", ["double", "wrong"])
def test_clients_find_tasks_in_the_schema(name: str) -> None:
    route = read_routes(Work.schema()).find(name)
    assert (route.is_task, route.native) == (True, True)
