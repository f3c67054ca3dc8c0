"""Applications mounted on a service, and middleware around it."""

import contextlib
import json
import threading

import pytest

import bentotool
from bentotool.errors import ConfigError, ServiceLoadError
from bentotool.testing import TestClient

said = []


async def bare(scope, receive, send):
    """Tells what it was given; has a lifespan that notes what it sees."""
    if scope["type"] == "lifespan":
        for done in ("startup", "shutdown"):
            await receive()
            said.append(done)
            scope["state"]["made"] = "at startup"
            await send({"type": f"lifespan.{done}.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": scope["path"]})
        await receive()
        return
    if scope["path"].endswith("/fails"):
        raise RuntimeError("secret")
    if scope["path"].endswith("/hangs"):
        await receive()
        await receive()
        return
    body = {key: scope[key] for key in ("path", "root_path", "state")}
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/fails":
        raise RuntimeError("secret")
    body = environ["wsgi.input"].read()
    seen = {key: environ[key] for key in ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_METHOD")}
    seen |= {"body": body.decode(), "x": environ.get("HTTP_X_A"), "thread": threading.current_thread().name}
    start_response("201 Created", [("Content-Type", "application/json"), ("Set-Cookie", "a=1")])
    return [json.dumps(seen).encode()[:5], json.dumps(seen).encode()[5:]]


@bentotool.asgi_app(bare, path="/deep/er", name="deeper")
@bentotool.service(path_prefix="/v1", traffic={"timeout": 0.5, "max_concurrency": 1})
@bentotool.asgi_app(bare, path="/deep")
@bentotool.wsgi_app(wsgi, path="/old")
class Mounting:
    @bentotool.api(route="/deep/api")
    def api(self) -> str:
        return "api"


@pytest.fixture
def client():
    said.clear()
    with TestClient(Mounting) as found:
        yield found


def test_paths_and_the_lifespan():
    said.clear()
    with TestClient(Mounting) as client:
        assert said == ["startup", "startup"], "one of each"
        assert client.get("/v1/deep/x").json() == {
            "path": "/v1/deep/x", "root_path": "/v1/deep", "state": {"made": "at startup"}
        }  # fmt: skip
        assert client.get("/v1/deep/er/x").json()["root_path"] == "/v1/deep/er"
        assert client.post("/v1/deep/api").text == "api", "an API stands before a mount"
        assert client.get("/v1/deeper").status_code == 404
        assert client.get("/v1/readyz").status_code == 200
        with client.websocket("/v1/deep/ws") as socket:
            assert socket.receive() == "/v1/deep/ws"
    assert said[2:] == ["shutdown", "shutdown"]


def test_a_mount_without_its_slash(client):
    answer = client.get("/v1/deep?a=1")
    assert (answer.status_code, answer.headers["location"]) == (307, "deep/?a=1")


def test_failures_and_limits_of_a_mount(client):
    failed = client.get("/v1/deep/fails")
    assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal")
    late = client.get("/v1/deep/hangs")
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    metrics = client.get("/v1/metrics").text
    assert 'endpoint="/deep/{path}"' in metrics
    assert client.app.in_flight == 0


def test_wsgi(client):
    answer = client.post("/v1/old/a%20b?q=1", content=b"body", headers={"x-a": "1", "content-type": "text/plain"})
    assert answer.status_code == 201
    assert answer.cookies == ["a=1"]
    seen = answer.json()
    assert seen.pop("thread").startswith("call-")
    assert seen == {
        "SCRIPT_NAME": "/v1/old", "PATH_INFO": "/a%20b", "QUERY_STRING": "q=1", "REQUEST_METHOD": "POST",
        "body": "body", "x": "1",
    }  # fmt: skip
    assert client.get("/v1/old/fails").status_code == 500


def test_two_at_one_path_and_what_is_no_path():
    with pytest.raises(ConfigError, match="two applications"):

        @bentotool.asgi_app(bare, path="/a/")
        @bentotool.asgi_app(bare, path="/a")
        @bentotool.service
        class Twice:
            pass

    for path in ("a", "/a b", "/{x}"):
        with pytest.raises(ConfigError, match="not a path"):
            bentotool.asgi_app(bare, path=path)
    with pytest.raises(ConfigError, match="not an application"):
        bentotool.asgi_app("text")


def test_an_application_that_cannot_start():
    async def refuses(scope, receive, send):
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "Traceback\nno database"})

    @bentotool.service
    class Refusing:
        pass

    Refusing.mount_asgi_app(refuses, path="/x")
    with pytest.raises(ServiceLoadError, match=r"/x.*no database"), TestClient(Refusing):
        pass


