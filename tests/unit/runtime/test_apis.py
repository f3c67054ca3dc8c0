"""What an API may say of its route, its method, its answer: through the whole application."""

import asyncio
import threading

import pytest

import bentotool
from bentotool.errors import ConfigError
from bentotool.runtime.typedcalls import TypedCall
from bentotool.testing import TestClient

done = []
gate = threading.Event()


@bentotool.service(
    threads=2, traffic={"max_queue_bytes": 200_000}, http={"max_body_bytes": 1_000_000}, path_prefix="/v1"
)
class Items:
    @bentotool.api(route="/items/{id}", method="GET")
    async def read(self, id: int, tags: list[str] = ["none"], limit: int = 1) -> dict:  # noqa: B006
        return {"id": id, "tags": tags, "limit": limit}

    @bentotool.api(route="/items/{id}", method="PUT")
    def write(self, id: int, name: str, ctx: bentotool.Context) -> dict:
        ctx.response.status_code = 201
        return {"id": id, "name": name, "params": dict(ctx.request.path_params)}

    @bentotool.api(route="/items/{id}", method="DELETE")
    def remove(self, id: int, force: bool = False) -> dict:
        return {"id": id, "force": force}

    @bentotool.api(route="/items/special", method="GET")
    def special(self) -> str:
        return "exact"

    @bentotool.api(route="/files/{name:path}", method="GET")
    def file(self, name: str) -> str:
        return name

    @bentotool.api
    def own(self, code: int) -> bentotool.Response:
        return bentotool.Response({"own": code}, status_code=code, headers={"X-Own": "1"})

    @bentotool.api
    def text(self) -> bentotool.Response:
        return bentotool.Response("hello")

    @bentotool.api
    def litestar(self, ctx: bentotool.Context):
        import litestar

        ctx.response.headers["x-beside"] = "yes"
        return litestar.Response({"gone": True}, status_code=404)

    @bentotool.api
    async def around(self, ctx: bentotool.Context) -> dict:
        ctx.response.set_cookie("session", "a b", max_age=5, httponly=True, secure=True)
        ctx.response.delete_cookie("old")
        ctx.response.background.add_task(done.append, "sync")
        ctx.response.background.add_task(self.later, "async")
        return {
            "cookies": ctx.request.cookies,
            "body": (await ctx.request.body()).decode(),
            "json": await ctx.request.json(),
            "url": ctx.request.url,
        }

    async def later(self, name):
        done.append(name)

    @bentotool.api
    def injects(self, ctx: bentotool.Context) -> None:
        ctx.response.headers["x-a"] = "1\r\nset-cookie: b=c"

    @bentotool.api(concurrency=1)
    def one(self) -> str:
        gate.wait(10)
        return "one"

    @bentotool.api
    def large(self, text: str) -> int:
        gate.wait(10)
        return len(text)


@pytest.fixture
def client():
    gate.clear()
    done.clear()
    with TestClient(Items) as found:
        yield found
    gate.set()


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "document"),
    [
        ("GET", "/items/7", {}, 200, {"id": 7, "tags": ["none"], "limit": 1}),
        ("GET", "/items/7?tags=a&tags=b&limit=3", {}, 200, {"id": 7, "tags": ["a", "b"], "limit": 3}),
        ("GET", "/items/7", {"params": {"tags": ["one"]}}, 200, {"id": 7, "tags": ["one"], "limit": 1}),
        ("PUT", "/items/5", {"json": {"name": "x"}}, 201, {"id": 5, "name": "x", "params": {"id": "5"}}),
        ("DELETE", "/items/5?force=true", {}, 200, {"id": 5, "force": True}),
        ("POST", "/own", {"json": {"code": 202}}, 202, {"own": 202}),
        ("POST", "/own", {"json": {"code": 503}}, 503, {"own": 503}),
        ("POST", "/litestar", {}, 404, {"gone": True}),
    ],
)
def test_answers(client, method, path, options, status, document):
    answer = client.request(method, f"/v1{path}", **options)
    assert (answer.status_code, answer.json()) == (status, document)
    assert answer.headers["x-request-id"]
    assert answer.headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize(
    ("method", "path", "place"),
    [
        ("GET", "/v1/items/x", "$.id"),
        ("GET", "/v1/items/7?limit=x", "$.limit"),
        ("GET", "/v1/items/7?other=1", "$.other"),
        ("PUT", "/v1/items/7", "$.name"),
    ],
)
def test_a_wrong_field_is_named_alike_wherever_it_comes_from(client, method, path, place):
    error = client.request(method, path, json=None if method == "GET" else {}).json()["error"]
    assert error["path"] == place
    assert error["message"].startswith(f"{place}: ")


def test_exact_routes_stand_before_parameters_and_paths_may_hold_slashes(client):
    assert client.get("/v1/items/special").text == "exact"
    assert client.get("/v1/files/a/b.txt").text == "a/b.txt"
    assert client.get("/v1/readyz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/items/x", 400, "invalid_input"),
        ("GET", "/v1/items/7?limit=x", 400, "invalid_input"),
        ("PATCH", "/v1/items/7", 405, "method_not_allowed"),
        ("GET", "/items/7", 404, "not_found"),
        ("GET", "/v1/items/7/more", 404, "not_found"),
    ],
)
def test_what_does_not_fit(client, method, path, status, code):
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    if status == 405:
        assert answer.headers["allow"] == "DELETE, GET, PUT"


def test_head_is_get_without_a_body(client):
    answer = client.request("HEAD", "/v1/items/7")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


