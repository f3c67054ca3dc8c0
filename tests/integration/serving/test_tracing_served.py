"""Traces of real servers, as a collector gets them: requests, batches, calls between services and of clients."""

from __future__ import annotations

import concurrent.futures
import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}


class Collector:
    """Takes OTLP over HTTP and keeps spans by name."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, str]] = []
        kept = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                kept.take(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_args: Any) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.server.server_port}",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append({pair.key: pair.value.string_value for pair in resource.resource.attributes})
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def collector(require_package: Any) -> Iterator[Collector]:
    require_package("opentelemetry")
    made = Collector()
    yield made
    made.close()


def value(span: Any, key: str) -> Any:
    found = next((pair.value for pair in span.attributes if pair.key == key), None)
    return None if found is None else getattr(found, found.WhichOneof("value"))


SERVICE = """
import sys, time
import bentotool

@bentotool.service(workers=2, threads=4, http={"response": {"trace_id": True}}%s)
class Traced:
    @bentotool.api(route="/items/{item}", method="GET")
    def item(self, item: int) -> int:
        from opentelemetry import trace
        with trace.get_tracer("own").start_as_current_span("own work"):
            return item

    @bentotool.api
    async def modules(self) -> list[str]:
        return sorted(name for name in sys.modules if name.startswith(("opentelemetry.trace", "opentelemetry.sdk")))

    @bentotool.api
    def broken(self) -> None:
        raise RuntimeError("no")

    @bentotool.api(batchable=True, max_batch_size=64)
    def double(self, rows: list[int]) -> list[int]:
        time.sleep(0.2)
        return [2 * row for row in rows]
"""


def test_spans_of_requests(serving: Any, tmp_path: Path, collector: Collector) -> None:
    environment = {**collector.environment, "OTEL_RESOURCE_ATTRIBUTES": "team=a"}
    with serving(tmp_path / "p", SERVICE % "", environment=environment) as server:
        answer = httpx.get(f"{server.url}/items/3", headers={**PARENT, "x-request-id": "mine"})
        assert answer.headers["x-bentoml-trace-id"] == TRACE
        httpx.post(f"{server.url}/broken")
        httpx.get(f"{server.url}/scan.php")
        httpx.get(f"{server.url}/readyz")
        not_sampled = {"traceparent": PARENT["traceparent"][:-2] + "00"}
        httpx.get(f"{server.url}/items/4", headers=not_sampled)
        server.stop()  # what is not sent yet is sent now
    (span,) = collector.named("GET /items/{item}")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    (own,) = collector.named("own work")
    assert own.parent_span_id == span.span_id
    assert value(span, "http.route") == "/items/{item}"
    assert (value(span, "url.path"), value(span, "http.response.status_code")) == ("/items/3", 200)
    assert value(span, "bentotool.request_id") == "mine"
    (broken,) = collector.named("POST /broken")
    assert (value(broken, "http.response.status_code"), broken.status.code) == (500, 2)
    (lost,) = collector.named("GET")
    assert value(lost, "http.response.status_code") == 404
    assert len(collector.spans) == 4
    assert {resource["service.name"] for resource in collector.resources} == {"Traced"}
    assert collector.resources[0]["team"] == "a"


def test_a_batch_is_linked_to_its_requests_and_they_to_it(serving: Any, tmp_path: Path, collector: Collector) -> None:
    with serving(tmp_path / "p", SERVICE % "", "--workers", "1", environment=collector.environment) as server:

        def ask(number: int) -> None:
            answer = httpx.post(f"{server.url}/double", json={"rows": [number]}, timeout=30)
            assert answer.json() == [2 * number]

        with concurrent.futures.ThreadPoolExecutor(9) as pool:
            first = pool.submit(ask, 0)
            time.sleep(0.1)  # while it runs the others gather
            list(pool.map(ask, range(1, 9)))
            first.result()
        server.stop()
    requests = {span.span_id: span for span in collector.named("POST /double")}
    batches = collector.named("batch double")
    assert len(requests) == 9
    assert 2 <= len(batches) < 9
    linked = [link.span_id for batch in batches for link in batch.links]
    assert sorted(linked) == sorted(requests)
    for batch in batches:
        assert value(batch, "bentotool.batch.items") == value(batch, "bentotool.batch.units") == len(batch.links)
        assert batch.trace_id in {requests[link.span_id].trace_id for link in batch.links}
        for link in batch.links:
            assert [back.span_id for back in requests[link.span_id].links] == [batch.span_id]


GRAPH = """
import bentotool

@bentotool.service
class Inner:
    @bentotool.api
    async def add(self, x: int) -> int:
        with bentotool.monitor("inner") as mon:
            mon.log(x, name="x", role="feature", data_type="numerical")
        return x + 1

    @bentotool.api
    def count(self, n: int):
        yield from (str(number) for number in range(n))

@bentotool.service
class Outer:
    inner = bentotool.depends(Inner)

    @bentotool.api
    async def run(self, x: int) -> int:
        async for _ in self.inner.to_async.count(2):
            pass
        return await self.inner.to_async.add(x)

    @bentotool.api
    def blocking(self, x: int) -> int:
        return self.inner.to_sync.add(x)

    @bentotool.api
    def by_client(self, url: str) -> str:
        with bentotool.SyncHTTPClient(url) as client:
            return client.echo()
"""
ECHO = """
import bentotool

@bentotool.service
class Echo:
    @bentotool.api
    def echo(self, ctx: bentotool.Context) -> str:
        headers = ctx.request.headers
        return headers.get("traceparent", "none") + " " + headers["x-request-id"]
