"""Callers that leave, that are slow, that send too much: a real server, spoken to byte by byte."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

SERVICE = """
import asyncio, pathlib, time
from collections.abc import AsyncIterator, Iterator
import bentotool

def note(word, name="said"):
    with (pathlib.Path(__file__).parent / name).open("a") as file:
        file.write(word + "\\n")

async def body_counts(scope, receive, send):
    size = 0
    if scope["type"] != "http":
        raise NotImplementedError
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})

class Pieces:
    def __iter__(self):
        yield b"first"
        while True:
            time.sleep(0.01)
            yield b"x" * 1000

    def close(self):
        note("wsgi-closed")

def old(environ, start_response):
    start_response("200 OK", [("content-type", "text/plain")])
    if environ["PATH_INFO"] == "/three":
        return iter([b"one", b"", b"two", b"three"])
    return Pieces()

@bentotool.asgi_app(body_counts, path="/counts")
@bentotool.wsgi_app(old, path="/old")
@bentotool.service(threads=2, traffic={"timeout": 1.0, "max_concurrency": 8}, http={"max_body_bytes": 100_000})
class Wire:
    @bentotool.api
    async def waits(self) -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.sleep(600)
        finally:
            note("async-closed")

    @bentotool.api
    def blocks(self) -> Iterator[str]:
        try:
            while True:
                time.sleep(0.01)
                yield "item"
        finally:
            note("sync-closed")

    @bentotool.api
    async def floods(self) -> AsyncIterator[bytes]:
        sent = 0
        try:
            while True:
                yield b"x" * 65536
                sent += 1
                (pathlib.Path(__file__).parent / "sent").write_text(str(sent))
        finally:
            note("flood-closed")

    @bentotool.api
    async def breaks(self) -> AsyncIterator[dict]:
        yield {"n": 0}
        raise RuntimeError("secret")

    @bentotool.api
    async def raw(self) -> AsyncIterator[bytes]:
        yield b"one"
        raise RuntimeError("secret")

    @bentotool.api(timeout=60)
    async def long(self) -> None:
        note("long-began")
        try:
            await asyncio.sleep(600)
        finally:
            note("long-ended")

    @bentotool.api
    async def slow(self) -> None:
        try:
            await asyncio.sleep(600)
        finally:
            note("slow-ended")

    @bentotool.api
    def length(self, text: str = "") -> int:
        return len(text)
