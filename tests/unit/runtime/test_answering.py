"""The called side of calls between services, and who may call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

import bentotool
from bentotool.runtime import answering, remote
from bentotool.runtime.answering import Answers
from bentotool.runtime.app import Application
from bentotool.runtime.channels import Lost, Undelivered, greeting
from bentotool.runtime.remote import RemotePeer
from bentotool.runtime.wire import CALL, HELLO, MAX_MESSAGE, frame, pack
from bentotool.sdk.exceptions import InvalidArgument, NotFound, RemoteException, ServiceUnavailable

LIMIT = 20.0
TOKEN = "t0ken"


@bentotool.service
class Called:
    def __init__(self) -> None:
        self.closed = 0

    @bentotool.api
    async def add(self, x: int, y: int = 1) -> int:
        return x + y

    @bentotool.api
    def lines(self, n: int) -> Iterator[str]:
        try:
            for number in range(n):
                yield f"{number}"
        finally:
            self.closed += 1

    @bentotool.api
    async def noticed(self) -> int:
        return self.closed


def run(work) -> None:
    asyncio.run(asyncio.wait_for(work, LIMIT))


@contextlib.asynccontextmanager
async def answers() -> AsyncIterator[tuple[Answers, int]]:
    app = Application(Called)
    await app.start()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    made = Answers(app, TOKEN)
    await made.listen(listener)
    try:
        yield made, port
    finally:
        await made.close(1.0)
        await app.stop()


_made: list[RemotePeer] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _made:
        for channel in (made := _made.pop())._channels:
            channel.idle.clear()  # of a loop that is closed by now
        made._close()


def peer(port: int, token: str = TOKEN) -> RemotePeer:
    _made.append(RemotePeer(Called, [f"tcp:127.0.0.1:{port}"], token))
    return _made[-1]


def test_calls() -> None:
    async def go() -> None:
        async with answers() as (_, port):
            other = peer(port)
            assert await other.add(1) == 2
            assert await other.to_async.add(1, y=5) == 6
            assert await asyncio.to_thread(other.to_sync.add, 1) == 2
            assert [item async for item in other.to_async.lines(3)] == ["0", "1", "2"]
            assert await asyncio.to_thread(lambda: list(other.lines(2))) == ["0", "1"]
            with pytest.raises(InvalidArgument, match=r"\$\.x"):
                await other.add("a")
            with pytest.raises(AttributeError, match="no API 'nothing'"):
                other.nothing  # noqa: B018

    run(go())


def test_who_stops_reading_ends_the_stream() -> None:
    async def go() -> None:
        async with answers() as (_, port):
            other = peer(port)
            stream = other.to_async.lines(1_000_000)
            assert await anext(stream) == "0"
            await stream.aclose()
            while not await other.noticed():
                await asyncio.sleep(0.01)

    run(go())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
        b"\x80\x04\x95\x0b" * 100,
        frame(CALL)[0],
        frame(HELLO, b"\xc1")[0],
        greeting("wrong", "Called"),
        greeting("", "Called"),
        greeting("é", "Called"),
        greeting(TOKEN, "Other"),
        b"\x01\0\0\0\xff\xff\xff\xff" + bytes(8),
        greeting(TOKEN, "Called") + b"\x63" + bytes(15),
        greeting(TOKEN, "Called") + frame(HELLO)[0],
        greeting(TOKEN, "Called") + b"\x03\0\0\0" + bytes(4) + MAX_MESSAGE.to_bytes(8, "big"),
    ],
)
def test_strangers_are_sent_away_and_others_go_on(data: bytes) -> None:
    async def go() -> None:
        async with answers() as (made, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(bytes(data))
            with contextlib.suppress(ConnectionError):
                assert len(await reader.read()) <= 16  # at most a welcome
            writer.close()
            assert await peer(port).add(1) == 2
            assert len(made.connections) <= 1

    run(go())


def test_a_call_that_is_not_in_order_is_answered_with_what_is_wrong() -> None:
    async def go() -> None:
        async with answers() as (_, port):
            other = peer(port)
            message = pack(CALL, [[1], {}], ("nothing", None, {}))
            channel = other._channels[0]
            connection = await other._open(channel)
            await connection.send(message)
            with pytest.raises(NotFound, match="no API 'nothing'"):
                remote._result(other._api("add"), await connection.receive())
            await connection.send([frame(CALL, b"\xc1")[0]])
            with pytest.raises(bentotool.errors.BentotoolError, match="not in order"):
                remote._result(other._api("add"), await connection.receive())
            await connection.send(pack(CALL, [[1], {}], ("add", None, {})))
            assert remote._result(other._api("add"), await connection.receive()) == 2
            connection.close()

    run(go())


def test_who_says_nothing_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "_GREETING_S", 0.1)

    async def go() -> None:
        async with answers() as (made, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            other = peer(port)
            assert await other.add(1) == 2
            await asyncio.sleep(0.2)
            assert await other.add(1) == 2  # who has said it stays
            assert len(made.connections) == 1

    run(go())


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

    async def go() -> None:
        with pytest.raises(ServiceUnavailable, match="no worker that answers"):
            await peer(port).add(1)

    run(go())
    with pytest.raises(ServiceUnavailable, match="no worker that answers"):
        peer(port).to_sync.add(1)
    assert not peer(port).is_ready()


@pytest.mark.parametrize("lost", [Undelivered, Lost])
def test_only_a_call_that_nobody_has_begun_with_is_made_again(
    lost: type[Lost], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def go() -> None:
        async with answers() as (_, port):
            other = peer(port)
            assert await other.add(1) == 2
            [kept] = other._channels[0].idle[asyncio.get_running_loop()]

            async def send(_pieces: object) -> None:
                raise lost

            monkeypatch.setattr(kept, "send", send)
            if lost is Undelivered:
                assert await other.add(1) == 2
            else:
                with pytest.raises(RemoteException, match="worker was lost"):
                    await other.add(1)

    run(go())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no such sockets here")
def test_a_broken_pipe_is_a_call_that_nobody_has_begun_with(tmp_path) -> None:
    from bentotool.runtime.channels import Awaiting

    async def go() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        _, connection = await asyncio.get_running_loop().create_unix_connection(Awaiting, sock=ours)
        connection._transport.pause_reading()  # its end is not seen before something is written
        theirs.close()
        await connection.send([b"x" * 100])
        with pytest.raises(Undelivered):
            await connection.receive()

    run(go())
