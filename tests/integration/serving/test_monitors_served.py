"""Data logging of a real server: every record that was taken is in a file or at a collector, or counted as lost."""

from __future__ import annotations

import concurrent.futures
import http.server
import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

SERVICE = """
import os, signal
import bentotool

@bentotool.service(workers=3, threads=4%s)
class Watched:
    @bentotool.api
    def classify(self, x: float) -> str:
        with bentotool.monitor("iris") as mon:
            mon.log(x, name="x", role="feature", data_type="numerical")
            mon.log("setosa", name="species", role="prediction", data_type="categorical")
        return "setosa"

    @bentotool.api
    async def many(self, xs: list[float]) -> int:
        with bentotool.monitor("batches") as mon:
            mon.log_batch(xs, name="x", role="feature", data_type="numerical")
            mon.log_batch([2 * x for x in xs], name="double", role="prediction", data_type="numerical")
        return len(xs)

    @bentotool.api
    def broken(self) -> None:
        with bentotool.monitor("iris") as mon:
            mon.log(1.0, name="x", role="feature", data_type="numerical")
            raise RuntimeError("between")

    @bentotool.api
    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)
"""


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("data/*")) for line in path.read_bytes().splitlines()]


def outcomes(url: str, monitor: str) -> dict[str, float]:
    text = httpx.get(f"{url}/metrics").text
    found = re.findall(rf'bentotool_monitor_records_total{{monitor="{monitor}",outcome="(\w+)"}} (\S+)', text)
    return {outcome: float(number) for outcome, number in found}


def classify(client: httpx.Client, number: int) -> None:
    answer = client.post("/classify", json={"x": number}, headers={"x-request-id": f"r{number}"}, timeout=30)
    assert answer.status_code == 200


def test_every_record_is_in_a_file_after_sigterm(serving: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "p", SERVICE % "") as server, httpx.Client(base_url=server.url) as client:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: classify(client, number), range(400)))
        assert client.post("/broken").status_code == 500
        assert client.post("/many", json={"xs": [1, 2, 3]}).json() == 3
        server.process.send_signal(signal.SIGTERM)  # at once: what is buffered is still written
        assert server.process.wait(30) == 0
        found = rows(tmp_path / "monitoring" / "iris")
        assert sorted(row["request_id"] for row in found) == sorted(f"r{number}" for number in range(400))
        assert {(row["species"], row["request_id"] == f"r{int(row['x'])}") for row in found} == {("setosa", True)}
        batches = rows(tmp_path / "monitoring" / "batches")
        assert [(row["x"], row["double"]) for row in batches] == [(1, 2), (2, 4), (3, 6)]
        schemas = [path.read_text() for path in (tmp_path / "monitoring" / "iris" / "schema").iterdir()]
        assert all(
            json.loads(text)["schema"]
            == [
                {"name": "x", "role": "feature", "type": "numerical"},
                {"name": "species", "role": "prediction", "type": "categorical"},
            ]
            for text in schemas
        )
        assert len({path.name for path in (tmp_path / "monitoring" / "iris" / "data").iterdir()}) > 1


def test_a_killed_worker_leaves_whole_lines(serving: Any, tmp_path: Path, wire: Any) -> None:
    with serving(tmp_path / "p", SERVICE % "", "--workers", "1") as server:
        with httpx.Client(base_url=server.url) as client:
            for number in range(20):
                classify(client, number)
            wire.wait_for(lambda: outcomes(server.url, "iris") == {"written": 20})
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{server.url}/die")
        wire.wait_for(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        with httpx.Client(base_url=server.url) as client:
            classify(client, 20)
    assert len(rows(tmp_path / "monitoring" / "iris")) == 21


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in folders here")
def test_what_finds_no_room_is_counted_and_no_request_waits(serving: Any, tmp_path: Path, wire: Any) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    os.mkfifo(folder / "pipe")  # who opens it to write waits for a reader: a disk that never answers
    options = ', monitoring={"type": "service.Slow", "options": {"log_path": "monitoring", "buffer_records": 5}}'
    slow = """
from bentotool.sdk.monitor_files import FileMonitor

class Slow(FileMonitor):
    def _write(self, records):
        open("pipe", "wb").close()
        return super()._write(records)
"""
    with serving(folder, slow + SERVICE % options, "--workers", "1") as server:
        with httpx.Client(base_url=server.url) as client:
            for number in range(50):
                classify(client, number)
            dropped = outcomes(server.url, "iris").get("dropped", 0)
            assert dropped >= 40
            reader = os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
            try:
                wire.wait_for(lambda: sum(outcomes(server.url, "iris").values()) == 50)
            finally:
                os.close(reader)
            assert outcomes(server.url, "iris") == {"dropped": dropped, "written": 50 - dropped}
        assert "records are dropped" in server.log
    assert len(rows(tmp_path / "monitoring" / "iris")) == 50 - dropped


def test_a_folder_that_cannot_be_written_fails_no_request(serving: Any, tmp_path: Path, wire: Any) -> None:
    (tmp_path / "file").write_text("no folder")
    options = f', monitoring={{"options": {{"log_path": {str(tmp_path / "file")!r}}}}}'
    with serving(tmp_path / "p", SERVICE % options, "--workers", "1") as server:
        with httpx.Client(base_url=server.url) as client:
            for number in range(3):
                classify(client, number)
        wire.wait_for(lambda: outcomes(server.url, "iris") == {"failed": 3})
        assert "monitor iris: records cannot be stored" in server.log


def test_monitoring_can_be_off(serving: Any, tmp_path: Path) -> None:
    with serving(tmp_path / "p", SERVICE % ', monitoring={"enabled": False}') as server:
        assert httpx.post(f"{server.url}/classify", json={"x": 1}).status_code == 200
    assert not (tmp_path / "monitoring").exists()


@pytest.fixture(autouse=True)
def _started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is below the folder where the server was started, which need not be the project's."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def collector() -> Iterator[Any]:
    """An OTLP collector: ``posted`` has (path, headers, body); the first two requests are answered with 503."""
    posted: list[tuple[str, Any, bytes]] = []
    answers = iter([503, 503])

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = next(answers, 200)
            if status == 200:
                posted.append((self.path, self.headers, body))
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.posted = posted  # type: ignore[attr-defined]
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_records_reach_a_collector(serving: Any, tmp_path: Path, collector: Any) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"http://127.0.0.1:{collector.server_port}/v1/logs",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s%20e",
        "OTEL_SERVICE_NAME": "flowers",
    }
    with serving(
        tmp_path / "p", SERVICE % ', monitoring={"type": "otlp"}', "--workers", "1", environment=environment
    ) as server:
        with httpx.Client(base_url=server.url) as client:
            for number in range(30):
                classify(client, number)
        server.stop()
        assert all((path, headers["api-key"]) == ("/v1/logs", "s e") for path, headers, _ in collector.posted)
        documents = [json.loads(body)["resourceLogs"][0] for _, _, body in collector.posted]
        resource = {pair["key"]: pair["value"]["stringValue"] for pair in documents[0]["resource"]["attributes"]}
        assert resource["service.name"] == "flowers"
        records = [record for document in documents for record in document["scopeLogs"][0]["logRecords"]]
        assert sorted(json.loads(record["body"]["stringValue"])["x"] for record in records) == list(range(30))
        told = {pair["key"]: pair["value"]["stringValue"] for pair in records[0]["attributes"]}
        assert told["monitor.name"] == "iris"
        assert [column["name"] for column in json.loads(told["monitor.schema"])] == ["x", "species"]
    assert not (tmp_path / "monitoring").exists()
