"""New servers in the place of old ones, behind a balancer and under load: nobody notices."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM")

SERVICE = """
import asyncio, os, time
from collections.abc import AsyncIterator
import bentotool

@bentotool.service(threads=4)
class Rolling:
    @bentotool.api
    async def quick(self, n: int) -> list[int]:
        return [n, os.getpid()]

    @bentotool.api
    def slow(self, n: int) -> list[int]:
        time.sleep(0.2)
        return [n, os.getpid()]

    @bentotool.api(batchable=True)
    def batch(self, n: list[int]) -> list[list[int]]:
        time.sleep(0.02)
        return [[one, os.getpid()] for one in n]

    @bentotool.api
    async def ticks(self, n: int) -> AsyncIterator[dict]:
        for number in range(n):
            yield {"n": number}
            await asyncio.sleep(0.1)
"""
RESTARTS = 20
CALLERS, EVERY_S = 16, 0.08  # 200 requests per second
TICKS = 40
DRAIN_S, GRACE_S = 3.0, 60


class Balancer:
    """Gives connections in turn to the servers whose ``/readyz`` says 200. It repeats nothing and understands nothing:
    what a server does wrong reaches the caller.

    Attributes:
        port: where it listens.
        inside: ports of servers that get connections.
    """

    CHECK_S = 0.1

    def __init__(self) -> None:
        self.inside: list[int] = []
        self._known: set[int] = set()
        self._turn = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._begun.wait()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._begun.set()
        checking = asyncio.ensure_future(self._check())
        await self._stop.wait()
        checking.cancel()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def know(self, port: int) -> None:
        self._known.add(port)

    async def _check(self) -> None:
        while True:
            for port in list(self._known):
                if (await self._is_ready(port)) != (port in self.inside):
                    (self.inside.remove if port in self.inside else self.inside.append)(port)
            await asyncio.sleep(self.CHECK_S)

    async def _is_ready(self, port: int) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        with contextlib.closing(writer), contextlib.suppress(OSError):
            writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return (await reader.readline()).startswith(b"HTTP/1.1 200")
        return False

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            port = self.inside[next(self._turn) % len(self.inside)]
            there, back = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.closing(back):
                await asyncio.wait(
                    [asyncio.ensure_future(self._copy(reader, back)), asyncio.ensure_future(self._copy(there, writer))],
                    return_when=asyncio.FIRST_COMPLETED,
                )

    async def _copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()


class Load:
    """Callers that keep their connections as long as they may.

    Attributes:
        failed: what went wrong.
        answered: how often each path was.
        pids: of workers that answered.
    """

    def __init__(self, url: str) -> None:
        self.failed: list[str] = []
        self.answered: Counter[str] = Counter()
        self.pids: set[int] = set()
        self._url, self._ending = url, threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(CALLERS + 2)
        self._running = [self._pool.submit(self._call, number) for number in range(CALLERS)]
        self._running += [self._pool.submit(self._read_streams, delay) for delay in (0.0, 2.0)]

    def _call(self, caller: int) -> None:
        path = ("quick", "quick", "slow", "batch")[caller % 4]
        with httpx.Client(base_url=self._url, timeout=30) as client:
            for number in itertools.count():
                if self._ending.wait(EVERY_S):
                    return
                body: Any = {"n": [number] if path == "batch" else number}
                try:
                    answer = client.post(f"/{path}", json=body)
                    answer.raise_for_status()
                    found = answer.json()[0] if path == "batch" else answer.json()
                    assert found[0] == number
                    self.pids.add(found[1])
                    self.answered[path] += 1
                except Exception as error:
                    self.failed.append(f"{path} at {time.monotonic():.2f}: {error!r}")

    def _read_streams(self, delay: float) -> None:
        self._ending.wait(delay)
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._ending.is_set():
                try:
                    with client.stream("POST", "/ticks", json={"n": TICKS}) as answer:
                        found = [json.loads(line)["n"] for line in answer.iter_lines() if line]
                    assert found == list(range(TICKS)), f"{len(found)} items"
                    self.answered["ticks"] += 1
                except Exception as error:
                    self.failed.append(f"ticks at {time.monotonic():.2f}: {error!r}")

    def end(self) -> None:
        self._ending.set()
        for future in self._running:
            future.result()
        self._pool.shutdown()


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.timeout(300)
def test_twenty_rolling_restarts_lose_nothing(serving: Any, wire: Any, tmp_path: Path) -> None:
    options = ("--drain-delay", str(DRAIN_S), "--grace", str(GRACE_S))
    with contextlib.ExitStack() as stack:
        starting = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))

        def start(number: int) -> Any:
            made = serving(tmp_path / f"{number}", SERVICE, *options, "--workers", str(1 + number % 2))
            return stack.enter_context(made)

        balancer = Balancer()
        stack.callback(balancer.end)
        replicas = [start(number) for number in range(2)]
        for server in replicas:
            balancer.know(server.port)
        wire.wait_for(lambda: len(balancer.inside) == 2)
        load = Load(f"http://127.0.0.1:{balancer.port}")
        stack.callback(load.end)
        following = starting.submit(start, 2)
        for number in range(RESTARTS):
            server = following.result()
            if number + 1 < RESTARTS:
                following = starting.submit(start, number + 3)
            balancer.know(server.port)
            wire.wait_for(lambda port=server.port: port in balancer.inside)
            replicas.append(server)
            replicas[number].process.send_signal(signal.SIGTERM)
            wire.wait_for(lambda port=replicas[number].port: port not in balancer.inside)
        ended = [server.process.wait(wire.limit) for server in replicas[:RESTARTS]]
        load.end()
        assert load.failed == []
        assert ended == [0] * RESTARTS
        assert set(load.answered) == {"quick", "slow", "batch", "ticks"}
        assert [server.stop() for server in replicas[RESTARTS:]] == [0, 0]
        assert len(load.pids) >= RESTARTS, "each of them has answered"
        assert not [pid for pid in load.pids if exists(pid)]
        assert [server.log for server in replicas] == [""] * len(replicas)


def test_a_silent_connection_is_kept_for_longer_than_balancers_keep_theirs() -> None:
    import bentotool
    from bentotool.runtime.server_options import server_options

    @bentotool.service
    class Kept:
        @bentotool.api
        def call(self) -> int:
            return 1

    assert server_options(Kept, variables={})["timeout_keep_alive"] > 60
