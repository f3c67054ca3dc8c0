"""A long time of everything at once: does a worker stay as it was?

    python soak.py [--requests 1000000] [--clients 32] [--looks 20] [--json FILE]

Starts a server with one worker and sends it JSON, batches, uploads, streams, calls that are cancelled and calls that
fail, mixed. Now and then all callers pause, and the worker says what it holds after a full collection: resident memory,
descriptors, asyncio tasks, threads, objects. Prints each look, then the slopes per 1000 requests over the second half.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVICE = """
import asyncio, gc, os, pathlib, threading
from collections.abc import AsyncIterator, Iterator
import bentotool

@bentotool.service(threads=4, traffic={"timeout": 30}, http={"max_body_bytes": 4_000_000})
class Soaked:
    @bentotool.api
    async def add(self, x: list[float]) -> dict[str, float]:
        return {"y": sum(x)}

    @bentotool.api
    def sync(self, n: int) -> int:
        return n + 1

    @bentotool.api(batchable=True)
    def double(self, rows: list[int]) -> list[int]:
        return [2 * row for row in rows]

    @bentotool.api
    def upload(self, file: pathlib.Path) -> int:
        return file.stat().st_size

    @bentotool.api
    async def ticks(self, n: int) -> AsyncIterator[dict]:
        for number in range(n):
            yield {"n": number}
            await asyncio.sleep(0)

    @bentotool.api
    def blocks(self, n: int) -> Iterator[str]:
        for number in range(n):
            yield str(number)

    @bentotool.api
    async def wait(self) -> None:
        await asyncio.sleep(30)

    @bentotool.api
    async def fail(self) -> None:
        raise bentotool.exceptions.ServiceUnavailable("no")

    @bentotool.api
    def vitals(self) -> dict:
        gc.collect()
        found = {"objects": len(gc.get_objects()), "threads": threading.active_count(), "pid": os.getpid()}
        if pathlib.Path("/proc/self/fd").exists():
            status = pathlib.Path("/proc/self/status").read_text()
            found["kib"] = int(status.partition("VmRSS:")[2].split()[0])
            found["descriptors"] = len(os.listdir("/proc/self/fd"))
        return found

    @bentotool.api
    async def tasks(self) -> int:
        return len(asyncio.all_tasks())
"""
_BOUNDARY = "b0undary"
_AT_REST = 3
"""Tasks of a worker that does nothing but answer how many there are."""


def _request(path: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _json(path: str, **body: Any) -> bytes:
    return _request(path, json.dumps(body).encode())


def _upload(size: int) -> bytes:
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    return _request(
        "/upload",
        head.encode() + bytes(size) + f"\r\n--{_BOUNDARY}--\r\n".encode(),
        f"multipart/form-data; boundary={_BOUNDARY}",
    )


_JSON, _WAITS, _STREAM = _json("/add", x=[1.0] * 50), _json("/wait"), _json("/ticks", n=200)
MIX: dict[str, tuple[int, bytes, int]] = {
    # weight, request, status; 0 for a caller that leaves
    "json": (30, _JSON, 200),
    "sync": (10, _json("/sync", n=1), 200),
    "batch": (15, _json("/double", rows=[1, 2]), 200),
    "upload": (4, _upload(50_000), 200),
    "upload of 1 MB": (1, _upload(1_000_000), 200),
    "stream": (8, _json("/ticks", n=10), 200),
    "sync stream": (4, _json("/blocks", n=5), 200),
    "cancelled": (6, _WAITS, 0),
    "cancelled stream": (4, _STREAM, 0),
    "cancelled body": (2, _upload(200_000)[:90_000], 0),
    "failing": (6, _json("/fail"), 503),
    "wrong input": (5, _json("/add", x="no"), 400),
    "no route": (2, _json("/nothing"), 404),
    "no HTTP": (1, b"NONSENSE\r\n\r\n", 400),
    "probe": (2, b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n\r\n", 200),
}


class Caller:
    """One caller, with a connection that it keeps where it may."""

    def __init__(self, port: int, seed: int) -> None:
        self._port, self._chance = port, random.Random(seed)
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._names, self._weights = list(MIX), [weight for weight, _, _ in MIX.values()]

    async def one(self, seen: Counter[str]) -> None:
        """Send one request of the mix. Raises: AssertionError: the answer is not the one that it has to be."""
        name = self._chance.choices(self._names, self._weights)[0]
        _, request, wanted = MIX[name]
        reader, writer = self._connection or await asyncio.open_connection("127.0.0.1", self._port)
        self._connection = (reader, writer)
        writer.write(request)
        if not wanted:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(reader.read(100), self._chance.random() * 0.01)
            await self.leave()
        else:
            status, close = await self._answer(reader)
            assert status == wanted, f"{name}: {status}"
            if close:
                await self.leave()
        seen[name] += 1

    async def ask(self, path: str) -> Any:
        """The JSON of an answer, over a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(_json(path).replace(b"host:", b"connection: close\r\nhost:", 1))
        said = await reader.read()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return json.loads(said.partition(b"\r\n\r\n")[2])

    async def _answer(self, reader: asyncio.StreamReader) -> tuple[int, bool]:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b"transfer-encoding: chunked" in head:
            while size := int(await reader.readline(), 16):
                await reader.readexactly(size + 2)
            await reader.readexactly(2)
        elif found := re.search(rb"content-length: (\d+)", head):
            await reader.readexactly(int(found[1]))
        else:
            await reader.read()
        return int(head[9:12]), b"connection: close" in head

    async def leave(self) -> None:
        if self._connection is not None:
            writer = self._connection[1]
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._connection = None