"""


@pytest.fixture(scope="module")
def server(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("wire") / "project", SERVICE) as found:
        yield found


def post(path: str, body: bytes = b"{}", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: localhost", "content-type: application/json", *headers]
    if not any(header.startswith(("content-length", "transfer-encoding")) for header in headers):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@pytest.mark.parametrize(("path", "word"), [("/waits", "async-closed"), ("/blocks", "sync-closed")])
def test_a_stream_ends_when_its_reader_leaves(server: Any, wire: Any, path: str, word: str) -> None:
    connection = server.raw(post(path))
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    connection.close()
    wire.wait_for(lambda: word in server.said("said"))


def test_a_slow_reader_holds_the_stream_and_no_memory(server: Any, wire: Any) -> None:
    connection = server.raw(post("/floods"))
    connection.recv(1000)
    before = -1

    def stands_still() -> bool:
        nonlocal before
        import time

        time.sleep(0.5)
        now = int((server.said("sent") or ["0"])[0] or 0)
        still, before = now == before, now
        return still

    wire.wait_for(stands_still)
    assert before * 65536 < 64 * 1024 * 1024, "what the system's buffers hold, and no more"
    assert httpx.post(f"{server.url}/length", json={"text": "ab"}).json() == 2, "others are answered"
    connection.close()
    wire.wait_for(lambda: "flood-closed" in server.said("said"))


def test_a_stream_that_breaks_says_so_last(server: Any) -> None:
    lines = httpx.post(f"{server.url}/breaks", json={}).text.splitlines()
    assert json.loads(lines[0]) == {"n": 0}
    assert json.loads(lines[1])["error"]["code"] == "internal"
    events = httpx.post(f"{server.url}/breaks", json={}, headers={"accept": "text/event-stream"}).text
    first, last, rest = events.split("\n\n")
    assert (first, last.split("\n")[0], rest) == ('data: {"n":0}', "event: error", "")
    assert "secret" not in events
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        httpx.post(f"{server.url}/raw", json={})


def test_work_of_a_caller_that_left_is_cancelled(server: Any, wire: Any) -> None:
    connection = server.raw(post("/long"))
    wire.wait_for(lambda: "long-began" in server.said("said"))
    connection.close()
    wire.wait_for(lambda: "long-ended" in server.said("said"))
    wire.wait_for(
        lambda: re.search(
            r'endpoint="/long",http_response_code="499",[^}]*} 1\.0', httpx.get(f"{server.url}/metrics").text
        )
    )


def test_a_deadline_is_kept_and_work_ended(server: Any, wire: Any) -> None:
    answer = httpx.post(f"{server.url}/slow", json={}, timeout=wire.limit)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    wire.wait_for(lambda: "slow-ended" in server.said("said"))
    asked = httpx.post(f"{server.url}/slow", json={}, headers={"x-request-timeout-ms": "50"}, timeout=wire.limit)
    assert (asked.status_code, "0.05" in asked.json()["error"]["message"]) == (504, True)


@pytest.mark.parametrize("length", ["content-length: 50", "transfer-encoding: chunked"])
def test_a_body_that_comes_too_slowly_holds_no_place(server: Any, wire: Any, length: str) -> None:
    slow = [server.raw(post("/length", b"", length)) for _ in range(8)]
    for connection in slow:
        answer = wire.read_all(connection)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"request_timeout"' in answer
    assert httpx.post(f"{server.url}/length", json={"text": "ab"}).json() == 2


@pytest.mark.parametrize("path", ["/length", "/counts/"])
def test_bodies_that_are_too_large(server: Any, wire: Any, path: str) -> None:
    said = wire.read_all(server.raw(post(path, b"", "content-length: 100001", "connection: close")))
    assert said.startswith(b"HTTP/1.1 413"), "before any of it was sent"

    def pieces() -> Any:
        for _ in range(50):
            yield b"x" * 10_000

    answer = httpx.post(f"{server.url}{path}", content=pieces(), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "payload_too_large")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_mounted_application_gets_what_fits(server: Any) -> None:
    body = b"x" * 100_000
    headers = {"content-encoding": "gzip"}  # it may know what to do with it
    assert httpx.post(f"{server.url}/counts/", content=body, headers=headers).text == "100000"


def test_a_wsgi_answer_in_pieces(server: Any, wire: Any) -> None:
    assert httpx.get(f"{server.url}/old/three").text == "onetwothree"
    with httpx.stream("GET", f"{server.url}/old/endless") as answer:
        assert next(answer.iter_bytes()).startswith(b"first")
    wire.wait_for(lambda: "wsgi-closed" in server.said("said"))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", b"200"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET /readyz HTTP/9.9\r\nhost: localhost\r\n\r\n", b"400"),
        # a proxy and a server that see two requests in one disagree about whose answer is whose
        (post("/length", b"0\r\n\r\n", "content-length: 5", "transfer-encoding: chunked"), b"400"),
        (post("/length", b"{}", "content-length: 2", "content-length: 3"), b"400"),
        (post("/length", b"{}", "content-length: +2"), b"400"),
        (post("/length", b"zz\r\n", "transfer-encoding: chunked"), b"400"),
        (b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\nx\0y: 1\r\n\r\n", b"400"),
        (b"GET /readyz HTTP/1.1\r\nhost: localhost\r\n" + b"x: " + b"a" * 300_000, b"431"),
        (b"GET /" + b"a" * 300_000, b"431"),
    ],
)
def test_what_is_no_proper_request(server: Any, wire: Any, request_: bytes, status: bytes) -> None:
    connection = server.raw(request_)
    assert connection.recv(12) == b"HTTP/1.1 " + status
    connection.close()


def test_who_says_too_little_is_let_go(wire: Any) -> None:
    """Heads of requests have a limit of their own; it is shortened here, since the real one is long."""
    uvicorn = pytest.importorskip("uvicorn")
    from bentotool.runtime.connections import Guarded

    class Short(Guarded):
        head_seconds = 0.3

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.6)  # longer than a head may take: the answer is not cut
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def ask(port: int, *parts: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(0.1)
        found = await asyncio.wait_for(reader.read(), wire.limit)
        writer.close()
        return found

    async def run() -> list[bytes]:
        server = uvicorn.Server(uvicorn.Config(app, port=0, http=Short, ws="none", lifespan="off", log_config=None))
        serving = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        whole = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
        last = whole.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        found = await asyncio.gather(
            ask(port),
            ask(port, b"GET / HT"),
            ask(port, whole, b"", b"", b"", b"", b"", b"", b"", b"GET"),
            ask(port, last),
        )
        server.should_exit = True
        await serving
        return list(found)

    silent, begun, second, good = asyncio.run(run())
    assert silent == b""
    assert begun.startswith(b"HTTP/1.1 408")
    assert (second[:12], second.count(b"HTTP/1.1"), b"408" in second) == (b"HTTP/1.1 204", 2, True)
    assert good.startswith(b"HTTP/1.1 204")
