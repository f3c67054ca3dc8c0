"""The OpenAPI document of each signature, and of services with tasks, prefixes, mounts and routes, is valid 3.1."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import zoo

import bentotool

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]


@pytest.fixture
def check(require_package):
    require_package("openapi_spec_validator")
    from openapi_spec_validator import OpenAPIV31SpecValidator

    def validate(document):
        assert document["openapi"].startswith("3.1")
        json.dumps(document, allow_nan=False)
        errors = OpenAPIV31SpecValidator(document).iter_errors()
        assert [f"{list(error.path)}: {error.message}" for error in errors] == []
        ids = [
            operation["operationId"]
            for entry in document["paths"].values()
            for operation in entry.values()
            if "operationId" in operation
        ]
        assert len(ids) == len(set(ids))
        return document

    return validate


def test_every_signature_alone(check):
    for case in zoo.Zoo(bentotool).cases:
        wrap = bentotool.task if case.task else bentotool.api
        options = {"max_batch_size": 10, **case.options} if case.options.get("batchable") else case.options
        service = bentotool.service(name="One")(type("One", (), {case.name: wrap(**options)(case.func)}))
        document = check(service.openapi())
        assert case.options.get("route", f"/{case.name}") in document["paths"]


def test_all_of_them_under_a_prefix(check):
    service, _, _ = zoo.declared(bentotool, "/v1")
    document = check(service.openapi())
    assert all(path.startswith("/v1/") for path in document["paths"])
    assert document["paths"]["/v1/task/cancel"]["put"]["responses"].keys() >= {"200", "400", "404"}


def test_a_server_gives_its_document(check, zoo_url):
    with urllib.request.urlopen(f"{zoo_url}/docs.json", timeout=30) as answer:
        check(json.load(answer))


def test_mounts_routes_and_methods(check):
    async def page(scope, receive, send):
        raise AssertionError

    @bentotool.asgi_app(page, path="/pages")
    @bentotool.service
    class Mixed:
        @bentotool.api(method="GET", route="/items/{id}/{rest:path}")
        def item(self, id: int, rest: str, q: str = "", n: int | None = None) -> dict[str, int]:
            return {}

        @bentotool.api(method="PUT", route="/items/{id}")
        def put(self, id: int, names: list[str]) -> None: ...

        @bentotool.task(route="/jobs/{id}")
        def job(self, id: int) -> int:
            return id

    document = check(Mixed.openapi())
    assert document["paths"]["/items/{id}/{rest}"]["get"]["parameters"]


def test_the_running_server_keeps_to_its_document(zoo_url, require_package, tmp_path):
    """schemathesis calls every operation with what the document allows, and with what it does not."""
    require_package("schemathesis")
    options = [
        "--max-examples",
        "10",
        "--generation-deterministic",
        "--phases",
        "coverage,fuzzing",
        "--continue-on-failure",
    ]
    config = str(Path(__file__).with_name("schemathesis.toml"))
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--config-file",
        config,
        "run",
        f"{zoo_url}/docs.json",
        *options,
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False, cwd=tmp_path)
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
