"""What batchers and servers of this field do wrong, each as a test of ours, through the whole application in process.

More of them, on the batcher alone, are in ``test_batcher.py``.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

import bentotool
from bentotool.runtime.app import Application

LIMIT = 30.0
gate = threading.Event()
seen: list[Any] = []


@bentotool.service(traffic={"timeout": 20, "max_queue": 5000}, threads=4)
class Batches:
    @bentotool.api(batchable=True, max_batch_size=64)
    def double(self, rows: list[int]) -> list[int]:
        seen.append(len(rows))
        gate.wait(LIMIT)
        return [2 * row for row in rows]

    @bentotool.api(batchable=True, max_batch_size=64)
    def other(self, words: list[str]) -> list[str]:
        gate.wait(LIMIT)
        return [word.upper() for word in words]

    @bentotool.api(batchable=True, max_batch_size=32)
    def fussy(self, rows: list[int]) -> list[int]:
        gate.wait(LIMIT)
        if 13 in rows:
            raise ValueError("bad luck")
        return rows

    @bentotool.api
    async def noop(self, x: list[float]) -> int:
        return len(x)

    @bentotool.api
    def late(self, x: int) -> int:
        gate.wait(LIMIT)
        return x


Client = httpx.AsyncClient


@pytest.fixture(autouse=True)
def _open_gate() -> Any:
    seen.clear()
    gate.clear()
    yield
    gate.set()


def served(work: Callable[[Client], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        app = Application(Batches)
        await app.start()
        try:
            async with Client(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=LIMIT) as client:
                return await asyncio.wait_for(work(client), LIMIT)
        finally:
            gate.set()
            await app.stop()

    return asyncio.run(main())


async def begun(client: Client, path: str, key: str, values: list[Any]) -> list[asyncio.Task[httpx.Response]]:
    """Requests that wait while the gate is shut, behind one batch of the first that runs."""
    first = asyncio.create_task(client.post(path, json={key: values[0]}))
    while not seen and path == "/double":
        await asyncio.sleep(0.005)
    rest = [asyncio.create_task(client.post(path, json={key: value})) for value in values[1:]]
    for _ in range(20):
        await asyncio.sleep(0.005)
    return [first, *rest]


def test_arguments_of_the_last_to_come_are_not_those_of_all() -> None:
    """BentoML: each request replaces a callback that all of them share."""

    async def work(client: Client) -> list[Any]:
        calls = await begun(client, "/double", "rows", [[number] for number in range(40)])
        words = await begun(client, "/other", "words", [[f"w{number}"] for number in range(40)])
        gate.set()
        return [answer.json() for answer in await asyncio.gather(*calls, *words)]

    expected = [[2 * number] for number in range(40)] + [[f"W{number}"] for number in range(40)]
    assert served(work) == expected


def test_a_cold_burst_fills_the_second_batch() -> None:
    """T8 (e): 64 at once on a server that has learnt nothing; from the second on, batches of at least 32."""

    async def work(client: Client) -> None:
        calls = await begun(client, "/double", "rows", [[number] for number in range(64)])
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*calls)} == {200}

    served(work)
    assert sum(seen) == 64
    assert seen[1] >= 32
    assert len(seen) <= 3


def test_requests_count_by_what_is_in_them() -> None:
    """BentoML sizes batches by requests. T8 (f): small and large ones mixed are all answered, and none is too large."""

    async def work(client: Client) -> list[int]:
        sizes = [1, 64, 1, 1, 40, 64, 1, 30, 64, 1, 1, 1]
        calls = await begun(client, "/double", "rows", [[1] * size for size in sizes])
        gate.set()
        answers = await asyncio.gather(*calls)
        assert [answer.json() for answer in answers] == [[2] * size for size in sizes]
        return sizes

    sizes = served(work)
    assert sum(seen) == sum(sizes)
    assert max(seen) <= 64


def test_of_32_with_one_poison_item_31_are_answered() -> None:
    """BentoML: one exception fails the whole batch. T8 (c)."""

    async def work(client: Client) -> list[int]:
        calls = await begun(client, "/fussy", "rows", [[number] for number in range(32)])
        gate.set()
        return [answer.status_code for answer in await asyncio.gather(*calls)]

    assert served(work) == [500 if number == 13 else 200 for number in range(32)]


def test_after_thousands_of_cancels_all_is_as_before() -> None:
    """T8 (d); MLServer's batcher dies of the first one."""

    async def work(client: Client) -> list[int]:
        calls = await begun(client, "/double", "rows", [[number] for number in range(1000)])
        for call in calls[1:]:
            call.cancel()
        await asyncio.gather(*calls[1:], return_exceptions=True)
        gate.set()
        await calls[0]
        ran = sum(seen)
        answers = await asyncio.gather(*(client.post("/double", json={"rows": [number]}) for number in range(50)))
        assert [answer.json() for answer in answers] == [[2 * number] for number in range(50)]
        return [ran, sum(seen) - ran]

    ran, after = served(work)
    assert ran == 1, "what was cancelled is not run"
    assert after == 50


def test_a_call_is_answered_with_200_and_may_be_large() -> None:
    """Litestar's defaults are 201 for a POST, and no more than 10 MB of a body (STYLE d.23)."""

    async def work(client: Client) -> tuple[int, Any]:
        answer = await client.post("/noop", json={"x": [0.123456] * 1_500_000})
        return answer.status_code, answer.json()

    assert served(work) == (200, 1_500_000)


def test_a_late_handler_is_told_at_its_deadline_and_runs_once_per_thread() -> None:
    """BentoML: three requests were told 504 at their timeout, while three copies ran although one may (T9)."""

    async def work(client: Client) -> set[int]:
        headers = {"x-request-timeout-ms": "200"}
        calls = [client.post("/late", json={"x": 1}, headers=headers) for _ in range(12)]
        answers = await asyncio.gather(*calls)
        lane = {thread.name for thread in threading.enumerate() if thread.name.startswith("call-")}
        assert len(lane) <= 4, "no more threads than the service has"
        return {answer.status_code for answer in answers}

    assert served(work) == {504}
