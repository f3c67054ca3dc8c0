"""Metrics as a Prometheus server sees them: exact on every scrape, whichever worker answers, whichever has died."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import signal
from typing import Any

import pytest

SERVICE = """
import asyncio, os, threading
import bentotool
from bentotool.metrics import Counter, Gauge, Histogram, Summary

SEEN = Counter("seen", "Calls", ["kind"])
SIZES = [Histogram(f"size_{n}", "Made while the service is imported", buckets=(1, 10)) for n in range(5)]
TOOK = Summary("took", "Time")
HELD = Gauge("held", "Of workers that run", multiprocess_mode="livesum")
MOST = Gauge("most", "Ever", multiprocess_mode="max")

@bentotool.service(workers=4, traffic={"timeout": 20}, metrics={"duration": {"min": 0.1, "max": 10, "factor": 10}})
class Counted:
    @bentotool.on_startup
    def hold(self) -> None:
        HELD.set(1)

    @bentotool.api
    async def work(self, x: int) -> int:
        SEEN.labels("work").inc()
        for size in SIZES:
            size.observe(x)
        if x == 6:
            MOST.set(6)
        return x

    @bentotool.api
    def pid(self) -> int:
        return os.getpid()

    @bentotool.api(route="/items/{item}/of/{owner}", method="GET")
    def item(self, item: int, owner: str) -> int:
        return item

    @bentotool.api
    def forked(self) -> int:
        child = os.fork()
        if not child:
            SEEN.labels("work").inc(1000)
            os._exit(0)
        os.waitpid(child, 0)
        return child
"""
WORKERS = 4


def value(text: str, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels."""
    total = 0.0
    for line in text.splitlines():
        found = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line)
        if found and found[1] == name and all(f'{key}="{text}"' in (found[2] or "") for key, text in labels.items()):
            total += float(found[3])
    return total


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Status and body, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        headers = {"content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def scrape(port: int) -> str:
    status, text = ask(port, "GET", "/metrics")
    assert status == 200, text
    return text


def call(port: int, number: int) -> None:
    assert ask(port, "POST", "/work", {"x": number % 7})[0] == 200


def pids(port: int) -> set[int]:
    return {int(ask(port, "POST", "/pid")[1]) for _ in range(12)}


def test_totals_are_exact_on_every_scrape_through_deaths(serving: Any, tmp_path: Any, wire: Any) -> None:
    rounds, size = 4, 300
    with serving(tmp_path / "p", SERVICE) as server:
        port = server.port
        done = 0
        for number in range(rounds):
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                list(pool.map(lambda n: call(port, n), range(size)))
            done += size
            if number < rounds - 1:
                os.kill(min(pids(server.port)), signal.SIGKILL)
            for _ in range(5):
                with contextlib.suppress(OSError, http.client.HTTPException):  # of the worker that has just died
                    text = scrape(server.port)
                    assert value(text, "bentotool_service_request_total", endpoint="/work") == done
                    assert value(text, "seen_total", kind="work") == done
                    assert value(text, "size_3_count") == done
            wire.wait_for(lambda: value(scrape(server.port), "held") == WORKERS)
        text = scrape(server.port)
        assert value(text, "bentotool_service_request_duration_seconds_count", endpoint="/work") == done
        assert [value(text, f"size_{n}_count") for n in range(5)] == [done] * 5
        assert value(text, "most") == 6, "what a worker that died has set counts too"
        assert value(text, "bentotool_service_request_in_progress") == 0
    assert server.log.count("SIGKILL") == rounds - 1


def test_a_worker_killed_under_load_takes_only_what_it_was_answering(serving: Any, tmp_path: Any) -> None:
    with serving(tmp_path / "p", SERVICE) as server:
        victim = min(pids(server.port))

        def answers(number: int) -> bool:
            if number == 150:
                os.kill(victim, signal.SIGKILL)
            try:
                return ask(server.port, "POST", "/work", {"x": 1})[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answered = list(pool.map(answers, range(500)))
        total = value(scrape(server.port), "bentotool_service_request_total", endpoint="/work")
        assert sum(answered) <= total <= len(answered)
        assert answered.count(False) <= 8, "no more than were under way"


def test_labels_are_routes_and_buckets_as_configured(serving: Any, tmp_path: Any) -> None:
    with serving(tmp_path / "p", SERVICE, "--workers", "2") as server:
        for number in range(30):
            assert ask(server.port, "GET", f"/items/{number}/of/{number}x") == (200, str(number))
            assert ask(server.port, "GET", f"/scan/{number}.php")[0] == 404
            assert ask(server.port, "GET", "/work")[0] == 405
        text = scrape(server.port)
        assert set(re.findall(r'endpoint="([^"]*)"', text)) == {
            "/work", "/pid", "/items/{item}/of/{owner}", "/forked", "unmatched",
        }  # fmt: skip
        total = "bentotool_service_request_total"
        assert value(text, total, endpoint="unmatched", http_response_code="404") == 30
        assert value(text, total, endpoint="/work", http_response_code="405") == 30
        assert value(text, total, endpoint="/items/{item}/of/{owner}", runner_name="Counted") == 30
        bounds = re.findall(r'request_duration_seconds_bucket{endpoint="unmatched"[^}]*le="([^"]+)"', text)
        assert bounds == ["0.1", "1.0", "10.0", "+Inf"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process is forked here")
def test_a_process_that_a_service_forks_counts_for_itself(serving: Any, tmp_path: Any) -> None:
    with serving(tmp_path / "p", SERVICE, "--workers", "1") as server:
        assert ask(server.port, "POST", "/forked")[0] == 200
        call(server.port, 1)
        assert value(scrape(server.port), "seen_total", kind="work") == 1


EDITED = """
import bentotool

@bentotool.service(metrics={"namespace": "mine"})
class Edited:
    @bentotool.websocket
    async def talk(self, socket: bentotool.WebSocket) -> None:
        async for message in socket:
            await socket.send(message * 2)

    def __metrics__(self, text: str) -> str:
        return text + "own_line 1\\n"
"""


def test_a_service_edits_its_metrics_and_websockets_are_counted(serving: Any, tmp_path: Any, wire: Any) -> None:
    from websockets.sync.client import connect

    with serving(tmp_path / "p", EDITED) as server:
        with connect(f"ws://127.0.0.1:{server.port}/talk") as socket:
            socket.send("abc")
            assert socket.recv() == "abcabc"
            text = scrape(server.port)
            assert text.endswith("own_line 1\n")
            assert value(text, "mine_websocket_connections", endpoint="/talk") == 1
            assert value(text, "mine_websocket_data_received_sum", endpoint="/talk") == 3
            assert value(text, "mine_websocket_data_sent_sum") == 6
        wire.wait_for(lambda: value(scrape(server.port), "mine_websocket_connections") == 0)
