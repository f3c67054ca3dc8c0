"""A request whose head was seen before is not parsed again: nobody can tell by the answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bentotool
from bentotool.runtime import repeats
from bentotool.runtime.app import Application
from bentotool.runtime.courtesy import Courteous
from bentotool.runtime.repeats import Repeating

uvicorn = pytest.importorskip("uvicorn")
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol  # noqa: E402
from uvicorn.server import ServerState  # noqa: E402


class Late(bentotool.exceptions.ServiceError):
    code, http_status = "late", 408


class Numbers:
    @bentotool.api(batchable=True, max_batch_size=4)
    def double(self, x: np.ndarray) -> np.ndarray:
        return x * 2

    @bentotool.api(batchable=True)
    def fail(self, x: list[int]) -> list[int]:
        raise bentotool.exceptions.InvalidArgument(f"{x[0]} is refused")

    @bentotool.api(batchable=True)
    def late(self, x: list[int]) -> list[int]:
        raise Late("it takes too long")

    @bentotool.api
    def plain(self, x: int) -> int:
        return x + 1


def request(path: str = "/double", body: bytes = b'{"x":[[1.0]]}', *more: bytes, version: bytes = b"1.1") -> bytes:
    lines = [
        b"POST %s HTTP/%s" % (path.encode(), version), b"host: localhost", b"content-type: application/json",
        b"Content-Length: %d" % len(body), *more, b"", b"",
    ]  # fmt: skip
    return b"\r\n".join(lines) + body


class Wire(asyncio.Transport):
    """The other end of a connection, which remembers what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 3000), "peername": ("127.0.0.1", 5000)}.get(name, default)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...


_SERVICE = bentotool.service(Numbers)


