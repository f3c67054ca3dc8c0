"""An HTTP client for load: closed loop, and open loop with arrival times fixed beforehand.

Runs as a program of its own, so that it measures neither itself nor the server's interpreter:

    python openloop.py URL BODY_FILE (--clients N | --rate R) [--seconds S] [--deadline-ms D] [--seed N] [--core N]

Prints one JSON object. Latency is counted from the planned arrival, so a server that falls behind cannot hide it. What
is written is HTTP/1.1 with prepared bytes; answers are read by their Content-Length or chunks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

PATIENCE = 5.0  # seconds after the last arrival
TIMER_S = 0.002  # uvloop's timers count whole milliseconds: what is left is waited for busily


@dataclass
class Result:
    """Answers by status, and how long those with 200 and those refused took, in seconds."""

    statuses: Counter[str] = field(default_factory=Counter)
    good: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    def note(self, status: int, seconds: float) -> None:
        self.statuses[str(status)] += 1
        (self.good if status == 200 else self.refused).append(seconds)


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.future: asyncio.Future[int] | None = None
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, found, body = self.data.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            end = lower.find(b"\r", at)
            if len(body) < int(lower[at + 15 : end if end >= 0 else None]):
                return
        elif not body.endswith(b"0\r\n\r\n"):
            return
        self.data = b""
        if self.future is not None and not self.future.done():
            self.future.set_result(int(head[9:12]))
        if b"connection: close" in lower and self.transport is not None:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.future is not None and not self.future.done():
            self.future.set_exception(ConnectionResetError("the server hung up"))


class Client:
    """Keeps connections alive and reuses the one that was used last."""

    def __init__(self, url: str, body: bytes, headers: tuple[str, ...] = ()) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 80
        lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(body)}", *headers, "", ""]
        self.request = "\r\n".join(lines).encode() + body
        self.idle: deque[Connection] = deque()

    async def connection(self) -> Connection:
        while self.idle:
            connection = self.idle.pop()
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(Connection, self.host, self.port)
        return connection

    async def send(self) -> int:
        connection = await self.connection()
        connection.future = asyncio.get_running_loop().create_future()
        assert connection.transport is not None
        connection.transport.write(self.request)
        status = await connection.future
        self.idle.append(connection)
        return status


async def one(client: Client, planned: float, result: Result) -> None:
    try:
        status = await client.send()
    except OSError:
        status = 0
    result.note(status, time.perf_counter() - planned)


async def closed(client: Client, clients: int, seconds: float) -> Result:
    result, end = Result(), time.perf_counter() + seconds

    async def work() -> None:
        while (now := time.perf_counter()) < end:
            await one(client, now, result)

    await asyncio.gather(*(work() for _ in range(clients)))
    return result


async def opened(client: Client, rate: float, seconds: float, seed: int) -> Result:
    rng, result = random.Random(seed), Result()
    at, times = 0.0, []
    while (at := at + rng.expovariate(rate)) < seconds:
        times.append(at)
    tasks, start = set(), time.perf_counter() + 0.05
    for planned in times:
        while (delay := start + planned - time.perf_counter()) > 0:
            await asyncio.sleep(delay - TIMER_S if delay > TIMER_S else 0)
        task = asyncio.ensure_future(one(client, start + planned, result))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        _, late = await asyncio.wait(set(tasks), timeout=PATIENCE)
        for task in late:
            task.cancel()
            result.note(0, PATIENCE)
    return result


def percentile(values: list[float], share: float) -> float | None:
    ordered = sorted(values)
    return round(1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))], 2) if ordered else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("body", type=Path)
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--clients", type=int)
    load.add_argument("--rate", type=float)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--deadline-ms", type=float, default=50.0)
    parser.add_argument("--tell-deadline", action="store_true", help="send it as X-Request-Timeout-Ms")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    if options.core is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {options.core})
    headers = (f"X-Request-Timeout-Ms: {options.deadline_ms:g}",) if options.tell_deadline else ()
    client = Client(options.url, options.body.read_bytes(), headers)
    work = (
        closed(client, options.clients, options.seconds)
        if options.clients
        else opened(client, options.rate, options.seconds, options.seed)
    )
    try:
        import uvloop
    except ImportError:
        result = asyncio.run(work)
    else:
        result = uvloop.run(work)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    sent = sum(result.statuses.values())
    in_time = sum(1 for each in result.good if each * 1000 <= options.deadline_ms)
    document = {
        "offered": round(sent / options.seconds, 1),
        "answered": round(len(result.good) / options.seconds, 1),
        "in_time": round(in_time / options.seconds, 1),
        "share_in_time": round(in_time / sent, 4) if sent else None,
        "p50_ms": percentile(result.good, 0.5),
        "p99_ms": percentile(result.good, 0.99),
        "refused_p99_ms": percentile(result.refused, 0.99),
        "statuses": dict(result.statuses),
        "client_cpu": round((usage.ru_utime + usage.ru_stime) / options.seconds, 2),
    }
    print(json.dumps(document))


if __name__ == "__main__":
    main()
