"""The called side of calls between services, and who may call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

import bentotool
from bentotool.runtime import answering, remote
from bentotool.runtime.answering import Answers
from bentotool.runtime.app import Application
from bentotool.runtime.channels import Lost, Undelivered, greeting
from bentotool.runtime.remote import RemotePeer
from bentotool.runtime.wire import CALL, HELLO, MAX_MESSAGE, frame, pack
from bentotool.sdk.exceptions import (
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    RemoteException,
    ServiceError,
    ServiceUnavailable,
    TooManyRequests,
)

LIMIT = 20.0
TOKEN = "t0ken"


class Weird(Exception):
    retry_after = "soon"

    def __init__(self) -> None:
        self.size = 10**30
        self.share = np.float64(0.5)


class Text:
    def __str__(self) -> str:
        raise SystemExit(1)


ERRORS = {
    "exit": SystemExit(3),
    "cancel": asyncio.CancelledError(),
    "surrogate": ServiceError("bad file \udcff", 422, hint="\udcff", details={"\udcff": Text(), "n": 10**30}),
    "later": ServiceError("a", 503, retry_after="soon"),  # type: ignore[arg-type]
    "weird": Weird(),
}


HELD: list[asyncio.Event] = []
LATE = threading.Event()


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
    async def broken(self, how: str) -> AsyncIterator[str]:
        yield "one"
        raise ERRORS[how]

    @bentotool.api(concurrency=1)
    async def one(self, waits: bool) -> None:
        if waits:
            HELD.append(asyncio.Event())
            await HELD[0].wait()

    @bentotool.api(batchable=True, max_latency_ms=100)
    def late(self, x: list[int]) -> list[int]:
        LATE.wait(LIMIT)
        return x

    @bentotool.api
    async def odd(self, how: str) -> None:
        raise ERRORS[how]

    @bentotool.api
    async def waits(self) -> AsyncIterator[str]:
        yield "one"
        try:
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            self.closed += 1
            raise

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


@pytest.mark.parametrize("how", ["exit", "cancel"])
def test_what_would_end_the_task_of_a_stream_is_an_error_of_it(how: str) -> None:
    async def go() -> None:
        async with answers() as (made, port):
            other = peer(port)
            stream = other.to_async.broken(how)
            assert await anext(stream) == "one"
            with pytest.raises((RuntimeError, RemoteException), match="it raised|was lost"):
                await anext(stream)
            assert await other.add(1) == 2
            assert made.app.in_flight == 0
            if how == "exit" or sys.version_info >= (3, 11):  # before that nobody knows who made a cancellation
                assert 'endpoint="/broken",http_response_code="500"' in (await told(made.app))

    run(go())


def test_the_limits_of_an_api_hold_for_other_services_too() -> None:
    async def go() -> None:
        async with answers() as (made, port):
            other = peer(port)
            first = asyncio.create_task(other.one(True))
            while not HELD:
                await asyncio.sleep(0.01)
            with pytest.raises(TooManyRequests) as refused:
                await other.one(False)
            assert refused.value.retry_after == 1.0
            HELD.pop().set()
            await first
            await other.one(False)
            with pytest.raises((DeadlineExceeded, ServiceUnavailable)):
                await other.to_async.late([1])
            LATE.set()
            assert made.app.in_flight == 0
            assert 'endpoint="/one",http_response_code="429"' in (await told(made.app))

    run(go())


def test_a_stream_whose_reader_leaves_is_cancelled() -> None:
    async def go() -> None:
        async with answers() as (made, port):
            other = peer(port)
            stream = other.to_async.waits()
            assert await anext(stream) == "one"
            await stream.aclose()
            while not await other.noticed():
                await asyncio.sleep(0.01)
            assert 'endpoint="/waits",http_response_code="499"' in (await told(made.app))

    run(go())


async def told(app: Application) -> str:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/metrics", "headers": [(b"host", b"localhost")]}
    await app({**scope, "query_string": b"", "raw_path": b"/metrics"}, _nothing, send)
    return b"".join(message.get("body", b"") for message in sent).decode()


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_an_error_travels_whatever_it_holds() -> None:
    async def go() -> None:
        async with answers() as (_, port):
            other = peer(port)
            with pytest.raises(ServiceError, match="bad file \ufffd") as surrogate:
                await other.odd("surrogate")
            assert surrogate.value.http_status == 422
            assert surrogate.value.details == {"\ufffd": "", "n": str(10**30)}
            with pytest.raises(ServiceError, match="a") as later:
                await other.odd("later")
            assert (later.value.http_status, later.value.retry_after) == (503, None)
            with pytest.raises(Weird) as weird:
                await other.odd("weird")
            assert (weird.value.size, weird.value.share) == (str(10**30), 0.5)

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
