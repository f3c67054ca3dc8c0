"""Logs of a real server: one record for each request, ids that hold from the caller to the service's own lines."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

SERVICE = """
import logging
import bentotool

log = logging.getLogger(__name__)
library = logging.getLogger("some.library")

@bentotool.service(%s)
class Logged:
    @bentotool.api
    def sync(self, name: str) -> str:
        log.info("sync %%s", name)
        library.info("not heard")
        library.warning("heard")
        return name

    @bentotool.api
    async def awaited(self, name: str) -> str:
        log.info("awaited %%s", name)
        return name

    @bentotool.api
    async def stream(self, n: int):
        for number in range(n):
            log.info("streamed %%d", number)
            yield str(number)

    @bentotool.api
    def broken(self) -> str:
        raise RuntimeError("of no use")

    @bentotool.api(route="/items/{item}", method="GET")
    def item(self, item: int) -> int:
        return item
"""
ON = 'logging={"access": {"enabled": True}}'


def records(server: Any, logger: str | None = None) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in server.log.splitlines()]
    return [record for record in found if logger is None or record["logger"] == logger]


@pytest.fixture
def logged(serving: Any, tmp_path: Any) -> Any:
    return lambda options, *flags, **named: serving(tmp_path / "p", SERVICE % options, *flags, **named)


def test_ids_hold_from_the_caller_to_the_lines_of_the_service(logged: Any) -> None:
    with logged(ON) as server, httpx.Client(base_url=server.url) as client:
        given = client.post("/sync", json={"name": "a"}, headers={"x-request-id": "from-outside"})
        assert given.headers["x-request-id"] == "from-outside"
        made = [client.post("/awaited", json={"name": "a"}).headers["x-request-id"] for _ in range(3)]
        assert len(set(made)) == 3
        for odd in ("x" * 200, "tab\tid"):
            assert client.post("/awaited", json={"name": "b"}, headers={"x-request-id": odd}).headers[
                "x-request-id"
            ] not in (odd, *made)
        client.post("/stream", json={"n": 2}, headers={"x-request-id": "streaming"})
        client.post("/broken", headers={"x-request-id": "breaking"})
        assert client.get("/nowhere", headers={"x-request-id": "lost"}).headers["x-request-id"] == "lost"
    lines = server.log.splitlines()
    assert "INFO service: sync a [request_id=from-outside]" in lines
    assert "WARNING some.library: heard [request_id=from-outside]" in lines
    assert not [line for line in lines if "not heard" in line]
    assert "ERROR bentotool.service: broken failed [request_id=breaking]" in lines
    assert [line for line in lines if line.startswith("INFO service: streamed")] == [
        "INFO service: streamed 0 [request_id=streaming]", "INFO service: streamed 1 [request_id=streaming]",
    ]  # fmt: skip
    access = [line for line in lines if line.startswith("INFO bentotool.access: ")]
    assert len(access) == 9
    assert "GET /nowhere 404 " in access[-1]
    assert "request_id=lost" in access[-1]
    assert not [line for line in lines if "HTTP/1.1" in line], "uvicorn says nothing of its own"


def test_records_are_structured(serving: Any, tmp_path: Any, wire: Any) -> None:
    import subprocess
    import sys

    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "service.py").write_text(SERVICE % ON)
    command = [sys.executable, "-m", "bentotool.runtime", str(folder), "--port", "0", "--log-format", "json"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        url = json.loads(process.stdout.readline())["url"]
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        httpx.post(f"{url}/sync", json={"name": "a\nb"}, headers={"x-request-id": "one", "traceparent": parent})
        httpx.get(f"{url}/items/7?secret=1")
        httpx.get(f"{url}/readyz")
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
    found = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    own = next(record for record in found if record["logger"] == "service")
    assert (own["message"], own["level"], own["request_id"]) == ("sync a\nb", "info", "one")
    assert own["trace_id"] == "0af7651916cd43dd8448eb211c80319c", "the caller's, where nothing is traced here"
    first, second = (record for record in found if record["logger"] == "bentotool.access")
    for name, value in {
        "method": "POST", "path": "/sync", "route": "/sync", "status": 200, "request_id": "one", "scheme": "http",
        "request_content_type": "application/json", "request_content_length": 15, "response_content_length": 3,
        "response_content_type": "text/plain; charset=utf-8", "worker": "0", "level": "info",
    }.items():  # fmt: skip
        assert first[name] == value, name
    assert first["duration_ms"] > 0
    assert (second["path"], second["route"]) == ("/items/7", "/items/{item}")
    assert "secret" not in (folder / "log").read_text()


@pytest.mark.parametrize(
    ("options", "environment", "ok", "failed"),
    [
        ("", {}, 0, 0),
        ("", {"BENTOTOOL_ACCESS_LOG": "1"}, 4, 1),
        (ON, {"BENTOTOOL_ACCESS_LOG": "0"}, 0, 0),
        ('logging={"access": {"sample": 0}}', {}, 0, 1),
        ('logging={"access": {"skip_paths": ["/items", "/sync"]}}', {}, 1, 1),
    ],
)
def test_what_is_logged(logged: Any, options: str, environment: dict[str, str], ok: int, failed: int) -> None:
    with logged(options, environment=environment) as server, httpx.Client(base_url=server.url) as client:
        client.post("/sync", json={"name": "a"})
        client.get("/items/1")
        client.get("/items/2")
        client.post("/awaited", json={"name": "b"})
        client.post("/broken")
    access = [line for line in server.log.splitlines() if line.startswith("INFO bentotool.access: ")]
    assert [len([line for line in access if " 500 " in line]), len(access)] == [failed, ok + failed]


def test_a_service_that_sets_up_logging_keeps_its_own(serving: Any, tmp_path: Any) -> None:
    source = SERVICE % ""
    own = "import logging\nlogging.basicConfig(level='INFO', format='own %(request_id)s %(message)s')\n"
    with serving(tmp_path / "p", own + source) as server:
        httpx.post(f"{server.url}/sync", json={"name": "a"}, headers={"x-request-id": "mine"})
    assert "own mine sync a" in server.log.splitlines()
    assert server.log.count("sync a") == 1


BATCHED = """
import logging, threading, time
import bentotool

log = logging.getLogger(__name__)

@bentotool.service
class Batched:
    @bentotool.api(batchable=True)
    def double(self, rows: list[int]) -> list[int]:
        time.sleep(0.3)
        log.info("doubled %s", rows)
        return [2 * row for row in rows]
"""


def test_a_batch_names_its_requests(serving: Any, tmp_path: Any, together: Any) -> None:
    with serving(tmp_path / "p", BATCHED) as server:

        def ask(number: int) -> None:
            headers = {"x-request-id": f"r{number}"}
            assert httpx.post(f"{server.url}/double", json={"rows": [number]}, headers=headers, timeout=30).is_success

        together(*[lambda n=n: ask(n) for n in range(6)])
    found = [line for line in server.log.splitlines() if "doubled" in line]
    assert len(found) < 6
    for line in found:
        rows, ids = line.removeprefix("INFO service: doubled [").removesuffix("]").split("] [request_id=")
        assert [f"r{row}" for row in rows.split(", ")] == ids.split(",")


def test_a_level_for_all_loggers(logged: Any) -> None:
    with logged('logging={"level": "info"}') as server:
        httpx.post(f"{server.url}/sync", json={"name": "a"})
    assert "INFO some.library: not heard" in server.log