async def _look(asker: Caller) -> dict[str, Any]:
    """What the worker holds once nothing is under way."""
    tasks = await asker.ask("/tasks")
    for _ in range(200):  # those whose callers have left are looked after within a moment
        if tasks <= _AT_REST:
            break
        await asyncio.sleep(0.05)
        tasks = await asker.ask("/tasks")
    found: dict[str, Any] = await asker.ask("/vitals")
    return {**found, "tasks": tasks}


def _silent(_look: dict[str, Any]) -> None: ...


async def soak(
    port: int, requests: int, clients: int, looks: int, note: Callable[[dict[str, Any]], None] = _silent
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Send so many requests in `looks` rounds; what the worker held after each, and how often each kind was sent."""
    callers = [Caller(port, seed) for seed in range(clients)]
    seen: Counter[str] = Counter()
    found = []
    for _ in range(looks):

        async def work(caller: Caller) -> None:
            for _ in range(requests // looks // clients):
                await caller.one(seen)
            await caller.leave()

        await asyncio.gather(*(work(caller) for caller in callers))
        found.append({"requests": sum(seen.values()), **await _look(callers[0])})
        note(found[-1])
    return found, seen


def slope(looks: list[dict[str, Any]], name: str) -> float:
    """Per 1000 requests, by least squares over the second half."""
    half = looks[len(looks) // 2 :]
    xs, ys = [look["requests"] / 1000 for look in half], [look[name] for look in half]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / max(sum((a - x) ** 2 for a in xs), 1e-9)


@contextlib.contextmanager
def _server() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "service.py").write_text(SERVICE)
        command = [sys.executable, "-m", "bentotool.runtime", folder, "--port", "0", "--quiet"]
        command += ["--port-file", str(port := Path(folder) / "port")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            while not port.exists() or not port.read_text():
                assert process.poll() is None, "the server has ended"
                time.sleep(0.05)
            yield int(port.read_text())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument("--port", type=int, help="of a server that serves SERVICE already")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    begun = time.monotonic()
    with contextlib.nullcontext(options.port) if options.port else _server() as port:
        looks, seen = asyncio.run(
            soak(port, options.requests, options.clients, options.looks, lambda look: print(look, flush=True))
        )
    names = [name for name in looks[0] if name not in ("requests", "pid")]
    slopes = {name: round(slope(looks, name), 3) for name in names}
    print({"seconds": round(time.monotonic() - begun), "per 1000": slopes, "sent": dict(seen), "cpus": os.cpu_count()})
    if options.json:
        options.json.write_text(json.dumps({"looks": looks, "slopes": slopes, "sent": seen}))


if __name__ == "__main__":
    main()
