"""The clock is moved while tasks wait and run. Everything here is in one process, whose clock is ours."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

import bentotool
from bentotool.runtime.tasks.clerk import Clerk
from bentotool.runtime.tasks.records import Message, NewTask
from bentotool.runtime.tasks.sqlite import SQLiteStore, TemporaryStore

HOUR = 3600.0
JSON = {"content-type": "application/json"}


class Clock:
    """What `time.time` gives from now on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, self.moved = time.time, 0.0
        monkeypatch.setattr(time, "time", lambda: real() + self.moved)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@bentotool.service
class Work:
    def __init__(self) -> None:
        self.runs = 0
        self.go = asyncio.Event()

    @bentotool.task
    async def wait(self) -> int:
        self.runs += 1
        await self.go.wait()
        return self.runs


@pytest.mark.parametrize("moved", [HOUR, -HOUR])
def test_what_runs_goes_on_and_what_waits_is_run(clock: Clock, moved: float) -> None:
    async def main() -> None:
        app = Work.to_asgi()
        await app.start()
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:

            async def status(id_: str) -> Any:
                return (await http.get("/wait/status", params={"task_id": id_})).json()

            async def until(condition: Callable[[], Awaitable[bool]]) -> None:
                end = time.monotonic() + 20
                while not await condition():
                    assert time.monotonic() < end
                    await asyncio.sleep(0.01)

            async def in_state(id_: str, state: str) -> None:
                async def there() -> bool:
                    return bool((await status(id_))["status"] == state)

                await until(there)

            ids = [(await http.post("/wait/submit", json={})).json()["task_id"] for _ in range(2)]
            await in_state(ids[0], "in_progress")
            clock.moved = moved
            await asyncio.sleep(0.8)  # three looks at what is still wanted
            assert app.instance.runs == 1
            app.instance.go.set()
            for id_ in ids:
                await in_state(id_, "completed")
            assert [(await status(id_))["attempt"] for id_ in ids] == [1, 1]
        await app.stop()

    asyncio.run(main())


def test_nothing_is_taken_from_another_worker_before_it_has_noticed(clock: Clock, tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "s.sqlite3")
    store.submit([NewTask("1" * 32, "work", Message(JSON, b"{}"))])
    assert store.claim("work", "other", 1, 30.0)
    lost = Message(JSON, b"{}", 500)

    async def main() -> None:
        clerk = Clerk(lambda: SQLiteStore(tmp_path / "s.sqlite3"), "mine", 9.0, lost)
        await clerk.start(lambda _ids: None)
        await clerk.ask(lambda own: own.counts())
        clock.moved = HOUR
        await asyncio.sleep(0.8)
        assert store.owned("other") == {"1" * 32}
        assert store.renew("other", ["1" * 32], 30.0) == {"1" * 32}
        await clerk.stop()

    asyncio.run(main())
    store.close()


def test_a_task_is_due_whatever_the_clock_says(clock: Clock) -> None:
    store = TemporaryStore()
    store.submit([NewTask("1" * 32, "work", Message(JSON, b"{}"))])
    clock.moved = -HOUR
    (claim,) = store.claim("work", "a", 1, 30.0)
    assert store.give_back(claim.id, "a", None)
    clock.moved = -2 * HOUR
    assert store.claim("work", "a", 1, 30.0)
    store.close()
