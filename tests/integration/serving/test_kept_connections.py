"""Connections that are held for nothing are closed: a real server, with times that are shorter than the real ones."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bentotool.runtime.repeats import Repeating

uvicorn = pytest.importorskip("uvicorn")
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
POST = b"POST /early HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n"
MUCH = 64 * 1024 * 1024


class Short(Repeating):
    head_seconds = 3.0
    unread_seconds = 0.5


async def app(scope: Any, _receive: Any, send: Any) -> None:
    size = MUCH if scope["path"] == "/much" else 0
    headers = [(b"content-length", b"%d" % size)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * size})


def served(talk: Callable[[int], Awaitable[Any]]) -> tuple[Any, int]:
    """What a talk with a server gives, and how many connections the server has in the end."""

    async def run() -> tuple[Any, int]:
        config = uvicorn.Config(
            app, port=0, http=Short, ws="none", lifespan="off", log_config=None, timeout_keep_alive=1
        )
        server = uvicorn.Server(config)
        serving = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        found = await asyncio.wait_for(talk(server.servers[0].sockets[0].getsockname()[1]), 50)
        for _ in range(500):  # a connection is forgotten a moment after it is closed
            if not server.server_state.connections:
                break
            await asyncio.sleep(0.02)
        left = len(server.server_state.connections)
        server.should_exit = True
        await serving
        return found, left

    return asyncio.run(run())


async def trickle(port: int, first: bytes, then: bytes) -> bytes:
    """Send something again and again until the connection is closed; give what was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    said = b""

    async def listen() -> None:
        nonlocal said
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(1000):
                said += piece

    listening = asyncio.ensure_future(listen())
    while not listening.done():
        writer.write(then)
        await asyncio.wait((listening,), timeout=0.2)
    writer.close()
    return said


def test_whatever_is_no_request_ends() -> None:
    cases = [
        (GET, b""), (GET, b"\r\n"), (GET + GET, b"\n"), (b"", b"\r\n"), (GET, b"G"), (GET + b"GET / HT", b""),
        (POST, b""), (POST, b"x"), (POST + b"x" * 100, b"\r\n"), (GET.replace(b"1.1", b"1.0"), b""),
    ]  # fmt: skip

    async def talk(port: int) -> list[bytes]:
        return await asyncio.gather(*(trickle(port, *case) for case in cases))

    found, left = served(talk)
    assert left == 0
    assert all(said.startswith(b"HTTP/1.1 200") for (first, _), said in zip(cases[:3], found, strict=False))
    assert [said.count(b"HTTP/1.1 ") for said in found[:3]] == [1, 1, 2]


@pytest.mark.parametrize("last", [b"", b"connection: close\r\n"])
def test_an_answer_that_nobody_reads_is_not_kept(last: bytes) -> None:
    with socket.socket() as silent:
        silent.settimeout(30)

        async def talk(port: int) -> None:
            await asyncio.to_thread(silent.connect, ("127.0.0.1", port))
            silent.sendall(GET.replace(b"/ ", b"/much ")[:-2] + last + b"\r\n")
            assert await asyncio.to_thread(silent.recv, 12) == b"HTTP/1.1 200"

        assert served(talk)[1] == 0
