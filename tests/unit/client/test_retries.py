"""When a call is made again, and when not: what a scripted server counts."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bentotool.client.http import AsyncHTTPClient, SyncHTTPClient
from bentotool.errors import RemoteError
from bentotool.exceptions import ServiceUnavailable, TooManyRequests

pytest.importorskip("httpx")
INT, FILE = {"type": "integer"}, {"type": "file"}
SCHEMA = {
    "name": "Scripted",
    "routes": [
        {
            "name": name,
            "route": f"/{name}",
            "method": method,
            "is_task": name == "later",
            "input": {"type": "object", "properties": properties},
            "output": INT,
        }
        for name, method, properties in (
            ("read", "GET", {"x": INT}),
            ("change", "POST", {"x": INT}),
            ("later", "POST", {"x": INT}),
            ("upload", "POST", {"f": FILE}),
        )
    ],
}
OK: tuple[int, dict[str, str]] = (200, {})


class Script:
    """Answers in turn: ``(status, headers)``, or ``"break"`` for a connection that ends without one."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: list[Any] = []
        self.seen: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def paths(self) -> list[str]:
        return [path.partition("?")[0] for path, _, _ in self.seen]


@pytest.fixture
def script() -> Iterator[Script]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            return

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            if self.headers.get("transfer-encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            if self.path == "/schema.json":
                self._answer(200, {}, SCHEMA)
                return
            made.seen.append((self.path, dict(self.headers.items()), body))
            answer = made.answers.pop(0) if made.answers else OK
            if answer == "break":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                self.wfile = io.BytesIO()
                self.connection.close()
                return
            status, headers = answer
            self._answer(status, headers, {"task_id": "t"} if self.path.endswith("/submit") else 1)

        do_POST = do_GET  # noqa: N815 - the library's name

        def _answer(self, status: int, headers: dict[str, str], value: Any) -> None:
            content = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {**headers, "content-type": "application/json"}.items():
                self.send_header(name, text)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Script(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


Call = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest, script: Script) -> Call:
    """``call(name, **options)`` calls with one client or the other; ``later`` is submitted."""
    arguments = {"read": {"x": 1}, "change": {"x": 1}, "later": {"x": 1}}

    def blocking(name: str, values: Any = None, **options: Any) -> Any:
        with SyncHTTPClient(script.url, server_ready_timeout=0, **options) as client:
            way = client.submit if name == "later" else client.call
            return way(name, **(values or arguments[name]))

    def awaited(name: str, values: Any = None, **options: Any) -> Any:
        async def main() -> Any:
            async with AsyncHTTPClient(script.url, server_ready_timeout=0, **options) as client:
                way: Any = client.submit if name == "later" else client.call
                return await way(name, **(values or arguments[name]))

        return asyncio.run(main())

    return blocking if request.param == "sync" else awaited


SOON = {"retry-after": "0.01"}


@pytest.mark.parametrize("answer", ["break", (503, SOON), (429, SOON)])
def test_what_only_reads_is_asked_again(script: Script, call: Call, answer: Any) -> None:
    script.answers = [answer, answer]
    assert call("read") == 1
    assert script.paths == ["/read"] * 3


@pytest.mark.parametrize(("answer", "error"), [("break", RemoteError), ((503, SOON), ServiceUnavailable)])
def test_what_changes_something_is_sent_once(script: Script, call: Call, answer: Any, error: type[Exception]) -> None:
    script.answers = [answer]
    with pytest.raises(error):
        call("change")
    assert script.paths == ["/change"]
    script.answers = [answer]
    assert call("change", idempotent=True) == 1  # unless the caller says that it may be repeated
    assert script.paths == ["/change"] * 3


def test_a_submission_has_a_key_and_is_sent_again(script: Script, call: Call) -> None:
    script.answers = ["break", (503, SOON)]
    assert call("later").id == "t"
    assert script.paths == ["/later/submit"] * 3
    keys = {headers["idempotency-key"] for _, headers, _ in script.seen}
    assert len(keys) == 1
    assert call("later").id == "t"
    assert script.seen[-1][1]["idempotency-key"] not in keys


def test_there_is_an_end_to_it(script: Script, call: Call) -> None:
    script.answers = [(429, SOON)] * 9
    with pytest.raises(TooManyRequests) as caught:
        call("read", retries=1)
    assert len(script.seen) == 2
    assert caught.value.retry_after == 0.01  # type: ignore[attr-defined]
    with pytest.raises(TooManyRequests):
        call("read", retries=0)
    assert len(script.seen) == 3


def test_nobody_waits_longer_than_the_timeout(script: Script, call: Call) -> None:
    script.answers = [(503, {"retry-after": "3600"})]
    with pytest.raises(ServiceUnavailable):
        call("read", timeout=5)
    assert len(script.seen) == 1


def test_an_answer_without_the_word_when_is_not_repeated(script: Script, call: Call) -> None:
    for status, headers in (
        (503, {}),
        (500, SOON),
        (404, SOON),
        (503, {"retry-after": "Fri, 01 Jan 2100 00:00:00 GMT"}),
    ):
        script.answers = [(status, headers)]
        with pytest.raises(RemoteError):
            call("read")
    assert len(script.seen) == 4


def test_files_are_sent_whole_again(script: Script, call: Call, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100_000)
    with (tmp_path / "f").open("rb") as opened:
        for file in (tmp_path / "f", opened, ("f", b"x" * 100_000)):
            script.seen.clear()
            script.answers = ["break"]
            assert call("upload", {"f": file}, idempotent=True) == 1
            assert [body.count(b"x" * 100_000) for _, _, body in script.seen] == [1, 1]


def test_what_can_be_read_once_is_sent_once(script: Script) -> None:
    class Pipe(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, _buffer: Any) -> int:
            return 0

    script.answers = ["break"]
    client = SyncHTTPClient(script.url, server_ready_timeout=0, idempotent=True)
    with client, pytest.raises(RemoteError):
        client.call("upload", f=Pipe())
    assert len(script.seen) == 1


def test_a_refused_connection_has_sent_nothing() -> None:
    """The service starts while the client tries: whatever the call, it is made once."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    began = threading.Event()

    def late() -> None:
        began.wait(10)
        time.sleep(0.15)
        with contextlib.closing(socket.create_server(("127.0.0.1", port))) as server:
            server.settimeout(10)
            connection, _ = server.accept()
            with connection:
                connection.settimeout(10)
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1\r\n\r\n7")

    thread = threading.Thread(target=late)
    thread.start()
    with SyncHTTPClient(f"http://127.0.0.1:{port}", server_ready_timeout=0, retries=6) as client:
        from bentotool.client.routes import read_routes

        client._routes = read_routes(SCHEMA)
        began.set()
        assert client.call("change", x=1) == 7
    thread.join(10)
