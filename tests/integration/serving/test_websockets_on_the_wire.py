"""Websockets of a real server: frames as they should be, and as they should not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn

import bentotool
from bentotool.runtime import websockets
from bentotool.runtime.app import Application
from bentotool.runtime.websockets import websocket_protocol

SERVICE = """
import asyncio, pathlib
import bentotool

def note(word):
    with (pathlib.Path(__file__).parent / "said").open("a") as file:
        file.write(word + "\\n")

async def raw(scope, receive, send):
    if scope["type"] != "websocket":
        raise NotImplementedError
    await receive()
    await send({"type": "websocket.accept"})
    message = await receive()
    await send({"type": "websocket.send", "text": message["text"].upper()})
    await send({"type": "websocket.close", "code": 4001})

@bentotool.asgi_app(raw, path="/raw")
@bentotool.service(http={"max_body_bytes": 100_000})
class Talking:
    @bentotool.websocket
    async def echo(self, socket: bentotool.WebSocket):
        try:
            async for message in socket:
                if message == "fail":
                    raise RuntimeError("secret")
                await socket.send(message)
        finally:
            note("echo-ended")

    @bentotool.websocket("/rooms/{room}")
    async def room(self, socket: bentotool.WebSocket, room: int, loud: bool = False):
        await socket.send_json({"room": room, "loud": loud})

    @bentotool.websocket
    async def deaf(self, socket: bentotool.WebSocket):
        await socket.accept()
        try:
            await asyncio.sleep(600)
        finally:
            note("deaf-ended")

    @bentotool.api
    def call(self) -> int:
        return 1
