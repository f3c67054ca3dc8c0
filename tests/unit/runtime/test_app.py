"""The ASGI application, called in process through httpx."""

import asyncio
import re
import threading

import httpx
import pytest

import bentotool
from bentotool.exceptions import ClientGone, NotFound
from bentotool.runtime.app import Application
from bentotool.runtime.lane import Lane
from bentotool.runtime.streams import frame_event

started = []


@bentotool.service(traffic={"timeout": 5, "max_queue": 2}, http={"max_body_bytes": 100}, threads=1)
class Demo:
    def __init__(self):
        self.gate = threading.Event()
        self.running = 0
        self.ready = True

    @bentotool.on_startup
    async def begin(self):
        started.append("up")

    @bentotool.on_shutdown
    def end(self):
        started.append("down")

    def __is_ready__(self):
        return self.ready

    @bentotool.api
    async def noop(self, x: list[float]) -> dict[str, float]:
        return {"y": x[0]}

    @bentotool.api(batchable=True, max_batch_size=4)
    def double(self, rows: list[int]) -> list[int]:
        assert len(rows) <= 4
        if 13 in rows:
            raise ValueError("secret detail")
        return [row * 2 for row in rows]

    @bentotool.api
    def block(self) -> str:
        self.running += 1
        self.gate.wait(5)
        return "done"

    @bentotool.api
    async def sleep(self) -> None:
        await asyncio.sleep(5)

    @bentotool.api
    def missing(self) -> None:
        raise NotFound("no such thing")

    @bentotool.api
    def wrong(self) -> int:
        return "text"

    @bentotool.api
    def text(self, ctx: bentotool.Context) -> str:
        ctx.response.status_code = 202
        ctx.response.headers["X-Kind"] = ctx.request.headers["x-asked"]
        (ctx.temp_dir / "file").write_text("x")
        return "hello"

    @bentotool.api
    def count(self, n: int):
        for number in range(n):
            if number == 3:
                raise RuntimeError("third")
            yield {"i": number}

    @bentotool.api(method="GET")
    async def add(self, a: int, b: int = 1) -> int:
        return a + b


def served(work, service=Demo, **options):
    """Run `work(client, app)` with the application started."""

    async def main():
        app = Application(service, **options)
        await app.start()
        transport = httpx.ASGITransport(app)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=10) as client:
                return await asyncio.wait_for(work(client, app), 20)
        finally:
            await app.stop()

    return asyncio.run(main())


def get(path, **options):
    return served(lambda client, app: client.get(path, **options))


def post(path, document=None, **options):
    return served(lambda client, app: client.post(path, json=document if document is not None else {}, **options))


def test_a_call():
    answer = post("/noop", {"x": [1.5, 2]}, headers={"X-Request-ID": "mine"})
    assert (answer.status_code, answer.json()) == (200, {"y": 1.5})
    assert answer.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/noop", b'{"x": ["a"]}', 400, "invalid_input"),
        ("POST", "/noop", b"{", 400, "invalid_input"),
        ("POST", "/noop", b"x" * 101, 413, "payload_too_large"),
        ("GET", "/noop", None, 405, "method_not_allowed"),
        ("POST", "/nowhere", b"{}", 404, "not_found"),
        ("POST", "/livez", b"{}", 405, "method_not_allowed"),
        ("POST", "/missing", b"{}", 404, "not_found"),
        ("POST", "/wrong", b"{}", 500, "invalid_output"),
        ("GET", "/add?a=x", None, 400, "invalid_input"),
        ("GET", "/assets/other.js", None, 404, "not_found"),
    ],
)
def test_failures_have_one_form(method, path, body, status, code):
    headers = {"Content-Type": "application/json"}
    answer = served(lambda client, app: client.request(method, path, content=body, headers=headers))
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]


def test_an_unknown_exception_is_masked_and_fails_alone(caplog):
    async def work(client, app):
        return await asyncio.gather(*(client.post("/double", json={"rows": [n]}) for n in (1, 13)))

    good, bad = served(work)
    assert good.json() == [2]
    assert bad.status_code == 500
    assert "secret" not in bad.text
    assert "secret detail" in caplog.text


def test_a_request_larger_than_a_batch_is_split():
    assert post("/double", {"rows": [1, 2, 3, 4, 5, 6, 7]}).json() == [2, 4, 6, 8, 10, 12, 14]
    assert post("/double", {"rows": []}).json() == []


def test_the_deadline_of_the_client_is_kept():
    async def work(client, app):
        short = {"X-Request-Timeout-Ms": "300"}
        answers = await asyncio.gather(
            client.post("/sleep", headers=short),
            client.post("/block", headers=short),
            client.post("/block", headers=short),
        )
        running = app.instance.running
        app.instance.gate.set()
        assert (await client.post("/noop", json={"x": [1]}, headers={"X-Request-Timeout-Ms": "0"})).status_code == 400
        await asyncio.sleep(0.05)
        return answers, running, app.instance.running

    answers, running, later = served(work)
    assert [answer.status_code for answer in answers] == [504, 504, 504]
    assert running == 1, "a call that cannot be interrupted keeps its slot"
    assert later == 1, "an expired call was started"