def test_an_application_without_a_lifespan():
    async def plain(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    @bentotool.service
    class Plain:
        @bentotool.api
        def api(self) -> int:
            return 1

    Plain.mount_asgi_app(plain)
    with TestClient(Plain) as client:
        assert client.get("/anything").status_code == 204
        assert client.post("/api").json() == 1
        assert client.get("/readyz").status_code == 200, "a mount at the root takes no probe away"
        assert client.get("/schema.json").status_code == 200
        assert client.get("/").status_code == 204, "nor does it say what it has: so the page is its own"


def test_fastapi_routes_that_are_methods(require_package):
    require_package("fastapi")
    from fastapi import Depends, FastAPI, WebSocket

    @contextlib.asynccontextmanager
    async def life(app):
        said.append("fast up")
        yield
        said.append("fast down")

    app = FastAPI(lifespan=life)

    @bentotool.asgi_app(app, path="/api")
    @bentotool.service(path_prefix="/v1")
    class Fast:
        def __init__(self):
            self.n = 41

        def known(self) -> int:
            return self.n

        @app.get("/n")
        def read(self, plus: int, known: int = Depends(known)):
            return {"n": self.n + plus, "known": known}

        @app.post("/n")
        async def write(self, n: int) -> int:
            self.n = n
            return bentotool.get_current_service().n

        @app.websocket("/ws")
        async def talk(self, websocket: WebSocket):
            await websocket.accept()
            await websocket.send_json(self.n)
            await websocket.close()

        @bentotool.api
        def own(self) -> int:
            return self.n

    said.clear()
    for _ in range(2):  # an application may be started again
        with TestClient(Fast) as client:
            assert client.get("/v1/api/n?plus=1").json() == {"n": 42, "known": 41}
            assert client.get("/v1/api/n").status_code == 422, "FastAPI's own"
            assert client.post("/v1/api/n?n=7").json() == 7
            assert client.post("/v1/own").json() == 7
            with client.websocket("/v1/api/ws") as socket:
                assert socket.receive_json() == 7
            paths = client.get("/v1/docs.json").json()["paths"]
            assert {entry["name"] for entry in paths["/v1/api/n"]["get"]["parameters"]} == {"plus"}
            assert client.get("/v1/schema.json").json()["paths"]["/api"] == {"mounted": True}
    assert said == ["fast up", "fast down"] * 2


def test_flask(require_package):
    require_package("flask")
    from flask import Flask, request

    app = Flask("old")

    @app.post("/hi/<name>")
    def hi(name):
        return {"hi": name, "got": request.get_json(), "root": request.script_root}

    @bentotool.service
    class Old:
        pass

    Old.mount_wsgi_app(app, path="/old")
    with TestClient(Old) as client:
        assert client.post("/old/hi/bob", json=[1]).json() == {"hi": "bob", "got": [1], "root": "/old"}


class Noting:
    def __init__(self, app, name="", fails=False):
        self.app, self.name, self.fails = app, name, fails

    async def __call__(self, scope, receive, send):
        said.append(self.name)
        if self.fails and scope["path"] == "/fails":
            raise RuntimeError("secret")
        await self.app(scope, receive, send)


def test_middleware_runs_in_order_behind_the_host_check():
    @bentotool.service(http={"allowed_hosts": ["testserver"]})
    class Wrapped:
        @bentotool.api
        def api(self) -> int:
            return 1

    Wrapped.add_asgi_middleware(Noting, name="outer")
    Wrapped.add_asgi_middleware(Noting, name="inner", fails=True)
    said.clear()
    with TestClient(Wrapped) as client:
        assert client.post("/api").json() == 1
        assert said == ["outer", "inner"]
        said.clear()
        wrong = client.post("/api", headers={"host": "evil.example"})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (421, "host_not_served")
        assert said == [], "what is not for this server reaches no middleware"
        failed = client.get("/fails")
        assert (failed.status_code, failed.json()["error"]["code"]) == (500, "internal")
        assert "secret" not in failed.text
        assert client.get("/readyz").status_code == 200
        with pytest.raises(bentotool.WebSocketDisconnect), client.websocket("/fails"):
            pass


def test_middleware_that_cannot_be_made():
    @bentotool.service
    class Wrong:
        pass

    Wrong.add_asgi_middleware(Noting, nmae="x")
    with pytest.raises(ServiceLoadError, match=r"Noting.*nmae"):
        Wrong.to_asgi()


def test_documents_of_mounted_applications(require_package):
    for name in ("fastapi", "pydantic", "openapi_spec_validator"):
        require_package(name)
    from fastapi import FastAPI
    from openapi_spec_validator import validate
    from pydantic import create_model

    def app(**fields):
        made, item = FastAPI(), create_model("Item", **fields)

        @made.post("/items")
        def add(item: item) -> item:
            return item

        return made

    class Silent:
        async def __call__(self, scope, receive, send):
            raise NotImplementedError

        def openapi(self):
            raise RuntimeError("no")

    same = app(a=(int, ...))

    @bentotool.mount_asgi_app(same, path="/one")
    @bentotool.asgi_app(same, path="/again")
    @bentotool.asgi_app(app(b=(str, ...)), path="/two")
    @bentotool.asgi_app(Silent(), path="/three")
    @bentotool.service(path_prefix="/v1")
    class Several:
        @bentotool.api(route="/two/items")
        def own(self, x: int) -> int:
            return x

    document = Several.openapi()
    validate(document)
    paths, schemas = document["paths"], document["components"]["schemas"]
    assert paths["/v1/two/items"]["post"]["operationId"] == "Several__own", "an API stands before a mount"

    def fields(path):
        reference = paths[path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        return set(schemas[reference.rpartition("/")[2]]["properties"])

    assert fields("/v1/one/items") == fields("/v1/again/items") == {"a"}
    assert {"b"} in [set(schema["properties"]) for schema in schemas.values()], "two schemas named Item"


def test_gradio(require_package):
    require_package("gradio")
    import gradio

    page = gradio.Interface(fn=lambda text: bentotool.get_current_service().shout(text), inputs="text", outputs="text")

    @bentotool.gradio.mount_gradio_app(page, path="/ui")
    @bentotool.service(path_prefix="/v1")
    class Loud:
        @bentotool.api
        def shout(self, text: str) -> str:
            return text.upper()

    with TestClient(Loud) as client:
        assert '"root":"http://testserver/v1/ui"' in client.get("/v1/ui/").text
        assert client.post("/v1/shout", json={"text": "a"}).text == "A"
