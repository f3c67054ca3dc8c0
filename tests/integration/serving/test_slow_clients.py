"""Callers in great numbers that are slow, silent, half gone or hostile, while others are served as ever."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

SERVICE = """
import asyncio, os, pathlib
from collections.abc import AsyncIterator
import bentotool

OPEN = [0]
GO = asyncio.Event()

@bentotool.service(traffic={"timeout": 60}, http={"max_body_bytes": 50_000_000})
class Patient:
    @bentotool.api
    async def ticks(self, n: int) -> AsyncIterator[dict]:
        OPEN[0] += 1
        try:
            for number in range(n):
                yield {"n": number}
                if number == 0:
                    await GO.wait()
        finally:
            OPEN[0] -= 1

    @bentotool.api
    async def flood(self) -> AsyncIterator[bytes]:
        OPEN[0] += 1
        try:
            while True:
                yield b"x" * 65536
        finally:
            OPEN[0] -= 1

    @bentotool.api
    async def forever(self) -> int:
        OPEN[0] += 1
        try:
            await asyncio.sleep(600)
        finally:
            OPEN[0] -= 1

    @bentotool.api
    async def size(self, data: bytes) -> int:
        return len(data)

    @bentotool.api
    async def text(self, text: str) -> int:
        return len(text)

    @bentotool.api
    async def open(self) -> int:
        return OPEN[0]

    @bentotool.api
    async def go(self, on: bool) -> None:
        (GO.set if on else GO.clear)()

    @bentotool.api
    async def vitals(self) -> dict:
        found = {"tasks": len(asyncio.all_tasks()), "files": 0, "kib": 0}
        if pathlib.Path("/proc/self/fd").exists():
            status = pathlib.Path("/proc/self/status").read_text()
            found["kib"] = int(status.partition("VmRSS:")[2].split()[0])
            found["files"] = len(os.listdir("/proc/self/fd"))
        return found
