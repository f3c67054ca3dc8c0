"""What comes around a body: offers of other protocols, endless trailers, the rest of what was answered early."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bentotool.runtime.courtesy import Courteous

SERVICE = """
import bentotool

@bentotool.service(traffic={"timeout": 60}, workers=1)
class Polite:
    @bentotool.api
    async def text(self, text: str) -> int:
        return len(text)
"""
BODY = b'{"text": "abc"}'
HEAD = b"POST /text HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
LENGTH = b"content-length: %d\r\n" % len(BODY)
CHUNKED = b"transfer-encoding: chunked\r\n"
H2C = b"connection: Upgrade, HTTP2-Settings\r\nhttp2-settings: AAEAAEAAAAIAAAABAAMA\r\nupgrade: h2c\r\n"
LAST = b"connection: close\r\n"


@pytest.fixture(scope="module")
def server(serving: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(tmp_path_factory.mktemp("polite") / "project", SERVICE) as found:
        yield found


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_who_offers_another_protocol_is_answered_in_this_one(server: Any, wire: Any, apart: bool, framing: str) -> None:
    """As Java's HttpClient and ``curl --http2`` do; uvicorn drops the body of such a request."""
    body = BODY if framing == "length" else b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
    head = HEAD + H2C + (LENGTH if framing == "length" else CHUNKED) + b"\r\n"
    parts = [head, body] if apart else [head + body]
    with server.raw() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):  # the connection is of use afterwards
            for part in parts:
                connection.sendall(part)
                time.sleep(0.05 * apart)
            said = b""
            while not said.endswith(b"\r\n\r\n3"):
                said += (more := connection.recv(65536))
                assert more, said
            assert said.startswith(b"HTTP/1.1 200")


def send_on(connection: socket.socket, endless: bytes) -> None:
    for _ in range(100):  # 30 MB: it would go on for ever
        connection.sendall(endless)
    connection.sendall(endless)


@pytest.mark.parametrize("request_", [HEAD, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n"], ids=["waits", "answered"])
@pytest.mark.parametrize(
    "endless",
    [b"0\r\n" + b"a: b\r\n" * 50_000, b"0\r\na: " + b"b" * 300_000, b"3;" + b"a" * 300_000],
    ids=["trailers", "a trailer", "an extension of a chunk"],
)
def test_what_is_of_no_body_has_an_end(server: Any, wire: Any, endless: bytes, request_: bytes) -> None:
    connection = server.raw(request_ + CHUNKED + b"\r\n2\r\n{}\r\n")
    with connection, pytest.raises(ConnectionError):
        send_on(connection, endless)
    assert wire.read_all(server.raw(HEAD + LENGTH + LAST + b"\r\n" + BODY)).startswith(b"HTTP/1.1 200")


def test_bytes_of_a_body_may_come_one_by_one(server: Any, wire: Any) -> None:
    chunks = b"".join(b"1;x=%d\r\n%c\r\n" % (number, byte) for number, byte in enumerate(BODY))
    said = wire.read_all(server.raw(HEAD + CHUNKED + LAST + b"\r\n" + chunks + b"0\r\nx: y\r\n\r\n"))
    assert said.startswith(b"HTTP/1.1 200")


def test_the_rest_of_what_was_answered_is_not_read_for_ever(wire: Any) -> None:
    """The real time is longer: else callers that send a large body to no avail would not see the answer."""
    uvicorn = pytest.importorskip("uvicorn")

    class Short(Courteous):
        farewell_seconds = 0.5

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"0")]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body"})

    async def trickle(port: int, length: int, then: bytes) -> tuple[bytes, bool]:
        """What was said, and whether it was cut before everything was sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % length)
        said = await reader.readuntil(b"\r\n\r\n")
        try:
            for _ in range(length):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
            await asyncio.sleep(1)  # its time is not counted any more
            writer.write(then)
            said += await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), wire.limit)
        except (ConnectionError, asyncio.IncompleteReadError):
            return said, True
        finally:
            writer.close()
        return said, False

    async def run() -> list[tuple[bytes, bool]]:
        server = uvicorn.Server(uvicorn.Config(app, port=0, http=Short, ws="none", lifespan="off", log_config=None))
        serving = asyncio.get_running_loop().create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        port = server.servers[0].sockets[0].getsockname()[1]
        last = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        found = await asyncio.gather(trickle(port, 1_000, b""), trickle(port, 5, last))
        server.should_exit = True
        await serving
        return list(found)

    (endless, cut), (short, kept_off) = asyncio.run(run())
    assert (endless[:12], cut) == (b"HTTP/1.1 413", True)
    assert (short.count(b"HTTP/1.1 413"), kept_off) == (2, False)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_server_whose_log_nobody_reads_goes_on(tmp_path: Path, wire: Any) -> None:
    """``bentotool serve 2>&1 | head -1``: the next line for the log has no place to go to."""
    (tmp_path / "service.py").write_text(
        "import os\nimport bentotool\n@bentotool.service\nclass S:\n    @bentotool.api\n    def pid(self) -> int:\n"
        "        return os.getpid()\n    @bentotool.api\n    def die(self) -> None:\n        os._exit(1)\n"
    )
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "bentotool.runtime", str(tmp_path), "--port", "0", "--port-file", str(port_file)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stderr.close()
        port = int(port_file.read_text())

        def ask(path: str) -> bytes:
            request = b"POST /%s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n" % path.encode()
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=wire.limit) as connection:
                    connection.sendall(request)
                    return connection.recv(12)
            except OSError:
                return b""

        for _ in range(2):
            wire.wait_for(lambda: ask("pid") == b"HTTP/1.1 200")
            assert ask("die") == b""
        wire.wait_for(lambda: ask("pid") == b"HTTP/1.1 200")
        process.terminate()
        process.wait(wire.limit)
    finally:
        process.kill()
        process.wait()
