"""What one connection may ask for and how long it is kept, by a clock that the tests turn."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from bentotool.runtime.repeats import Repeating

uvicorn = pytest.importorskip("uvicorn")
from uvicorn.server import ServerState  # noqa: E402

HEAD = b"POST /a HTTP/1.1\r\nhost: localhost\r\n"
GET = b"GET /get HTTP/1.1\r\nhost: localhost\r\n\r\n"
WHOLE = HEAD + b"content-length: 3\r\n\r\nabc"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
H2C = (
    HEAD + b"connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nhttp2-settings: AA\r\ncontent-length: 3\r\n\r\nabc"
)
KEPT_S, HEAD_S = 75, 20


class Loop(asyncio.SelectorEventLoop):
    """A loop on which time passes when it is told to."""

    passed = 0.0

    def time(self) -> float:
        return super().time() + self.passed

    async def turns(self, count: int = 50) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def skip(self, seconds: float) -> None:
        self.passed += seconds
        await self.turns()


class Wire(asyncio.Transport):
    """The other end: what was written, whether it is closed, whether it may send, what it has not read."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed, self.reading, self.unread, self.aborted = b"", False, True, 0, False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 3000), "peername": ("127.0.0.1", 5000)}.get(name, default)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...

    @property
    def statuses(self) -> list[int]:
        return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d+)", self.written)]


class App:
    """Answers with what it was sent. ``/early`` is answered before its body, ``/wait`` when `go` is set, and of
    ``/stream`` one piece before it.
    """

    def __init__(self) -> None:
        self.go, self.seen, self.left = asyncio.Event(), [], []  # type: ignore[var-annotated]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path, body, more = scope["path"], b"", scope["path"] not in ("/early", "/get")
        start = {"type": "http.response.start", "status": 413 if path == "/early" else 200}
        if path == "/stream":
            await send({**start, "headers": []})
            await send({"type": "http.response.body", "body": b"piece", "more_body": True})
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(path)
                return
            body, more = body + message["body"], message["more_body"]
        self.seen.append((path, body, dict(scope["headers"])))
        if path in ("/wait", "/stream"):
            await self.go.wait()
        if path == "/endless":
            await receive()
            self.left.append(path)
            return
        if path != "/stream":
            await send({**start, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})


Talk = Callable[[Any, Wire, App, Loop], Awaitable[None]]