"""


def test_traces_go_through_services(
    serving: Any, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving(tmp_path / "p", GRAPH, environment=collector.environment) as server:
        for path in ("run", "blocking"):
            headers = {**PARENT, "x-request-id": path}
            assert httpx.post(f"{server.url}/{path}", json={"x": 1}, headers=headers).json() == 2
        server.stop()
    for name, called in (("POST /run", 2), ("POST /blocking", 1)):
        (outer,) = collector.named(name)
        assert outer.parent_span_id.hex() == SPAN
        inner = [span for span in collector.spans if span.parent_span_id == outer.span_id]
        assert len(inner) == called
        assert {span.trace_id.hex() for span in inner} == {TRACE}
        assert "Inner.add" in {span.name for span in inner}
    assert {resource["service.name"] for resource in collector.resources} == {"Outer", "Inner"}
    records = (tmp_path / "monitoring" / "inner" / "data").iterdir()
    found = [json.loads(line) for path in records for line in path.read_text().splitlines()]
    assert [(row["request_id"], row["trace_id"]) for row in found] == [("run", TRACE), ("blocking", TRACE)]


@pytest.mark.parametrize("traced", [True, False])
def test_clients_carry_the_request_they_work_for(
    serving: Any, tmp_path: Path, collector: Collector, traced: bool
) -> None:
    environment = collector.environment if traced else {}
    with (
        serving(tmp_path / "echo", ECHO) as echo,
        serving(tmp_path / "p", GRAPH, environment=environment) as server,
    ):
        answer = httpx.post(
            f"{server.url}/by_client", json={"url": echo.url}, headers={**PARENT, "x-request-id": "id1"}, timeout=30
        )
        server.stop()
    told, request_id = answer.text.split()
    assert (told.split("-")[1], request_id) == (TRACE, "id1")
    if traced:
        (span,) = collector.named("POST /by_client")
        assert told.split("-")[2] == span.span_id.hex()
    else:
        assert told.split("-")[2] == SPAN, "where nothing is traced the caller's context goes on as it came"


TASKS = """
import logging
import bentotool

log = logging.getLogger(__name__)

@bentotool.service
class Tasks:
    @bentotool.task
    def job(self, x: int) -> int:
        log.info("working")
        return x
"""


def test_a_task_runs_in_the_trace_of_its_submission(serving: Any, tmp_path: Path, collector: Collector) -> None:
    environment = {**collector.environment, "BENTOTOOL_TASKS": str(tmp_path / "tasks")}
    with serving(tmp_path / "p", TASKS, environment=environment) as server, httpx.Client(base_url=server.url) as client:
        submitted = client.post("/job/submit", json={"x": 1}, headers=PARENT)
        task = submitted.json()["task_id"]
        end = time.monotonic() + 30
        while client.get("/job/status", params={"task_id": task}).json()["status"] != "completed":
            assert time.monotonic() < end
            time.sleep(0.02)
        server.stop()
    (request,) = collector.named("POST /job/submit")
    (run,) = collector.named("task job")
    assert (run.trace_id.hex(), run.parent_span_id) == (TRACE, request.span_id)
    said = next(line for line in server.log.splitlines() if line.startswith("INFO service: working"))
    assert f"request_id={submitted.headers['x-request-id']} trace_id={TRACE}" in said


def test_a_collector_that_is_away_holds_nobody_up(serving: Any, tmp_path: Path, require_package: Any) -> None:
    require_package("opentelemetry")
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with serving(tmp_path / "p", SERVICE % "", "--grace", "2", environment=environment) as server:
        assert [httpx.get(f"{server.url}/items/{item}").json() for item in range(20)] == list(range(20))
        assert server.stop() == 0
    assert "ended (" not in server.log, "no worker had to be killed"


def test_nothing_is_loaded_when_off(serving: Any, tmp_path: Path, require_package: Any) -> None:
    require_package("opentelemetry")
    with serving(tmp_path / "p", SERVICE % "") as server:
        assert httpx.post(f"{server.url}/modules").json() == []
    off = {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}
    asked = ', tracing={"exporter_type": "otlp"}'
    with serving(tmp_path / "q", SERVICE % asked, environment=off) as server:
        assert httpx.post(f"{server.url}/modules").json() == []


def test_what_the_service_says_of_its_traces(serving: Any, tmp_path: Path, collector: Collector) -> None:
    endpoint = collector.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces"
    options = {
        "exporter_type": "otlp",
        "excluded_urls": ["^/items/1"],
        "otlp": {"protocol": "http", "endpoint": endpoint, "compression": "none"},
    }
    with serving(tmp_path / "p", SERVICE % f", tracing={options!r}") as server:
        for item in (1, 12, 2):
            httpx.get(f"{server.url}/items/{item}")
        server.stop()
    assert [value(span, "url.path") for span in collector.named("GET /items/{item}")] == ["/items/2"]


def test_spans_on_the_console(serving: Any, tmp_path: Path, require_package: Any) -> None:
    require_package("opentelemetry")
    with serving(tmp_path / "p", SERVICE % "", environment={"OTEL_TRACES_EXPORTER": "console"}) as server:
        httpx.get(f"{server.url}/items/1", headers=PARENT)
    spans = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
    assert [span["name"] for span in spans] == ["own work", "GET /items/{item}"]
    assert spans[1]["context"]["trace_id"] == f"0x{TRACE}"