"""
CROWD = 1000
MANY = 200


@pytest.fixture(scope="module")
def server(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("slow") / "project", SERVICE) as found:
        yield found


def ask(server: Any, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{server.url}/{path}", json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(autouse=True)
def _as_before(server: Any, wire: Any) -> Iterator[None]:
    """Each test leaves neither connections nor tasks behind in the server."""
    for _ in range(3):  # connections of those who asked before are still being closed
        before = ask(server, "vitals")
    yield
    wire.wait_for(lambda: ask(server, "open") == 0)
    for name in ("tasks", "files"):
        wire.wait_for(lambda name=name: ask(server, "vitals")[name] <= before[name] + 2)
    assert "Traceback" not in server.log, server.log[-2000:]


def head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "host: localhost", *headers, "", ""]).encode()


def json_request(path: str, **body: Any) -> bytes:
    content = json.dumps(body).encode()
    return head(path, "content-type: application/json", f"content-length: {len(content)}") + content


def connect(server: Any, stack: ExitStack, request: bytes = b"") -> socket.socket:
    found: socket.socket = stack.enter_context(server.raw(request))
    return found


@pytest.mark.timeout(120)
def test_a_thousand_streams_at_once(server: Any, wire: Any) -> None:
    items = 5
    ask(server, "go", on=False)

    async def read() -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(json_request("/ticks", n=items))
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        found = []
        while size := int(await reader.readline(), 16):
            found.append(json.loads(await reader.readexactly(size)))
            await reader.readexactly(2)
        writer.close()
        await writer.wait_closed()
        assert found == [{"n": number} for number in range(items)]
        return 1

    async def run() -> int:
        reading = [asyncio.ensure_future(read()) for _ in range(CROWD)]
        while await asyncio.to_thread(ask, server, "open") < CROWD:
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in reading)
        answer = await asyncio.to_thread(ask, server, "text", text="abc")
        assert answer == 3, "others are answered meanwhile"
        await asyncio.to_thread(ask, server, "go", on=True)
        return sum(await asyncio.gather(*reading))

    assert asyncio.run(asyncio.wait_for(run(), 100)) == CROWD


def test_heads_that_come_byte_by_byte_hold_nobody_up(server: Any) -> None:
    whole = json_request("/text", text="abc")
    with ExitStack() as stack:
        slow = [connect(server, stack) for _ in range(MANY)]
        for number, byte in enumerate(whole):
            for connection in slow:
                connection.sendall(bytes([byte]))
            if number % 20 == 0:
                assert ask(server, "text", text="abcd") == 4
        for connection in slow:
            said = b""
            while not said.endswith(b"\r\n\r\n3"):
                said += (more := connection.recv(65536))
                assert more, "slow, and within the time for a head"


def test_who_never_says_what_it_wants_holds_nobody_up(server: Any) -> None:
    with ExitStack() as stack:
        for begun in (b"", b"POST /te", head("/text", "content-length: 1000") + b'{"te'):
            for _ in range(MANY // 2):
                connect(server, stack, begun)
        for _ in range(20):
            assert ask(server, "text", text="abc") == 3


def test_readers_that_do_not_read_cost_little_memory(server: Any, wire: Any) -> None:
    before = ask(server, "vitals")["kib"]
    with ExitStack() as stack:
        for _ in range(MANY // 2):
            connection = connect(server, stack, json_request("/flood"))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wire.wait_for(lambda: ask(server, "open") == MANY // 2)
        for _ in range(20):
            assert ask(server, "text", text="abc") == 3
        grown = ask(server, "vitals")["kib"] - before
        assert grown < MANY // 2 * 512, "KiB: a few pieces for each, and not what they would have read"


def test_callers_that_vanish_leave_nothing(server: Any, wire: Any) -> None:
    """In the middle of a head, of a body, while they wait, and in the middle of a stream; some of them rudely."""
    requests = [
        b"POST /te",
        head("/size", "content-length: 100000", "content-type: application/octet-stream") + b"x" * 10_000,
        json_request("/forever"),
        json_request("/flood"),
    ]
    chance = random.Random(3)
    for number in range(MANY):
        with server.raw(requests[number % len(requests)]) as connection:
            if chance.random() < 0.5:
                connection.settimeout(0.005)
                try:
                    connection.recv(1000)
                except TimeoutError:
                    pass
            if number % 3 == 0:  # a reset, instead of an end in order
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.wait_for(lambda: ask(server, "open") == 0)


@pytest.mark.parametrize("path", ["/text", "/forever", "/flood"])
def test_who_says_that_it_will_send_no_more_is_done_with(server: Any, wire: Any, path: str) -> None:
    """A connection that one side has closed is taken for one whose caller has left, as proxies do."""
    for _ in range(20):
        connection = server.raw(json_request(path, **({"text": "abc"} if path == "/text" else {})))
        connection.shutdown(socket.SHUT_WR)
        answer = wire.read_all(connection)
        if path == "/forever":
            assert answer == b""
    wire.wait_for(lambda: ask(server, "open") == 0)
    assert ask(server, "text", text="abc") == 3


def test_a_large_body_is_held_once_and_then_no_more(server: Any, wire: Any) -> None:
    before = ask(server, "vitals")["kib"]
    body = os.urandom(1 << 20) * 40
    for _ in range(3):
        answer = httpx.post(
            f"{server.url}/size", content=body, headers={"content-type": "application/octet-stream"}, timeout=30
        )
        assert (answer.status_code, answer.json()) == (200, len(body))
    if sys.platform.startswith("linux"):
        wire.wait_for(lambda: ask(server, "vitals")["kib"] - before < 2 * len(body) // 1024)


HOSTILE = {
    "deep": b'{"text": ' + b"[" * 1_000_000,
    "deep, closed": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "digits": b'{"text": ' + b"9" * 1_000_000 + b"}",
    "keys": b"{" + b",".join(b'"%d": 1' % number for number in range(100_000)) + b"}",
    "same key": b"{" + b",".join([b'"text": "x"'] * 100_000) + b"}",
    "escapes": b'{"text": "' + b"\\ud800" * 10_000 + b'"}',
    "no utf-8": b'{"text": "\xff\xfe"}',
    "nothing": b"",
    "zeros": bytes(1_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bodies_are_refused_and_harm_nobody(server: Any, name: str) -> None:
    kind = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/text", content=HOSTILE[name], headers=kind, timeout=30)
    assert answer.status_code == (200 if name == "same key" else 400), answer.text
    assert len(answer.content) < 1000
    assert ask(server, "text", text="abc") == 3


def test_a_body_that_unfolds_is_refused(server: Any) -> None:
    bomb = gzip.compress(bytes(200_000_000), 1)
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = httpx.post(f"{server.url}/text", content=bomb, headers=headers, timeout=30)
    assert answer.status_code in (413, 415), answer.text


def test_bytes_at_random(server: Any) -> None:
    """What is no HTTP, and what nearly is: each is answered or cut, and the server goes on."""
    chance = random.Random(11)
    whole = json_request("/text", text="abc") * 2
    for number in range(300):
        if number % 2:
            noise = chance.randbytes(chance.randrange(1, 2000))
        else:
            broken = bytearray(whole)
            for _ in range(chance.randrange(1, 6)):
                broken[chance.randrange(len(broken))] = chance.randrange(256)
            noise = bytes(broken)
        with server.raw(noise) as connection:
            connection.settimeout(0.01)
            try:
                connection.recv(65536)
            except (TimeoutError, ConnectionError):
                pass
    assert ask(server, "text", text="abc") == 3


def test_pipelined_requests_are_answered_in_order(server: Any, wire: Any) -> None:
    requests = [json_request("/text", text="x" * number) for number in range(100)]
    last = json_request("/text", text="end").replace(b"host:", b"connection: close\r\nhost:", 1)
    said = wire.read_all(server.raw(b"".join([*requests, last])))
    bodies = [part.partition(b"\r\n\r\n")[2] for part in said.split(b"HTTP/1.1 200 OK")[1:]]
    assert [int(body) for body in bodies] == [*range(100), 3]


def served(server: Any) -> int:
    """The status of a short call; 0 without an answer."""
    try:
        return httpx.post(f"{server.url}/text", json={"text": "abc"}, timeout=1).status_code
    except httpx.TransportError:
        return 0


@pytest.mark.parametrize("workers", [1, 2])
def test_the_server_runs_out_of_descriptors_and_comes_back(
    serving: Any, wire: Any, tmp_path: Path, workers: int
) -> None:
    if sys.platform == "win32":
        pytest.skip("descriptors are limited otherwise")
    prelude = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))"
    with serving(tmp_path / "project", SERVICE, "--workers", str(workers), prelude=prelude) as server:
        with ExitStack() as stack:
            for _ in range(150 * workers):
                connect(server, stack)
            wire.wait_for(lambda: served(server) == 0)
        wire.wait_for(lambda: served(server) == 200)
        assert ask(server, "text", text="abc") == 3
        assert server.log.count("\n") < 200, "said now and then, not for each try"