def connected(talk: Talk, *, ws: Any = "none") -> None:
    """Talk on one connection."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Loop)
        app, wire = App(), Wire()
        config = uvicorn.Config(
            app, http=Repeating, ws=ws, lifespan="off", log_config=None, access_log=False, timeout_keep_alive=KEPT_S
        )
        config.load()
        protocol = Repeating(config=config, server_state=ServerState(), app_state={}, _loop=loop)
        protocol.connection_made(wire)
        try:
            await talk(protocol, wire, app, loop)
        finally:
            app.go.set()
            protocol.connection_lost(None)
            await loop.turns()

    loop = Loop()
    try:
        loop.run_until_complete(run())
    finally:
        loop.close()


async def say(protocol: Any, wire: Wire, loop: Loop, *pieces: bytes) -> None:
    for piece in pieces:
        if not wire.closed:
            protocol.data_received(piece)
            await loop.turns()


def test_a_kept_connection_is_closed_when_it_is_silent() -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        for _ in range(3):
            await say(protocol, wire, loop, WHOLE)
            await loop.skip(KEPT_S - 1)
            assert not wire.closed
        await loop.skip(2)
        assert wire.closed
        assert wire.statuses == [200] * 3

    connected(talk)


@pytest.mark.parametrize("noise", [b"\r\n", b"\r", b"\n", b"\r\n\r\n\r\n"])
def test_what_is_no_request_does_not_keep_a_connection(noise: bytes) -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, WHOLE, noise)
        for _ in range(7):
            await loop.skip(10)
            await say(protocol, wire, loop, noise)
        assert not wire.closed
        await say(protocol, wire, loop, WHOLE)
        assert wire.statuses == [200, 200], "it is of use until then"
        for _ in range(8):
            await loop.skip(10)
            await say(protocol, wire, loop, noise)
        assert wire.closed
        assert wire.statuses == [200, 200]

    connected(talk)


def test_blank_lines_are_no_request_on_a_new_connection_either() -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        for _ in range(HEAD_S // 4 + 1):
            await say(protocol, wire, loop, b"\r\n")
            await loop.skip(4)
        assert wire.closed

    connected(talk)


@pytest.mark.parametrize("before", [b"", WHOLE, GET])
def test_a_head_that_trickles_in_has_its_time(before: bytes) -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, *[before] * bool(before))
        for at in range(len(HEAD)):
            await say(protocol, wire, loop, HEAD[at : at + 1])
            await loop.skip(3)
            if wire.closed:
                break
        assert wire.closed
        assert wire.statuses == [200] * bool(before) + [408]

    connected(talk)


def test_who_sends_half_a_request_with_each_whole_one_is_not_slow() -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        rest = GET[20:] + GET[:20]
        await say(protocol, wire, loop, GET[:20])
        for _ in range(3 * HEAD_S):
            await say(protocol, wire, loop, rest)
            await loop.skip(1)
        assert not wire.closed
        assert wire.statuses == [200] * 3 * HEAD_S
        await loop.skip(HEAD_S)
        assert wire.closed, "now it is"

    connected(talk)


@pytest.mark.parametrize("rest", [[b"abc"], [b"a", b"bc"], [b"abc", b"\r\n"], [b"a"]])
def test_who_was_answered_early_is_not_kept_for_ever(rest: Sequence[bytes]) -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, WHOLE[:-3].replace(b"/a", b"/early"), *rest)
        assert wire.statuses == [413]
        for _ in range(8):
            await loop.skip(10)
        assert wire.closed

    connected(talk)


def test_the_version_before_keeps_no_connection() -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        old = GET.replace(b"1.1", b"1.0").replace(b"\r\n\r\n", b"\r\nconnection: keep-alive\r\n\r\n")
        await say(protocol, wire, loop, old + GET)
        assert wire.statuses == [200]
        assert wire.closed

    connected(talk)


@pytest.mark.parametrize(
    "garbage", [b"garbage\r\n\r\n", b"\x16\x03\x01", b"GET  / HTTP/1.1\r\n", HEAD + b"a: b\r\n c\r\n"]
)
@pytest.mark.parametrize("together", [True, False])
def test_garbage_is_refused_after_the_answers_before_it(garbage: bytes, together: bool) -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        pieces = [WHOLE.replace(b"/a", b"/wait"), WHOLE, garbage]
        await say(protocol, wire, loop, *([b"".join(pieces)] if together else pieces))
        await say(protocol, wire, loop, WHOLE, *[b"x" * 60_000] * 5)
        assert wire.statuses == []
        app.go.set()
        await loop.turns()
        assert wire.statuses == [200, 200, 400]
        assert wire.closed
        assert wire.written.count(b"connection: close") == 1

    connected(talk)


def test_half_a_head_does_not_cost_the_answer_before_it() -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, GET.replace(b"/get", b"/wait"), GET[:9])
        await loop.skip(HEAD_S + 1)
        assert not wire.closed
        await say(protocol, wire, loop, GET[9:])
        app.go.set()
        await loop.turns()
        assert wire.statuses == [200, 408]
        assert wire.closed

    connected(talk)


def test_a_malformed_body_is_refused_in_its_turn() -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, GET.replace(b"/get", b"/wait"), CHUNKED + b"zz\r\n", *[GET * 1000] * 5)
        assert wire.statuses == []
        app.go.set()
        await loop.turns()
        assert wire.statuses == [200, 400]
        assert wire.closed
        assert [path for path, *_ in app.seen] == ["/wait"]

    connected(talk)


@pytest.mark.parametrize(("path", "statuses"), [(b"/a", [400]), (b"/early", [413]), (b"/stream", [200])])
def test_a_malformed_body_has_one_answer_at_most(path: bytes, statuses: list[int]) -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, CHUNKED.replace(b"/a", path) + b"1\r\na\r\n", b"zz\r\n", GET)
        assert wire.statuses == statuses
        assert wire.closed
        protocol.connection_lost(None)
        protocol.parser = None
        await loop.turns()
        assert app.seen == [] or path == b"/early"

    connected(talk)


@pytest.mark.parametrize("head", [GET[:-2] + b"x: " + b"a" * 100_000 + b"\r\n\r\n", b"GET /" + b"a" * 100_000])
@pytest.mark.parametrize("size", [1 << 20, 1000])
def test_a_head_has_an_end_however_it_comes(head: bytes, size: int) -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, *(head[at : at + size] for at in range(0, len(head), size)))
        assert wire.statuses == [431]
        assert wire.closed
        assert app.seen == []

    connected(talk)


@pytest.mark.parametrize("at", [None, *range(1, len(H2C), 7)])
def test_an_offer_of_another_protocol_hides_no_body(at: int | None) -> None:
    """Whatever the pieces: a body that is not seen as one would be the next request."""

    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        pieces = [H2C[:at], H2C[at:], H2C, H2C[:at], H2C[at:] + WHOLE] if at else [H2C * 3 + WHOLE]
        await say(protocol, wire, loop, *pieces)
        assert len(app.seen) == 4
        assert {(path, body) for path, body, _ in app.seen} == {("/a", b"abc")}
        assert wire.statuses == [200] * 4
        assert not wire.closed

    connected(talk)


@pytest.mark.parametrize(
    "offer",
    [
        b"connection: upgrade\r\nconnection: keep-alive\r\nupgrade: h2c",
        b"connection: upgrade\r\nupgrade: websocket",  # nobody here speaks it
        b"connection: upgrade\r\nupgrade: websocket, h2c\r\nupgrade: TLS/1.0",
        b"connection: upgrade, close\r\nupgrade: h2c",
    ],
)
def test_offers_in_other_words_hide_no_body_either(offer: bytes) -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        smuggled = b"GET /get HTTP/1.1\r\n\r\n"
        head = HEAD + offer + b"\r\ncontent-length: %d\r\n\r\n" % len(smuggled)
        await say(protocol, wire, loop, head, smuggled)
        assert [(path, body) for path, body, _ in app.seen] == [("/a", smuggled)]
        assert wire.statuses == [200]
        assert wire.closed == (b"close" in offer)

    connected(talk)


@pytest.mark.parametrize("before", [b"", GET])
def test_a_tunnel_is_refused(before: bytes) -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, before + b"CONNECT localhost:22 HTTP/1.1\r\nhost: localhost\r\n\r\n" + GET)
        assert wire.statuses == [200] * bool(before) + [400]
        assert wire.closed

    connected(talk)


class Socket(asyncio.Protocol):
    """What takes over a connection that becomes a websocket."""

    made = 0

    def __init__(self, *_args: Any, **_named: Any) -> None: ...

    def connection_made(self, _transport: Any) -> None:
        Socket.made += 1


@pytest.mark.parametrize("pending", [True, False])
def test_a_websocket_begins_after_all_answers(pending: bool) -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        made = Socket.made
        offer = b"GET /s HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\r\n"
        await say(protocol, wire, loop, GET.replace(b"/get", b"/wait") if pending else GET, offer)
        assert Socket.made == made + (not pending)
        app.go.set()
        await loop.turns()
        assert wire.statuses == [200] + [400] * pending
        await loop.skip(10 * KEPT_S)
        assert wire.closed == pending, "the time between requests is no matter of a websocket"

    connected(talk, ws=Socket)


def test_what_follows_a_body_is_not_of_the_head() -> None:
    """Whoever checks and sets headers before us looks at the head only."""

    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        whole = CHUNKED + b"3\r\nabc\r\n0\r\nhost: evil\r\nx-user: admin\r\n\r\n"
        await say(protocol, wire, loop, whole, whole[:-5], whole[-5:], GET.replace(b"/get", b"/wait"), whole)
        app.go.set()
        await loop.turns()
        found = [headers for path, _, headers in app.seen if path == "/a"]
        assert found == [{b"host": b"localhost", b"transfer-encoding": b"chunked"}] * 3
        assert wire.statuses == [200] * 4

    connected(talk)


def test_who_leaves_is_noticed_though_requests_wait() -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, GET.replace(b"/get", b"/endless"), GET, GET)
        assert app.left == []
        protocol.connection_lost(None)
        await loop.turns()
        assert app.left == ["/endless"]
        assert wire.statuses == []

    connected(talk)


def test_requests_that_wait_for_their_turn_are_not_piled_up() -> None:
    async def talk(protocol: Any, wire: Wire, app: App, loop: Loop) -> None:
        piece, sent = WHOLE * 100, 0
        await say(protocol, wire, loop, WHOLE.replace(b"/a", b"/wait"))
        app.go.set()
        most = 0
        while sent < 2000 and not wire.closed:
            if wire.reading:
                protocol.data_received(piece)
                sent += 100
            await asyncio.sleep(0)
            most = max(most, len(protocol.pipeline))
        await loop.turns(10_000)
        assert wire.statuses == [200] * 2001
        assert most < 200
        assert wire.reading

    connected(talk)


@pytest.mark.parametrize("path", [b"/early", b"/get"])
def test_an_answer_in_place_of_a_permission_to_send_closes(path: bytes) -> None:
    """Nobody knows whether the body comes now: what follows must not be taken for it, nor it for a request."""

    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, WHOLE[:-5].replace(b"/a", path) + b"Expect: 100-continue\r\n\r\n")
        assert wire.statuses in ([413], [200])
        assert b"connection: close" in wire.written
        assert wire.closed

    connected(talk)


def test_who_asks_for_a_permission_to_send_is_kept_else() -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        head = WHOLE[:-5] + b"Expect: 100-continue\r\n\r\n"
        await say(protocol, wire, loop, head, b"abc", head + b"abc", WHOLE)
        assert wire.statuses == [100, 200, 100, 200, 200]
        assert b"connection: close" not in wire.written
        assert not wire.closed

    connected(talk)


@pytest.mark.parametrize("reads", [True, False])
def test_who_does_not_read_is_let_go(reads: bool) -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        await say(protocol, wire, loop, GET)
        wire.unread = 1_000_000
        protocol.pause_writing()
        for _ in range(12):
            await loop.skip(100)
            wire.unread -= 1000 * reads
        assert wire.aborted != reads

    connected(talk)


def test_a_connection_whose_last_answer_is_not_read_is_let_go() -> None:
    async def talk(protocol: Any, wire: Wire, _app: App, loop: Loop) -> None:
        wire.unread = 1000
        await say(protocol, wire, loop, GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        assert (wire.closed, wire.aborted) == (True, False)
        await loop.skip(protocol.unread_seconds + 1)
        assert wire.aborted

    connected(talk)