async def answers(
    kind: type[HttpToolsProtocol],
    pieces: Sequence[bytes],
    *,
    pause: bool = True,
    drain_at: int | None = None,
    then: Callable[[Any, Wire], Awaitable[None]] | None = None,
) -> tuple[list[bytes], bool]:
    """What is answered to the pieces on one connection, without what differs from run to run, and whether it is
    closed then.

    Args:
        drain_at: the piece before which the server begins to send its callers away.
        then: what comes after the pieces.
    """
    app = Application(_SERVICE, loopback=True)
    await app.start()
    config = uvicorn.Config(app, http=kind, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    config.loaded_app = app
    state = ServerState()
    protocol = kind(config=config, server_state=state, app_state={}, _loop=asyncio.get_running_loop())
    wire = Wire()
    try:
        protocol.connection_made(wire)
        for number, piece in enumerate(pieces):
            if wire.closed:
                break
            if number == drain_at:
                state.default_headers = [*state.default_headers, (b"connection", b"close")]
            protocol.data_received(piece)
            if pause:
                await settled(protocol, wire)
        if then is not None:
            await then(protocol, wire)
        await settled(protocol, wire)
        closed = wire.closed
    finally:
        protocol.connection_lost(None)
        await app.stop()
    said = re.sub(rb"(x-request-id: |\"request_id\":\s*\")[^\r\"]+", rb"\1ID", wire.written)
    return re.split(rb"(?=HTTP/1.1 )", said)[1:], closed


async def settled(protocol: Any, wire: Wire) -> None:
    """Until what came whole has its answer."""
    for _ in range(2000):
        cycle = protocol.cycle
        if wire.closed or cycle is None or cycle.more_body or (cycle.response_complete and not protocol.pipeline):
            await asyncio.sleep(0)
            if wire.closed or cycle is protocol.cycle:
                return
        await asyncio.sleep(0.001)
    raise AssertionError(f"no answer: {wire.written!r}")


def both(pieces: Sequence[bytes], *, pause: bool = True) -> list[bytes]:
    """The answers, which are the same with and without a memory."""
    parsed = asyncio.run(answers(Courteous, pieces, pause=pause))
    remembered = asyncio.run(answers(Repeating, pieces, pause=pause))
    assert remembered == parsed
    return remembered[0]


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The lengths of the bodies of those that were not parsed."""
    seen: list[bytes] = []
    original = Repeating._repeat

    def note(self: Repeating, head: repeats.Head, length: bytes, body: bytes) -> None:
        seen.append(length)
        original(self, head, length, body)

    monkeypatch.setattr(Repeating, "_repeat", note)
    return seen


def test_a_head_is_parsed_once_whatever_the_length_of_the_body(repeated: list[bytes]) -> None:
    bodies = [b'{"x":[[%s]]}' % b",".join([b"1.5"] * count) for count in (1, 1, 3, 40, 1)]
    found = both([request(body=body) for body in bodies])
    assert [answer.partition(b"\r\n\r\n")[2].count(b"3.0") for answer in found] == [1, 1, 3, 40, 1]
    assert len(repeated) == 4


def test_errors_and_what_takes_several_batches_are_as_ever(repeated: list[bytes]) -> None:
    rows = b'{"x":[%s]}' % b",".join([b"[2.0]"] * 9)
    pieces = [
        request(), request(body=b"{"), request(body=rows), request(body=b'{"y":1}'), request(body=b"\xff"), request(),
        request("/fail", b'{"x":[1]}'), request("/fail", b'{"x":[2]}'),
    ]  # fmt: skip
    found = both(pieces)
    assert [answer[9:12] for answer in found] == [b"200", b"400", b"200", b"400", b"400", b"200", b"400", b"400"]
    assert len(repeated) == 6


@pytest.mark.parametrize(
    "second",
    [
        request() + request(),
        request()[:-3],
        request("/plain", b'{"x":1}'),
        request("/double", b'{"x":[[1.0]]}', b"x-request-id: mine"),
        request("/double", b'{"x":[[1.0]]}', b"connection: close"),
        request("/double", b'{"x":[[1.0]]}', b"content-length: 13"),
        request("/double", b'{"x":[[1.0]]}', b"content-length: 99"),
        request(version=b"1.0"),
        request().replace(b"Length: 13", b"Length: 12"),
        request().replace(b"Length: 13", b"Length: +13"),
        request().replace(b"Length: 13", b"Length: 1_3"),
        request().replace(b"Length: 13", b"Length: 000013"),
        request().replace(b"Length: 13", b"Length: 13 "),
        request().replace(b"Length: 13", b"Length:"),
        request().replace(b"Length: 13\r\n\r\n", b"Length: 13\r\nhost: localhost\r\n\r\n"),
        request().replace(b"host: localhost", b"host: elsewhere.example"),
        request().replace(b"Content-Length: 13", b"transfer-encoding: chunked"),
        b"\r\n" + request(),
        b"\r\n\r\n" + request(),
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_what_differs_is_parsed(second: bytes, repeated: list[bytes]) -> None:
    both([request(), second])
    assert repeated == []


def test_what_begins_like_the_last_one_is_parsed_when_it_comes_in_pieces(repeated: list[bytes]) -> None:
    whole = request()
    for at in (1, 20, whole.index(b"\r\n\r\n") + 2, len(whole) - 1):
        found = both([whole, whole[:at], whole[at:], whole])
        assert len(found) == 3
    assert len(repeated) == 4, "the last one of each"


def test_what_came_before_the_answer_to_the_last_one_waits_for_it(repeated: list[bytes]) -> None:
    assert len(both([request()] * 5, pause=False)) == 5
    assert repeated == []


def test_who_never_repeats_itself_is_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    learnt = []
    original = Repeating._learn
    monkeypatch.setattr(
        Repeating, "_learn", lambda self, exchange, data: learnt.append(1) or original(self, exchange, data)
    )
    pieces = [request("/double", b'{"x":[[1.0]]}', b"x-request-id: %d" % number) for number in range(40)]
    found, _ = asyncio.run(answers(Repeating, pieces))
    assert len(found) == 40
    assert len(learnt) == repeats._VAIN


@pytest.mark.parametrize("path", ["/double", "/fail", "/late", "/plain", "/nowhere"])
@pytest.mark.parametrize("drain_at", [0, 1, 2])
def test_an_answer_that_says_it_is_the_last_one_is(path: str, drain_at: int) -> None:
    """While the server sends its callers away, whatever way the request goes."""
    body = b'{"x":[[1.0]]}' if path == "/double" else b'{"x":[1]}'
    for kind in (Courteous, Repeating):
        found, closed = asyncio.run(answers(kind, [request(path, body)] * 4, drain_at=drain_at))
        assert closed
        assert len(found) == (1 if path == "/late" else drain_at + 1)
        assert [answer.lower().count(b"connection: close") for answer in found[:-1]] == [0] * (len(found) - 1)
        assert b"connection: close\r\n" in found[-1]


def test_an_error_may_close_its_connection() -> None:
    """As one with status 408 does, on both ways."""
    late = request("/late", b'{"x":[1]}')
    apart = [late[:-4], late[-4:]]
    for pieces in ([late], apart, [request(), late, request()], [request(), request(), *apart, request()]):
        for kind in (Courteous, Repeating):
            found, closed = asyncio.run(answers(kind, pieces))
            assert closed
            assert found[-1].startswith(b"HTTP/1.1 408 ")
            assert found[-1].count(b"connection: close\r\n") == 1


@pytest.mark.parametrize("body", [b"{", b'{"x":[[1.0]]}'])
@pytest.mark.parametrize("kind", [Courteous, Repeating])
def test_who_reads_no_answers_is_given_no_more(kind: type[Courteous], body: bytes) -> None:
    """Whether they are refusals or not: else they would pile up here."""
    held: list[int] = []

    async def while_paused(protocol: Any, wire: Wire) -> None:
        protocol.pause_writing()
        before = len(wire.written)
        for _ in range(20):
            protocol.data_received(request(body=body))
            for _ in range(5):
                await asyncio.sleep(0.001)
        held.append(len(wire.written) - before)
        protocol.resume_writing()

    found, closed = asyncio.run(answers(kind, [request()], then=while_paused))
    assert held == [0]
    assert (len(found), closed) == (21, False)


def test_an_application_that_ended_is_asked_no_more() -> None:
    async def run() -> bool:
        app = Application(_SERVICE, loopback=True)
        await app.start()
        direct = app.direct(
            {"path": "/double", "method": "POST"},
            {b"host": b"localhost", b"content-type": b"application/json", b"content-length": b"9"},
        )
        assert direct is not None
        assert direct.open
        await app.stop()
        return direct.open

    assert not asyncio.run(run())


class Long(Repeating):
    """The protocol that answers everything with a task."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._direct = None


CHUNKED = request(body=b"").replace(b"Content-Length: 0", b"transfer-encoding: chunked")
CHUNKS = b'5\r\n{"x":\r\n8\r\n[[1.25]]\r\n1\r\n}\r\n0\r\n'
numbers = st.integers(0, 40).map(lambda count: request(body=b'{"x":[[%s]]}' % b",".join([b"1.5"] * count)))
ordinary = st.one_of(
    numbers,
    numbers,
    st.integers(0, 9).map(lambda number: request("/fail", b'{"x":[%d]}' % number)),
    st.sampled_from(
        [
            request("/plain", b'{"x":1}'), request("/nowhere"), request(body=b"{"), request(body=b""), b"\r\n",
            CHUNKED + CHUNKS + b"\r\n", b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n",
            request("/late", b'{"x":[1]}'), request("http://elsewhere/double"), request("/%64ouble?x=1"),
            b"HEAD /livez HTTP/1.1\r\nhost: localhost\r\n\r\n", request().replace(b"POST", b"HEAD"),
            request(version=b"1.0"), request(version=b"2.0"), request("/double", b'{"x":[[2]]}', b"Connection: Close"),
            request().replace(b"localhost", b"evil"), request().replace(b"Content-Length", b"CONTENT-LENGTH"),
            request("/double", b'{"x":[[2]]}', b"cookie: a", b"cookie: b"), request(body=b" " * 70_000),
        ]
    ),
)  # fmt: skip
hostile = st.sampled_from(
    [
        request("/double", b"{}", b"content-length: 2"), request("/double", b"{}", b"transfer-encoding: chunked"),
        *(request(body=b"{}").replace(b": 2", b": " + length) for length in (b"+2", b"-2", b"0x2", b"2,2", b"", b"2;")),
        request(body=b"{}").replace(b": 2", b": 18446744073709551615"),
        request(body=b"{}").replace(b": 2", b": 18446744073709551616"),
        request(body=b"{}").replace(b": 2", b": 2\r\n 2"), request(body=b"{}").replace(b": 2\r\n", b": 2\n"),
        request(body=b"{}").replace(b"Length:", b"Length :"), request(body=b"{}").replace(b"\r\n\r\n", b"\n\n"),
        *(request("/double", b"{}", header) for header in (b"a: b\0c", b"a: b\rc: d", b"a\0: b", b" a: b", b": a")),
        request("/double", b"{}", b"a: " + b"b" * 70_000), request("double"), request("*"), request("http://evil"),
        CHUNKED + CHUNKS + b"content-length: 40\r\n\r\n", CHUNKED + CHUNKS + b"host: evil\r\n\r\n",
        CHUNKED + b"5;a=b\r\n{\"x\":\r\n", CHUNKED + b"zz\r\n", CHUNKED + b"-1\r\n\r\n",
        *(CHUNKED.replace(b"chunked", c) + b"0\r\n\r\n" for c in (b"chunked, gzip", b"gzip, chunked", b"xchunked")),
        request("/double", b'{"x":[[2]]}', b"connection: upgrade", b"upgrade: h2c"),
        request("/double", b'{"x":[[2]]}', b"connection: upgrade", b"upgrade: websocket"),
        request("/double", b'{"x":[[2]]}', b"expect: 100-continue"),
        b"CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0", b"x" * 70_000,
    ]
)  # fmt: skip


def cut(sent: list[tuple[bytes, list[int]]]) -> list[bytes]:
    """Requests in pieces."""
    pieces = []
    for whole, cuts in sent:
        ends = sorted({min(cut, len(whole)) for cut in cuts} | {len(whole)})
        pieces += [whole[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]
    return pieces


cuts = st.lists(st.integers(1, 200), max_size=2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ordinary | hostile, cuts), min_size=1, max_size=7), st.booleans())
def test_whatever_comes_in_whatever_pieces(sent: list[tuple[bytes, list[int]]], pause: bool) -> None:
    both(cut(sent), pause=pause)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(ordinary | hostile, cuts), min_size=1, max_size=7), st.booleans())
def test_the_long_way_leads_to_the_same(sent: list[tuple[bytes, list[int]]], pause: bool) -> None:
    long = asyncio.run(answers(Long, cut(sent), pause=pause))
    assert asyncio.run(answers(Repeating, cut(sent), pause=pause)) == long


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ordinary, cuts), min_size=1, max_size=7), st.booleans())
def test_so_does_the_protocol_of_others(sent: list[tuple[bytes, list[int]]], pause: bool) -> None:
    """For what nobody objects to."""
    theirs = asyncio.run(answers(HttpToolsProtocol, cut(sent), pause=pause))
    assert asyncio.run(answers(Repeating, cut(sent), pause=pause)) == theirs
