"""What of a request is read, HEAD, and middleware: the application called in process through httpx."""

import asyncio
from typing import Any

import httpx
import pytest

import bentotool
from bentotool.errors import ServiceLoadError
from bentotool.runtime.app import Application
from bentotool.runtime.middleware import with_middleware


@bentotool.service(traffic={"max_queue": 2}, http={"max_body_bytes": 100})
class Demo:
    @bentotool.api
    async def noop(self, x: list[float]) -> dict[str, float]:
        return {"y": x[0]}

    @bentotool.api(batchable=True, max_batch_size=4)
    def double(self, rows: list[int]) -> list[int]:
        return [row * 2 for row in rows]

    @bentotool.api(method="GET")
    async def add(self, a: int, b: int = 1) -> int:
        return a + b


def served(work, service=Demo, targets=()):
    """Run `work(client)` with the application started."""

    async def main():
        app = Application(service)
        await app.start()
        transport = httpx.ASGITransport(with_middleware(app, targets))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=10) as client:
                return await asyncio.wait_for(work(client), 20)
        finally:
            await app.stop()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Content-Type": "application/json; charset=UTF-8"}, b'{"x": [1]}', 200),
        ({"Content-Type": "application/vnd.api+json"}, b'{"x": [1]}', 200),
        ({"Content-Type": "application/json", "Content-Encoding": "identity"}, b'{"x": [1]}', 200),
        ({"Content-Type": "application/json; charset=utf-16"}, b'{"x": [1]}', 415),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, b'{"x": [1]}', 415),
        ({"Content-Type": "text/plain"}, b'{"x": [1]}', 415),
        ({"Content-Type": "text/json+json/x"}, b'{"x": [1]}', 415),
        ({"Content-Type": ""}, b'{"x": [1]}', 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b'{"x": [1]}', 415),
        ({"Content-Type": "application/xml"}, b"<x/>", 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", 415),
        ({}, b'{"x": [1]}', 415),
        ({}, b"", 400),
    ],
)
def test_only_json_is_read(headers, body, status):
    answer = served(lambda client: client.post("/noop", content=body, headers=headers))
    assert answer.status_code == status
    if status == 415:
        error = answer.json()["error"]
        assert error["code"] == "unsupported_media_type"
        assert "send content-type: application/json" in error["message"] or "uncompressed" in error["message"]


def test_too_large_bodies_name_the_limit():
    async def work(client):
        async def pieces():
            for _ in range(30):
                yield b"x" * 10

        headers = {"Content-Type": "application/json"}
        return [
            (await client.post("/noop", content=content, headers=headers)).json()["error"]
            for content in (b"x" * 101, pieces())
        ]

    whole, streamed = served(work)
    assert {whole["code"], streamed["code"]} == {"payload_too_large"}
    assert "101 bytes" in whole["message"]
    assert "100" in whole["message"]
    assert "100 bytes" in streamed["message"]


def test_more_rows_than_the_queue_holds_are_too_large():
    error = served(lambda client: client.post("/double", json={"rows": list(range(20))}))
    assert (error.status_code, error.json()["error"]["code"]) == (413, "payload_too_large")
    assert "20 rows" in error.json()["error"]["message"]


def test_a_deeply_nested_body_is_the_callers_fault(caplog):
    @bentotool.service
    class Deep:
        @bentotool.api
        async def take(self, x: Any) -> int:
            return 1

    body, headers = b'{"x":' + b"[" * 20000 + b"]" * 20000 + b"}", {"Content-Type": "application/json"}
    answer = served(lambda client: client.post("/take", content=body, headers=headers), Deep)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_input")
    assert "nested too deeply" in answer.json()["error"]["message"]
    assert not caplog.records


@pytest.mark.parametrize("path", ["/", "/readyz", "/livez", "/healthz", "/metrics", "/schema.json", "/docs.json"])
def test_head_is_get_without_a_body(path):
    async def work(client):
        return await client.head(path), await client.get(path)

    head, whole = served(work)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    assert head.headers["content-type"].count("charset") <= 1
    assert int(head.headers["content-length"]) > 0 or path.endswith("z")


def test_the_type_of_the_metrics():
    assert (
        served(lambda client: client.get("/metrics")).headers["content-type"]
        == "text/plain; version=0.0.4; charset=utf-8"
    )


def test_middleware_stands_around_the_service(tmp_path, monkeypatch, caplog):
    (tmp_path / "stack_of_tests.py").write_text(MIDDLEWARE)
    monkeypatch.syspath_prepend(tmp_path)

    async def work(client):
        return await client.get("/add?a=1"), await client.get("/add?fail")

    good, bad = served(work, targets=["stack_of_tests:Outer", "stack_of_tests:inner"])
    assert (good.json(), good.headers.get_list("x-seen")) == (2, ["inner", "outer"])
    assert (bad.status_code, bad.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in bad.text
    assert "secret reason" in caplog.text
    for wrong in ("stack_of_tests:nothing", "no_such_module:x", "stack_of_tests:NAME", "stack_of_tests"):
        with pytest.raises(ServiceLoadError, match=f"middleware '{wrong}'"):
            with_middleware(Application(Demo), [wrong])


MIDDLEWARE = """
NAME = "x-seen"

class Outer:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await mark(self.app, b"outer")(scope, receive, send)

def inner(app):
    return mark(app, b"inner")

def mark(app, name):
    async def call(scope, receive, send):
        async def marking(message):
            if message["type"] == "http.response.start":
                message["headers"].append((NAME.encode(), name))
            await send(message)
        if scope["query_string"] == b"fail" and name == b"inner":
            raise ValueError("secret reason")
        await app(scope, receive, marking)
    return call
"""
