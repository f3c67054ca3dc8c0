"""Metrics as a Prometheus server sees them: exact on every scrape, whichever worker answers, whichever has died."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import threading
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


NAMES = {"bentotool_service_request_total": {"endpoint": "/work"}, "seen_total": {"kind": "work"}, "size_3_count": {}}


class Scraper(threading.Thread):
    """Scrapes without a pause. Each scrape is held against what was sent and what was answered meanwhile."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port, self.sent, self.answered = port, itertools.count(), itertools.count()
        self.ended = threading.Event()
        self.scrapes, self.wrong = 0, list[str]()
        self.start()

    def call(self, number: int) -> None:
        next(self.sent)
        with contextlib.suppress(OSError, http.client.HTTPException):
            if ask(self.port, "POST", "/work", {"x": number % 7})[0] == 200:
                next(self.answered)

    def call_on(self) -> None:
        for number in itertools.count():
            if self.ended.is_set():
                return
            self.call(number)

    def run(self) -> None:
        last = dict.fromkeys(NAMES, 0.0)
        while not self.ended.is_set():
            least = _said(self.answered)
            try:
                status, text = ask(self.port, "GET", "/metrics")
            except (OSError, http.client.HTTPException):
                continue  # the worker that was asked has just died
            if status != 200:
                continue  # there was no worker to ask
            most = _said(self.sent)
            for name, labels in NAMES.items():
                now = value(text, name, **labels)
                if not max(least, last[name]) <= now <= most:
                    self.wrong.append(f"{name}: {now}, before {last[name]}, answered {least}, sent {most}")
                last[name] = now
            self.scrapes += 1


def _said(counter: itertools.count[int]) -> int:
    """How often it was asked for the next number."""
    return int(repr(counter)[len("count(") : -1])


@pytest.mark.timeout(150)
def test_every_scrape_is_right_while_workers_crash_in_a_loop(serving: Any, tmp_path: Any, wire: Any) -> None:
    """Eight deaths under load, most soon after a start: no total goes back, lacks an answer, or counts one twice."""
    with serving(tmp_path / "p", SERVICE, "--workers", "2") as server:
        scraper = Scraper(server.port)
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            try:
                for _ in range(4):
                    pool.submit(scraper.call_on)
                for death in range(1, 9):
                    enough = _said(scraper.answered) + 20, scraper.scrapes + 3
                    wire.wait_for(lambda least=enough: _said(scraper.answered) >= least[0])
                    wire.wait_for(lambda least=enough: scraper.scrapes >= least[1])
                    wire.wait_for(lambda: _kill_one(server))
                    wire.wait_for(lambda death=death: server.log.count("SIGKILL") == death)
            finally:
                scraper.ended.set()
                scraper.join(30)
        assert not scraper.wrong, scraper.wrong[:5]
        # the last to die are started again, after a pause
        wire.wait_for(lambda: value(_scrape_or_nothing(server.port), "held") == 2)
        totals = {name: value(scrape(server.port), name, **labels) for name, labels in NAMES.items()}
        for done in range(1, 20):
            call(server.port, done)
            text = scrape(server.port)
            assert {name: value(text, name, **labels) - done for name, labels in NAMES.items()} == totals


def _scrape_or_nothing(port: int) -> str:
    with contextlib.suppress(OSError, http.client.HTTPException):
        return ask(port, "GET", "/metrics")[1]
    return ""


def _kill_one(server: Any) -> bool:
    """Kill a worker that answers, where one does."""
    with contextlib.suppress(OSError, http.client.HTTPException):
        status, text = ask(server.port, "POST", "/pid")
        if status == 200:
            os.kill(int(text), signal.SIGKILL)
            return True
    return False


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
