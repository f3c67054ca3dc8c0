"""Ten times more requests than a model can answer: what is taken is answered, what is not is told so, and it ends.

The figures of a quiet machine are the benchmark's (``tests/benchmarks/serving/batching.py``). The device here is
slower, so that what is tested is the batcher and not the processor, and every bound is wide.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FIXED_S, EACH_S, MOST = 0.16, 0.02, 64
DEADLINE_S = 2.0
CAPACITY = 42 / (FIXED_S + 42 * EACH_S)
"""A second: of the largest batch that is done in half of the deadline, since it gathers in the other half."""
SECONDS = 8.0

SERVICE = f"""
import time
import bentotool

@bentotool.service(traffic={{"timeout": 30}})
class Device:
    @bentotool.api(batchable=True, max_batch_size={MOST}, max_latency_ms={DEADLINE_S * 1000:g})
    def predict(self, x: list[int]) -> list[int]:
        time.sleep({FIXED_S} + {EACH_S} * len(x))
        return x

    @bentotool.api
    async def other(self) -> int:
        return 1

@bentotool.service(threads=1, traffic={{"timeout": 30, "max_queue": 5}})
class Plain:
    @bentotool.api
    def work(self) -> int:
        time.sleep(0.05)
        return 1

    @bentotool.api(concurrency=2)
    async def few(self) -> int:
        import asyncio
        await asyncio.sleep(0.1)
        return 1
"""


@dataclass
class Seen:
    """Answers by status, seconds of those with 200 and of the others, and refusals that do not say when to return."""

    statuses: Counter[int] = field(default_factory=Counter)
    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    silent: int = 0


class Caller:
    """Sends requests over connections that it keeps."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self.seen = Seen()

    async def send(self, path: str, body: bytes = b"{}", method: str = "POST") -> tuple[int, dict[str, str], bytes]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():  # else it was kept for longer than the server does
                break
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.append(writer)
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        self._idle.append((reader, writer))
        return int(lines[0].split()[1]), headers, content

    async def note(self, path: str, body: bytes, planned: float) -> None:
        """Send, and count the answer; seconds are from when it was planned to be sent."""
        status, headers, _ = await self.send(path, body)
        seconds = time.perf_counter() - planned
        self.seen.statuses[status] += 1
        if status == 200:
            self.seen.good.append(seconds)
        else:
            self.seen.refused.append(seconds)
            self.seen.silent += status in (503, 429) and int(headers.get("retry-after", 0)) < 1

    async def flood(self, path: str, body: bytes, rate: float, seconds: float) -> None:
        """Send at a fixed rate, whatever comes back."""
        begun = time.perf_counter()
        tasks = []
        for number in range(int(rate * seconds)):
            planned = begun + number / rate
            if (pause := planned - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            tasks.append(asyncio.ensure_future(self.note(path, body, planned)))
        await asyncio.gather(*tasks)

    async def close(self) -> None:
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)


async def look(caller: Caller, wanted: dict[str, str], every: float, found: list[tuple[str, int]]) -> None:
    """Ask other paths now and then, until cancelled."""
    while True:
        for path, method in wanted.items():
            found.append((path, (await caller.send(path, b"{}" if method == "POST" else b"", method))[0]))
        await asyncio.sleep(every)


@pytest.fixture(scope="module")
def device(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("overload") / "project", SERVICE, "--service", "service:Device") as server:
        yield server


@pytest.mark.timeout(120)
def test_ten_times_the_capacity(device: Any) -> None:
    async def run() -> tuple[Seen, list[tuple[str, int]], list[tuple[str, int]], Seen]:
        caller, prober, after = (Caller(device.port) for _ in range(3))
        for _ in range(8):  # what a batch costs is learnt
            await asyncio.gather(*(caller.send("/predict", b'{"x": [1]}') for _ in range(8)))
        probed: list[tuple[str, int]] = []
        paths = {"/readyz": "GET", "/livez": "GET", "/metrics": "GET", "/other": "POST"}
        probing = asyncio.ensure_future(look(prober, paths, 0.2, probed))
        await caller.flood("/predict", b'{"x": [1]}', 10 * CAPACITY, SECONDS)
        during, later = list(probed), len(probed)
        await after.flood("/predict", b'{"x": [1]}', CAPACITY / 4, 3 * DEADLINE_S)
        probing.cancel()
        for each in (caller, prober, after):
            await each.close()
        return caller.seen, during, probed[later:], after.seen

    seen, during, later, after = asyncio.run(run())
    assert set(seen.statuses) <= {200, 503, 504}
    assert len(seen.good) >= 0.5 * CAPACITY * SECONDS, "most of what the device can do, although it is flooded"
    assert seen.statuses[503] > seen.statuses[504], "told at once, and not when it is too late"
    assert seen.silent == 0, "a refusal says when to return"
    assert len(during) >= 4
    assert {status for _, status in [*during, *later]} == {200}, "probes and other APIs are answered"
    # all is as before when what was taken has been answered, which is within a deadline
    assert after.statuses[200] >= sum(after.statuses.values()) - DEADLINE_S * CAPACITY / 4


@pytest.mark.parametrize(("path", "status"), [("/work", 503), ("/few", 429)])
def test_a_full_service_says_when_to_return(serving: Any, tmp_path: Path, path: str, status: int) -> None:
    async def run(port: int) -> tuple[Seen, int]:
        caller = Caller(port)
        for _ in range(3):
            now = time.perf_counter()
            await asyncio.gather(*(caller.note(path, b"{}", now) for _ in range(60)))
        afterwards, _, _ = await caller.send(path)
        await caller.close()
        return caller.seen, afterwards

    with serving(tmp_path / "project", SERVICE, "--service", "service:Plain") as server:
        seen, afterwards = asyncio.run(run(server.port))
    assert set(seen.statuses) == {200, status}
    assert seen.silent == 0
    assert sum(seen.statuses.values()) == 180
    assert seen.statuses[200] < 90, "what a limit lets through, and no more"
    assert sorted(seen.refused)[len(seen.refused) // 2] <= max(seen.good), "without waiting for those before"
    assert afterwards == 200
