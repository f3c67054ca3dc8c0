"""Tasks of an application in this process, asked over HTTP."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

import bentotool
from bentotool.errors import ConfigError
from bentotool.runtime.app import Application
from bentotool.sdk.task import TaskOptions

WAIT = 20.0
TOO_HIGH = {"x-task-priority": "101"}


@bentotool.service(metrics={"namespace": "t"})
class Work:
    def __init__(self) -> None:
        self.gate = threading.Event()
        self.ran: list[str] = []

    @bentotool.task(retries=2, retry_delay=0.01, result_ttl=60)
    def flaky(self, failures: int, ctx: bentotool.Context) -> int:
        assert ctx.task is not None
        if ctx.task.attempt <= failures:
            raise RuntimeError("not yet")
        return ctx.task.attempt

    @bentotool.task
    def wrong(self, ctx: bentotool.Context) -> None:
        assert ctx.task is not None
        self.ran.append(ctx.task.id)
        raise bentotool.exceptions.InvalidArgument("no such thing")

    @bentotool.task(max_waiting=2)
    def gated(self, name: str = "") -> str:
        run = bentotool.current_task()
        self.ran.append(name)
        while not self.gate.wait(0.01):
            if run is not None:
                run.progress(0.25, "waiting")
                run.check()
        return name

    @bentotool.task(parallel=2)
    async def forever(self) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            self.ran.append("stopped")

    @bentotool.task(timeout=0.05)
    async def slow(self) -> None:
        await asyncio.sleep(3600)

    @bentotool.task
    def double(self, x: int) -> int:
        return 2 * x

    @bentotool.task
    def reverse(self, file: Path, ctx: bentotool.Context) -> Path:
        made = ctx.temp_dir / "reversed.bin"
        made.write_bytes(file.read_bytes()[::-1])
        return made


class Asker:
    """A client of the wire alone."""

    def __init__(self, app: Application) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[arg-type]
        self.http = httpx.AsyncClient(transport=transport, base_url="http://localhost")
        self.app = app

    async def submit(self, task: str, headers: dict[str, str] | None = None, /, **values: Any) -> str:
        response = await self.http.post(f"/{task}/submit", json=values, headers=headers)
        assert response.status_code == 200, response.text
        return str(response.json()["task_id"])

    async def ask(self, method: str, name: str, word: str, id_: str) -> httpx.Response:
        return await self.http.request(method, f"/{name}/{word}", params={"task_id": id_})

    async def until(self, name: str, id_: str, *states: str) -> dict[str, Any]:
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            document: dict[str, Any] = (await self.ask("GET", name, "status", id_)).json()
            if document["status"] in states:
                return document
            await asyncio.sleep(0.01)
        raise AssertionError(f"{document} is none of {states}")


@asynccontextmanager
async def asking() -> AsyncIterator[Asker]:
    app = Work.to_asgi()
    await app.start()
    asker = Asker(app)
    try:
        yield asker
    finally:
        await asker.http.aclose()
        if app.instance is not None:
            app.instance.gate.set()
            await app.stop()


def run(test: Callable[[Asker], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        async with asking() as asker:
            await test(asker)

    asyncio.run(main())


def test_a_task_is_submitted_and_its_result_fetched() -> None:
    async def body(asker: Asker) -> None:
        assert (await asker.http.post("/double", json={"x": 4})).json() == 8
        id_ = await asker.submit("double", x=21)
        document = await asker.until("double", id_, "completed")
        assert document["task_id"] == id_
        assert document["attempt"] == 1
        assert document["created_at"] <= document["executed_at"] <= document["completed_at"]
        result = await asker.ask("GET", "double", "get", id_)
        assert (result.status_code, result.json()) == (200, 42)
        again = await asker.ask("POST", "double", "retry", id_)
        assert again.json()["task_id"] != id_
        await asker.until("double", again.json()["task_id"], "completed")

    run(body)


def test_files_go_in_and_come_out() -> None:
    async def body(asker: Asker) -> None:
        content = bytes(range(256)) * 4000
        submitted = await asker.http.post("/reverse/submit", files={"file": ("a.bin", content)})
        assert submitted.status_code == 200, submitted.text
        id_ = submitted.json()["task_id"]
        assert (await asker.until("reverse", id_, "completed", "failed"))["status"] == "completed"
        result = await asker.ask("GET", "reverse", "get", id_)
        assert result.content == content[::-1]
        assert "reversed.bin" in result.headers["content-disposition"]
        wrong = await asker.http.post("/reverse/submit", files={"other": ("a.bin", b"x")})
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_input")

    run(body)


def test_what_the_caller_does_wrong_is_said_at_once() -> None:
    async def body(asker: Asker) -> None:
        for response, status, code in (
            (await asker.http.post("/double/submit", json={"y": 1}), 400, "invalid_input"),
            (await asker.http.post("/double/submit", content=b"{}"), 415, "unsupported_media_type"),
            (await asker.http.get("/double/status"), 400, "invalid_input"),
            (await asker.ask("GET", "double", "status", "0" * 32), 404, "not_found"),
            (await asker.ask("GET", "double", "get", "0" * 32), 404, "not_found"),
            (await asker.ask("PUT", "double", "cancel", "nonsense"), 404, "not_found"),
            (await asker.ask("POST", "double", "retry", "'; drop table tasks; --"), 404, "not_found"),
            (await asker.ask("DELETE", "double", "cancel", "0"), 405, "method_not_allowed"),
            (
                await asker.http.post("/double/submit", json={"x": 1}, headers={"x-task-priority": "101"}),
                400,
                "invalid_input",
            ),
        ):
            assert (response.status_code, response.json()["error"]["code"]) == (status, code), response.text

    run(body)


def test_a_run_that_fails_is_tried_again_and_what_the_caller_did_wrong_is_not() -> None:
    async def body(asker: Asker) -> None:
        good, bad, wrong = await asker.submit("flaky", failures=2), await asker.submit("flaky", failures=9), None
        assert (await asker.until("flaky", good, "completed", "failed"))["attempt"] == 3
        assert (await asker.ask("GET", "flaky", "get", good)).json() == 3
        assert (await asker.until("flaky", bad, "completed", "failed"))["status"] == "failed"
        failure = await asker.ask("GET", "flaky", "get", bad)
        assert (failure.status_code, failure.json()["error"]["code"]) == (500, "internal")
        wrong = await asker.submit("wrong")
        assert (await asker.until("wrong", wrong, "failed"))["attempt"] == 1
        failure = await asker.ask("GET", "wrong", "get", wrong)
        assert (failure.status_code, failure.json()["error"]["message"]) == (400, "no such thing")
        assert asker.app.instance.ran == [wrong]

    run(body)


def test_progress_bounds_priorities_and_cancelling_what_waits() -> None:
    async def body(asker: Asker) -> None:
        running = await asker.submit("gated", name="first")
        document = await asker.until("gated", running, "in_progress")
        while document["message"] is None:
            document = await asker.until("gated", running, "in_progress")
        assert (document["progress"], document["message"]) == (0.25, "waiting")
        unfinished = await asker.ask("GET", "gated", "get", running)
        assert (unfinished.status_code, unfinished.json()["error"]["code"]) == (400, "task_not_finished")
        assert (await asker.ask("POST", "gated", "retry", running)).status_code == 400
        low = await asker.submit("gated", name="low")
        high = await asker.submit("gated", {"x-task-priority": "5"}, name="high")
        full = await asker.http.post("/gated/submit", json={"name": "more"})
        assert (full.status_code, full.json()["error"]["code"]) == (503, "unavailable")
        assert full.headers["retry-after"] == "5"
        cancelled = await asker.ask("PUT", "gated", "cancel", low)
        assert (cancelled.status_code, cancelled.json()["status"]) == (200, "canceled")
        assert (await asker.ask("POST", "gated", "cancel", low)).status_code == 200
        low = await asker.submit("gated", name="lower")
        asker.app.instance.gate.set()
        await asker.until("gated", low, "completed")
        await asker.until("gated", high, "completed")
        assert asker.app.instance.ran == ["first", "high", "lower"]
        late = await asker.ask("PUT", "gated", "cancel", high)
        assert (late.status_code, late.json()["error"]["code"]) == (400, "task_finished")

    run(body)


def test_cancelling_stops_what_can_be_stopped() -> None:
    async def body(asker: Asker) -> None:
        asynchronous, thread = await asker.submit("forever"), await asker.submit("gated", name="n")
        await asker.until("forever", asynchronous, "in_progress")
        await asker.until("gated", thread, "in_progress")
        for name, id_ in (("forever", asynchronous), ("gated", thread)):
            assert (await asker.ask("PUT", name, "cancel", id_)).json()["status"] == "canceled"
            assert (await asker.ask("GET", name, "get", id_)).json()["error"]["code"] == "task_canceled"
        assert asker.app.tasks is not None
        for kind in asker.app.tasks.runner._kinds.values():
            end = time.monotonic() + WAIT
            while kind.active or kind.lane.busy:  # the thread asks, and ends too
                assert time.monotonic() < end
                await asyncio.sleep(0.01)
        assert asker.app.instance.ran == ["n", "stopped"] or asker.app.instance.ran == ["stopped", "n"]
        assert (await asker.ask("GET", "gated", "status", thread)).json()["status"] == "canceled"

    run(body)


def test_a_key_makes_submitting_twice_harmless() -> None:
    async def body(asker: Asker) -> None:
        first = await asker.submit("double", {"idempotency-key": "k"}, x=1)
        assert await asker.submit("double", {"idempotency-key": "k"}, x=1) == first
        other = await asker.http.post("/double/submit", json={"x": 2}, headers={"idempotency-key": "k"})
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")

    run(body)


def test_a_run_has_its_time_limit() -> None:
    async def body(asker: Asker) -> None:
        id_ = await asker.submit("slow")
        await asker.until("slow", id_, "failed")
        assert (await asker.ask("GET", "slow", "get", id_)).json()["error"]["code"] == "deadline_exceeded"

    run(body)


def test_metrics_and_documents_know_tasks() -> None:
    async def body(asker: Asker) -> None:
        await asker.until("double", await asker.submit("double", x=1), "completed")
        running = await asker.submit("gated", name="x")
        await asker.until("gated", running, "in_progress")
        await asker.submit("gated", name="y")
        text = (await asker.http.get("/metrics")).text
        for line in (
            't_tasks{state="pending",task="gated"} 1.0',
            't_tasks{state="in_progress",task="gated"} 1.0',
            't_task_total{event="submitted",task="gated"} 2.0',
            't_task_total{event="completed",task="double"} 1.0',
            't_request_total{endpoint="/double/submit",http_response_code="200",runner_name=',
        ):
            assert line in text
        routes = {route["name"]: route for route in (await asker.http.get("/schema.json")).json()["routes"]}
        assert all(route["is_task"] for route in routes.values())

    run(body)


def test_tasks_survive_a_restart_and_secrets_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_TASKS", str(tmp_path / "kept"))

    async def first(asker: Asker) -> tuple[str, str, str]:
        running = await asker.submit("forever")
        await asker.until("forever", running, "in_progress")
        gated = await asker.submit("gated", {"authorization": "Bearer s3cret"}, name="a")
        await asker.until("gated", gated, "in_progress")
        return running, gated, await asker.submit("gated", name="b")

    async def second(asker: Asker, running: str, gated: str, waiting: str) -> None:
        asker.app.instance.gate.set()
        document = await asker.until("forever", running, "in_progress")
        assert document["attempt"] == 1  # the run that was given back does not count
        assert (await asker.until("gated", waiting, "completed"))["attempt"] == 1
        assert (await asker.until("gated", gated, "completed"))["attempt"] == 1

    async def main() -> None:
        async with asking() as asker:
            app = asker.app
            ids = await first(asker)
            app.drain_by = time.monotonic()  # no grace
            await app.stop()
        async with asking() as asker:
            await second(asker, *ids)

    asyncio.run(main())
    files = [file for file in (tmp_path / "kept").rglob("*") if file.is_file()]
    assert files
    assert not any(b"s3cret" in file.read_bytes() for file in files)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retrys": 1}, "unknown option 'retrys'"),
        ({"retries": -1}, "not a whole number"),
        ({"priority": 1000}, "from -100 to 100"),
        ({"result_ttl": 0}, "not a time above 0"),
        ({"method": "GET"}, "asked with POST"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bentotool.task(**options)


def test_an_option_of_the_decorator_is_suggested() -> None:
    with pytest.raises(ConfigError) as caught:
        bentotool.task(retrys=1)
    assert caught.value.hint == "did you mean 'retries'?"
    assert isinstance(Work.apis["double"].options, TaskOptions)


def test_an_unknown_store_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_TASKS", "absent://localhost")
    with pytest.raises(ImportError, match="bentotool-absent"):
        Work.to_asgi()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BENTOTOOL_TASKS", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="tasks cannot be kept in"):
        asyncio.run(Work.to_asgi().start())