def test_a_response_keeps_its_headers_and_those_of_the_context_stand_beside(client):
    answer = client.post("/v1/own", json={"code": 200})
    assert (answer.headers["x-own"], answer.headers["content-type"]) == ("1", "application/json")
    assert client.post("/v1/text").headers["content-type"] == "text/plain; charset=utf-8"
    assert client.post("/v1/litestar").headers["x-beside"] == "yes"


def test_starlette_responses_are_sent_as_they_are(require_package):
    require_package("starlette")
    from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

    @bentotool.service
    class Starlette:
        @bentotool.api
        def teapot(self, ctx: bentotool.Context) -> JSONResponse:
            return JSONResponse({"tea": True}, status_code=418)

        @bentotool.api
        def plain(self):
            return PlainTextResponse("x", headers={"x-own": "1"})

        @bentotool.api
        def pieces(self):
            return StreamingResponse(iter([b"a", b"b"]))

    with TestClient(Starlette) as client:
        answer = client.post("/teapot")
        assert (answer.status_code, answer.json()) == (418, {"tea": True})
        assert client.post("/plain").headers["x-own"] == "1"
        assert client.post("/pieces").content == b"ab"


def test_the_context(client):
    answer = client.post("/v1/around", content=b"{}", headers={
        "content-type": "application/json", "cookie": 'a=1; b="two"; flag',
    })  # fmt: skip
    assert answer.json() == {
        "cookies": {"a": "1", "b": "two"}, "body": "{}", "json": {}, "url": "http://testserver/v1/around"
    }  # fmt: skip
    assert answer.cookies[0] == 'session="a b"; HttpOnly; Max-Age=5; Path=/; SameSite=lax; Secure'
    assert answer.cookies[1].startswith('old=""')
    assert "Max-Age=0" in answer.cookies[1]
    assert done == ["sync", "async"]


def test_the_context_stands_anywhere_among_the_parameters():
    @bentotool.service
    class First:
        @bentotool.api
        def first(self, ctx: bentotool.Context, a: int, b: int = 2) -> dict:
            return {"a": a, "b": b, "path": ctx.request.url.rsplit("/")[-1]}

        @bentotool.api
        def between(self, a: int, ctx: bentotool.Context, *, b: int = 2) -> dict:
            return {"a": a, "b": b, "path": ctx.request.url.rsplit("/")[-1]}

    with TestClient(First) as client:
        for name in ("first", "between"):
            assert client.post(f"/{name}", json={"a": 1}).json() == {"a": 1, "b": 2, "path": name}
            assert client.post(f"/{name}", json={"a": 1, "b": 3}).json() == {"a": 1, "b": 3, "path": name}
    for name in ("first", "between"):  # a call from another service
        call = TypedCall("First", First.apis[name])
        args, named = call.incoming([[1], {"b": 3}])
        assert First.apis[name].func(None, *args, **named, ctx=Named(name)) == {"a": 1, "b": 3, "path": name}
    args, named = TypedCall("First", First.apis["first"]).incoming([[1, 3], {}])
    assert First.apis["first"].func(None, *args, **named, ctx=Named("first")) == {"a": 1, "b": 3, "path": "first"}


class Named:
    def __init__(self, url):
        self.request, self.url = self, url


def test_a_header_of_the_context_cannot_start_another(client):
    answer = client.post("/v1/injects")
    assert answer.status_code == 500
    assert not answer.cookies


def overlapping(client, calls):
    """Answers of calls that are made at once; the gate opens when all but one were answered."""
    found = []

    def call(work):
        found.append(work())
        if len(found) == len(calls) - 1:
            gate.set()

    threads = [threading.Thread(target=call, args=(work,)) for work in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return sorted(answer.status_code for answer in found)


def test_the_concurrency_of_one_api(client):
    assert overlapping(client, [lambda: client.post("/v1/one")] * 3) == [200, 429, 429]
    assert client.post("/v1/one").status_code == 200


def test_bytes_that_wait_are_bounded(client):
    text = "x" * 120_000
    assert overlapping(client, [lambda: client.post("/v1/large", json={"text": text})] * 2) == [200, 503]
    assert client.post("/v1/large", json={"text": "x" * 900_000}).json() == 900_000, "one alone always fits"
    assert client.app.bodies.held == 0


@pytest.mark.parametrize("route", ["/a/{", "/a/{1x}", "/a/{x}/{x}", "/a/{}", "/a/x}"])
def test_routes_that_are_none(route):
    @bentotool.service
    class Wrong:
        @bentotool.api(route=route)
        def call(self, x: int) -> int:
            return x

    with pytest.raises(ConfigError, match="route"):
        _ = Wrong.apis


def test_a_route_names_what_the_function_takes():
    @bentotool.service
    class Wrong:
        @bentotool.api(route="/a/{y}")
        def call(self, x: int) -> int:
            return x

    with pytest.raises(ConfigError, match="{y}"):
        _ = Wrong.apis


def test_context_variables_stay_with_their_request():
    import contextvars

    seen = contextvars.ContextVar("seen", default=0)

    @bentotool.service(threads=4)
    class Leaky:
        @bentotool.api
        async def fast(self, n: int) -> list:
            before = seen.get()
            seen.set(n)
            await asyncio.sleep(0)
            return [before, seen.get()]

        @bentotool.api
        def slow(self, n: int) -> list:
            before = seen.get()
            seen.set(n)
            return [before, seen.get()]

    with TestClient(Leaky) as client:
        for path in ("/fast", "/slow"):
            for n in range(1, 6):
                assert client.post(path, json={"n": n}).json() == [0, n]
