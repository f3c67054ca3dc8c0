"""Calls that take longer than they may: who waits is answered, and what cannot be stopped keeps its place."""

from __future__ import annotations

import collections
import concurrent.futures
from collections.abc import Callable
from typing import Any

import httpx
import pytest

SERVICE = """
import asyncio, pathlib, threading, time
from collections.abc import Iterator
import bentotool

LOCK = threading.Lock()
RUNNING = dict.fromkeys(("lane", "few", "batch", "steps"), 0)
MOST, BEGUN = dict(RUNNING), dict(RUNNING)
HELD = threading.Event()

class Counted:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        with LOCK:
            RUNNING[self.name] += 1
            BEGUN[self.name] += 1
            MOST[self.name] = max(MOST[self.name], RUNNING[self.name])

    def __exit__(self, *_):
        with LOCK:
            RUNNING[self.name] -= 1

@bentotool.service(threads=4, traffic={"timeout": 20})
class Late:
    @bentotool.api(timeout=0.5)
    def lane(self) -> None:
        with Counted("lane"):
            HELD.wait(60)

    @bentotool.api(timeout=0.5, concurrency=2)
    def few(self) -> None:
        with Counted("few"):
            HELD.wait(60)

    @bentotool.api(timeout=0.5, concurrency=2)
    def steps(self) -> Iterator[str]:
        with Counted("steps"):
            HELD.wait(60)
            yield "x"

    @bentotool.api(timeout=0.5, batchable=True, max_batch_size=4)
    def batch(self, x: list[int]) -> list[int]:
        with Counted("batch"):
            HELD.wait(60)
            return x

    @bentotool.api(timeout=0.5, concurrency=2)
    async def stubborn(self) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0.05)

    @bentotool.api
    async def seen(self) -> dict:
        return {"running": RUNNING, "most": MOST, "begun": BEGUN}

    @bentotool.api
    async def release(self) -> None:
        HELD.set()

    @bentotool.api
    async def hold(self) -> None:
        HELD.clear()
"""


@pytest.fixture(scope="module")
def server(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("late") / "project", SERVICE) as found:
        yield found


def ask(server: Any, path: str, **body: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/{path}", json=body, timeout=30)


def seen(server: Any, what: str, path: str) -> int:
    found: int = ask(server, "seen").json()[what][path]
    return found


@pytest.fixture
def crowd(server: Any) -> Any:
    """``crowd(path, number)``: how often each status was answered, and that all was answered while all was held."""
    ask(server, "hold")

    def run(path: str, number: int, **body: Any) -> collections.Counter[int]:
        with concurrent.futures.ThreadPoolExecutor(number) as pool:
            asked = [pool.submit(ask, server, path, **body) for _ in range(number)]
            return collections.Counter(future.result().status_code for future in asked)

    yield run
    ask(server, "release")


def test_no_more_calls_run_than_there_are_threads(server: Any, wire: Any, crowd: Callable[..., Any]) -> None:
    for _ in range(3):
        assert crowd("lane", 12) == {504: 12}, "although the calls that were begun still run"
    assert seen(server, "running", "lane") == seen(server, "most", "lane") == 4
    ask(server, "release")
    wire.wait_for(lambda: seen(server, "running", "lane") == 0)
    assert seen(server, "begun", "lane") == 4, "nobody waited for the others any more: they never began"
    assert ask(server, "lane").status_code == 200


@pytest.mark.parametrize("path", ["few", "steps"])
def test_a_call_that_goes_on_keeps_its_place(server: Any, wire: Any, crowd: Callable[..., Any], path: str) -> None:
    answered = crowd(path, 8)
    assert answered == {504: 2, 429: 6}
    for _ in range(3):
        assert crowd(path, 4) == {429: 4}
    refused = ask(server, path)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_requests")
    assert int(refused.headers["retry-after"]) >= 1
    assert seen(server, "most", path) == 2
    ask(server, "release")
    wire.wait_for(lambda: seen(server, "running", path) == 0)
    wire.wait_for(lambda: ask(server, path).status_code == 200)


def test_a_batch_that_goes_on_is_the_only_one(server: Any, wire: Any, crowd: Callable[..., Any]) -> None:
    for _ in range(2):
        answered = crowd("batch", 6, x=[1])
        assert set(answered) <= {504, 503}
        assert answered[504]
    assert seen(server, "most", "batch") == 1
    ask(server, "release")
    wire.wait_for(lambda: seen(server, "running", "batch") == 0)
    wire.wait_for(lambda: ask(server, "batch", x=[7]).status_code == 200)


def test_a_place_is_given_back_when_a_cancelled_call_has_ended(server: Any, crowd: Callable[..., Any]) -> None:
    for _ in range(3):
        answered = crowd("stubborn", 6)
        assert set(answered) == {504, 429}
        assert answered[504] >= 2
