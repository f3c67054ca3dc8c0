"""What a service, a middleware or a mounted application may do wrong while it answers: each is one proper answer."""

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest

import bentotool
from bentotool.errors import RemoteError
from bentotool.exceptions import ServiceError
from bentotool.testing import TestClient


async def silent(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError


def wsgi(environ, start_response):
    start_response("200 OK", [])
    return {"/text": ["text"], "/nothing": [], "/written": [b"b"]}[environ["PATH_INFO"]]


class Wrong:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope.get("query_string") != b"nothing":
            await self.app(scope, receive, send)


@bentotool.asgi_app(silent, path="/silent")
@bentotool.wsgi_app(wsgi, path="/old")
@bentotool.service
class Answers:
    @bentotool.api
    def status(self, n: int, ctx: bentotool.Context) -> str:
        ctx.response.status_code = n
        return "body"

    @bentotool.api
    def whole(self, n: int) -> bentotool.Response:
        return bentotool.Response("body", status_code=n)

    @bentotool.api
    def short(self) -> bentotool.Response:
        return bentotool.Response("body", headers={"Content-Length": "3"})

    @bentotool.api
    def header(self, name: str, value: str, ctx: bentotool.Context) -> None:
        ctx.response.headers[name] = value

    @bentotool.api
    def failing(self, n: int) -> None:
        raise ServiceError("odd", n)

    @bentotool.api
    def careless(self, what: str) -> str:
        if what == "model":
            return bentotool.models.get("absent:v1").tag
        if what == "remote":
            raise RemoteError("10.0.0.1 does not answer")
        with bentotool.monitor("uneven") as mon:
            mon.log_batch([1, 2], name="a", role="feature", data_type="numerical")
            mon.log_batch([1], name="b", role="feature", data_type="numerical")
        return "logged"

    @bentotool.api
    async def ends(self, wait: bool, how: str) -> None:
        if wait:
            await asyncio.sleep(0.01)
        raise {"cancel": asyncio.CancelledError, "exit": SystemExit, "break": KeyboardInterrupt}[how]

    @bentotool.api
    async def stream(self, how: str) -> AsyncIterator[str]:
        raise {"cancel": asyncio.CancelledError, "exit": SystemExit}[how]
        yield "never"


Answers.add_asgi_middleware(Wrong)


@pytest.fixture(scope="module")
def client():
    with TestClient(Answers) as found:
        yield found


@pytest.mark.parametrize("path", ["/status", "/whole"])
@pytest.mark.parametrize(
    ("given", "status", "body"),
    [
        (201, 201, b"body"),
        (404, 404, b"body"),
        (204, 204, b""),
        (304, 304, b""),
        *((n, 500, None) for n in (0, 99, 600)),
    ],
)
def test_status(client, path, given, status, body):
    answer = client.post(path, json={"n": given})
    assert answer.status_code == status
    if body is None:
        assert answer.json()["error"]["code"] == "internal"
    else:
        assert answer.content == body
        assert ("content-length" in answer.headers) is bool(body), "an answer that ends with its headers"


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("x-a", "grüße\t", 200), ("x a", "1", 500), ("x:a", "1", 500), ("", "1", 500), ("x-a", "a\nb", 500),
        ("x-a", "a\x7f", 500), ("x-a", "€", 500),
    ],
)  # fmt: skip
def test_headers(client, name, value, status):
    assert client.post("/header", json={"name": name, "value": value}).status_code == status


@pytest.mark.parametrize(("given", "status"), [(418, 418), (799, 500), (200, 500)])
def test_status_of_a_failure(client, given, status):
    assert client.post("/failing", json={"n": given}).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        *(
            ("POST", "/ends", {"wait": wait, "how": how})
            for wait in (True, False)
            for how in ("cancel", "exit", "break")
        ),
        *(("POST", "/stream", {"how": how}) for how in ("cancel", "exit")),
        ("GET", "/silent/x", None),
        ("GET", "/old/text", None),
        ("GET", "/status?nothing", None),
    ],
)
def test_what_is_no_answer(client, method, path, body):
    if body == {"wait": True, "how": "cancel"} and sys.version_info < (3, 11):
        pytest.skip("Python 3.10 does not know whose cancellation it is")
    answer = client.request(method, path, **({"json": body} if body else {}))
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert client.post("/status", json={"n": 200}).text == "body"
    assert client.app.in_flight == 0


def test_an_empty_wsgi_answer(client):
    assert (client.get("/old/nothing").content, client.get("/old/written").content) == (b"", b"b")


@pytest.mark.parametrize(("what", "status"), [("model", 500), ("monitor", 500), ("remote", 502)])
def test_what_the_service_did_wrong_with_us_is_not_told_to_its_caller(what, status, caplog):
    with TestClient(Answers) as client:
        answer = client.post("/careless", json={"what": what})
    assert answer.status_code == status
    assert answer.json()["error"]["message"] == "the service failed; its log says why"
    assert "careless failed" in caplog.text