"""
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


@pytest.fixture(scope="module")
def server(serving: Any, require_package: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Any:
    require_package("wsproto")
    with serving(tmp_path_factory.mktemp("talking") / "project", SERVICE, "--grace", "2") as found:
        yield found


def frame(kind: int, data: bytes, *, last: bool = True, masked: bool = True, size: int | None = None) -> bytes:
    """One frame of RFC 6455; `size` is what it says of itself."""
    length = len(data) if size is None else size
    head = bytes([kind | (0x80 if last else 0)])
    bit = 0x80 if masked else 0
    if length < 126:
        head += bytes([bit | length])
    elif length < 65536:
        head += struct.pack("!BH", bit | 126, length)
    else:
        head += struct.pack("!BQ", bit | 127, length)
    if not masked:
        return head + data
    mask = b"\1\2\3\4"
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


class Caller:
    """One end of a connection, reading frames."""

    def __init__(self, connection: socket.socket, rest: bytes) -> None:
        self.connection, self._rest = connection, rest

    def send(self, *arguments: Any, **options: Any) -> None:
        self.connection.sendall(frame(*arguments, **options))

    def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            part = self.connection.recv(65536)
            if not part:
                raise EOFError
            self._rest += part
        found, self._rest = self._rest[:size], self._rest[size:]
        return found

    def receive(self) -> tuple[int, bytes]:
        first, second = self._take(2)
        length = second & 0x7F
        if length >= 126:
            length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
        return first & 0x0F, self._take(length)

    def closed(self) -> tuple[int, bytes]:
        """Code and reason of the close frame that comes next; 1006 where the connection just ends."""
        try:
            kind, data = self.receive()
        except EOFError:
            return 1006, b""
        assert kind == CLOSE, (kind, data)
        return int.from_bytes(data[:2], "big"), data[2:]


def opening(path: str, *headers: str) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", "upgrade: websocket", "connection: upgrade", "sec-websocket-version: 13"]
    given = {line.partition(":")[0] for line in headers}
    own = ["host: localhost", f"sec-websocket-key: {key}"]
    lines += [line for line in own if line.partition(":")[0] not in given]
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n"


@contextlib.contextmanager
def talking(server: Any, path: str, *headers: str) -> Iterator[Caller]:
    with server.raw(opening(path, *headers)) as connection:
        head = b""
        while b"\r\n\r\n" not in head:
            part = connection.recv(65536)
            assert part, head
            head += part
        head, _, rest = head.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        assert b"sec-websocket-extensions" not in head.lower()
        yield Caller(connection, rest)


def test_messages(server: Any, wire: Any) -> None:
    with talking(server, "/echo", "sec-websocket-extensions: permessage-deflate") as caller:
        caller.send(TEXT, "grüße".encode())
        assert caller.receive() == (TEXT, "grüße".encode())
        caller.send(BINARY, b"\0" * 70_000)
        assert caller.receive() == (BINARY, b"\0" * 70_000)
        caller.send(TEXT, b"a", last=False)
        caller.send(PING, b"there?")
        caller.send(0, b"b")
        assert caller.receive() == (PONG, b"there?")
        assert caller.receive() == (TEXT, b"ab")
        caller.send(CLOSE, struct.pack("!H", 1000))
        assert caller.closed()[0] == 1000
    wire.wait_for(lambda: "echo-ended" in server.said("said"))


def test_parameters_and_a_mounted_application(server: Any) -> None:
    with talking(server, "/rooms/7?loud=true") as caller:
        assert caller.receive() == (TEXT, b'{"room":7,"loud":true}')
        assert caller.closed()[0] == 1000
    with talking(server, "/raw/anything") as caller:
        caller.send(TEXT, b"loud")
        assert caller.receive() == (TEXT, b"LOUD")
        assert caller.closed()[0] == 4001


@pytest.mark.parametrize(
    ("sent", "codes"),
    [
        (frame(TEXT, b"x" * 100_001), (1009,)),
        (frame(BINARY, b"x" * 60_000, last=False) + frame(0, b"x" * 60_000), (1009,)),
        (frame(TEXT, b"\xff\xfe"), (1007, 1006)),
        (frame(TEXT, b"bare", masked=False), (1002, 1006)),
        (frame(3, b"reserved"), (1002, 1006)),
        (frame(0, b"continues nothing"), (1002, 1006)),
        (frame(PING, b"x" * 200), (1002, 1006)),
        (frame(CLOSE, struct.pack("!H", 5)), (1002, 1006)),
        (frame(TEXT, b"fail"), (1011,)),
    ],
)
def test_frames_that_end_the_conversation(server: Any, sent: bytes, codes: tuple[int, ...]) -> None:
    with talking(server, "/echo") as caller:
        caller.connection.sendall(sent)
        code, reason = caller.closed()
        assert code in codes
        assert b"secret" not in reason
    assert httpx.post(f"{server.url}/call", json={}).json() == 1


def test_what_is_announced_and_never_sent_takes_no_memory(server: Any) -> None:
    with talking(server, "/echo") as caller:
        caller.send(BINARY, b"x", size=2**62)
        assert httpx.post(f"{server.url}/call", json={}).json() == 1


def test_who_hears_nothing_is_not_read_from(server: Any) -> None:
    """A handler that takes no messages holds its caller back, and not memory."""
    with talking(server, "/deaf") as caller:
        caller.connection.settimeout(1.0)
        message, sent = frame(BINARY, b"x" * 50_000), 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 * 1024 * 1024:
                sent += caller.connection.send(message)
        assert sent < 32 * 1024 * 1024


def test_a_caller_that_vanishes(server: Any, wire: Any) -> None:
    before = server.said("said").count("echo-ended")
    with talking(server, "/echo") as caller:
        caller.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.wait_for(lambda: server.said("said").count("echo-ended") > before)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/rooms/x", (), 400),
        ("/nothing", (), 404),
        ("/call", (), 404),
        ("/echo", ("origin: https://evil.example",), 403),
        ("/echo", ("origin: null",), 403),
        ("/raw/x", ("origin: https://evil.example",), 403),
        ("/echo", ("host: evil.example",), 421),
    ],
)
def test_refused(server: Any, path: str, headers: tuple[str, ...], status: int) -> None:
    with server.raw(opening(path, *headers)) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 %d" % status)


def test_a_refusal_is_no_error_in_the_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, require_package: Callable[[str], None]
) -> None:
    require_package("websockets")
    monkeypatch.setattr(websockets, "_LIBRARIES", websockets._LIBRARIES[1:])

    @bentotool.service(http={"allowed_hosts": ["localhost"]})
    class Talking:
        @bentotool.websocket("/rooms/{room}")
        async def room(self, socket: bentotool.WebSocket, room: int) -> None:
            await socket.send_json(room)

    async def ask(port: int, path: str, *headers: str) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(opening(path, *headers))
        found = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return found

    async def main() -> list[bytes]:
        protocol: Any = websocket_protocol(Talking)
        config = uvicorn.Config(Application(Talking), port=0, ws=protocol, log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        serving = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:
            assert not serving.done()
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        answers = [
            await ask(port, "/rooms/x"),
            await ask(port, "/nothing"),
            await ask(port, "/rooms/7", "origin: https://evil.example"),
        ]
        server.should_exit = True
        await serving
        return answers

    answers = asyncio.run(main())
    assert [answer.split(b" ", 2)[1] for answer in answers] == [b"400", b"404", b"403"]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_plain_request_to_a_websocket(server: Any) -> None:
    for path in ("/echo", "/rooms/7"):
        answer = httpx.get(server.url + path)
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")


def test_a_server_that_stops_says_so(
    serving: Any, wire: Any, require_package: Callable[[str], None], tmp_path: Any
) -> None:
    require_package("wsproto")
    with serving(tmp_path / "project", SERVICE, "--grace", "5") as server, talking(server, "/echo") as caller:
        caller.send(TEXT, b"a")
        assert caller.receive() == (TEXT, b"a")
        server.process.terminate()
        assert caller.closed()[0] == 1012
        assert server.process.wait(wire.limit) == 0
        assert server.said("said") == ["echo-ended"]