def test_a_full_queue_is_refused_at_once():
    async def work(client, app):
        tasks = [asyncio.create_task(client.post("/block")) for _ in range(6)]
        await asyncio.sleep(0.1)
        done = [task.result() for task in tasks if task.done()]
        app.instance.gate.set()
        await asyncio.gather(*tasks)
        return done

    refused = served(work)
    assert refused
    assert {answer.status_code for answer in refused} == {503}
    assert refused[0].headers["retry-after"] == "1"


def test_max_concurrency():
    @bentotool.service(traffic={"max_concurrency": 3})
    class Limited:
        @bentotool.api
        async def wait(self) -> None:
            await asyncio.sleep(0.1)

    async def work(client, app):
        return await asyncio.gather(*(client.post("/wait") for _ in range(5)))

    answers = served(work, Limited, workers=2)
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)


def test_context():
    answer = post("/text", {}, headers={"X-Asked": "yes"})
    assert (answer.status_code, answer.text, answer.headers["x-kind"]) == (202, "hello", "yes")
    assert answer.headers["content-type"].startswith("text/plain")


def test_streams():
    assert post("/count", {"n": 2}).text == '{"i":0}\n{"i":1}\n'
    events = post("/count", {"n": 2}, headers={"Accept": "text/event-stream"})
    assert events.headers["content-type"] == "text/event-stream"
    assert events.text == 'data: {"i":0}\n\ndata: {"i":1}\n\n'
    broken = post("/count", {"n": 9}, headers={"Accept": "text/event-stream"}).text
    assert "event: error" in broken
    assert "third" not in broken
    assert frame_event("a\nb") == b"data: a\ndata: b\n\n"
    assert frame_event("data: x\n\n") == b"data: x\n\n"


def test_query_parameters():
    assert get("/add?a=2").json() == 3


def test_probes_follow_the_service():
    async def work(client, app):
        seen = [(await client.get("/readyz")).status_code]
        app.instance.ready = False
        seen.append((await client.get("/readyz")).status_code)
        app.instance.ready = True
        app.problem = "workers crash in a loop"
        answer = await client.get("/readyz")
        assert "crash" in answer.json()["error"]["message"]
        seen += [
            answer.status_code,
            (await client.get("/livez")).status_code,
            (await client.get("/healthz")).status_code,
        ]
        return seen

    started.clear()
    assert served(work) == [200, 503, 503, 200, 200]
    assert started == ["up", "down"]


def test_documents_and_the_page_load_nothing_from_elsewhere():
    page = get("/")
    assert "http" not in page.text.replace("http-equiv", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for asset in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
        assert f'"assets/{asset}"' in page.text
        assert get(f"/assets/{asset}").status_code == 200
    assert get("/assets/swagger-ui.css", headers={"Accept-Encoding": "identity"}).text.startswith(".swagger-ui")
    assert get("/docs.json").json()["openapi"] == "3.1.0"
    assert get("/docs.json", headers={"X-Forwarded-Prefix": "/a/b/"}).json()["servers"] == [{"url": "/a/b"}]
    for wrong in ("//evil.example", "https://evil.example", "/a b", "/", "a"):
        assert "servers" not in get("/docs.json", headers={"X-Forwarded-Prefix": wrong}).json()
    assert get("/schema.json").json()["name"] == "Demo"


def test_metrics_count_by_route_template():
    async def work(client, app):
        await client.post("/noop", json={"x": [1]})
        await client.post("/noop", json={"x": "a"})
        await client.post("/double", json={"rows": [1, 2]})
        return (await client.get("/metrics")).text

    text = served(work)
    assert re.search(r'request_total{endpoint="/noop",http_response_code="200",[^}]*} 1\.0', text)
    assert re.search(r'request_total{endpoint="/noop",http_response_code="400",[^}]*} 1\.0', text)
    assert re.search(r'request_in_progress{endpoint="/noop",[^}]*} 0\.0', text)
    assert re.search(r'batch_size_sum{endpoint="/double",[^}]*} 2\.0', text)


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("localhost:3000", "/add?a=1", 200),
        ("[::1]:3000", "/add?a=1", 200),
        ("evil.example", "/add?a=1", 421),
        ("evil.example", "/", 421),
        ("10.0.0.7:3000", "/readyz", 200),
        ("10.0.0.7:3000", "/metrics", 200),
    ],
)
def test_only_loopback_names_are_answered_on_loopback(host, path, status):
    assert served(lambda c, app: c.get(path, headers={"Host": host}), loopback=True).status_code == status


def test_a_path_prefix():
    @bentotool.service(path_prefix="/v1")
    class Prefixed:
        @bentotool.api
        async def ping(self) -> int:
            return 1

    async def work(client, app):
        paths = ("/v1/readyz", "/v1/", "/v1/docs.json", "/ping", "/readyz")
        return (await client.post("/v1/ping")).json(), [(await client.get(path)).status_code for path in paths]

    assert served(work, Prefixed) == (1, [200, 200, 200, 404, 404])


def test_a_call_whose_client_has_left_is_not_started_and_does_not_hang():
    """A stream whose client leaves between two items once waited for a thread for ever."""
    calls = []

    async def main():
        lane = Lane(threads=1, max_waiting=5)
        with pytest.raises(ClientGone):
            await asyncio.wait_for(lane.run(lambda: calls.append(1), gone=lambda: True), 5)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await asyncio.wait_for(lane.run(lambda: next(iter(()))), 5)
        assert await asyncio.wait_for(lane.run(lambda: 7), 5) == 7
        lane.close()

    asyncio.run(main())
    assert calls == []
