"""Streams: their forms on the wire, how they end, what becomes of a generator whose reader has left."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

import bentotool
from bentotool.exceptions import InvalidArgument
from bentotool.runtime import streams
from bentotool.runtime.streams import frame_event
from bentotool.testing import TestClient

closed = {}
ENDING: dict[str, BaseException] = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt()}
if sys.version_info >= (3, 11):  # before that nobody knows who made a cancellation
    ENDING["cancel"] = asyncio.CancelledError()


def note(name):
    closed.setdefault(name, threading.Event()).set()


@bentotool.service(threads=2)
class Streams:
    @bentotool.api
    async def numbers(self, n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    @bentotool.api
    def events(self) -> Iterator[bentotool.ServerSentEvent]:
        yield bentotool.ServerSentEvent("a\nb", event="text", id="1", retry=10)
        yield bentotool.ServerSentEvent({"n": 1})

    @bentotool.api
    def raw(self) -> Iterator[bytes]:
        yield b"\x00a"
        yield b"b"

    @bentotool.api
    def told(self, ctx: bentotool.Context) -> Iterator[str]:
        ctx.response.status_code = 206
        ctx.response.headers["x-told"] = "1"
        yield "a"

    @bentotool.api
    async def breaks(self, early: bool, known: bool) -> AsyncIterator[dict]:
        if not early:
            yield {"n": 0}
        raise InvalidArgument("not that") if known else RuntimeError("secret")

    @bentotool.api
    async def breaks_oddly(self) -> AsyncIterator[str]:
        yield "one"
        raise InvalidArgument("bad file \udcff")

    @bentotool.api
    async def written(self, pieces: list[str], fails: bool = False) -> AsyncIterator[str]:
        for piece in pieces:
            yield piece
        if fails:
            raise InvalidArgument("not that")

    @bentotool.api
    async def declared(self, items: list) -> AsyncIterator[int]:
        for item in items:
            yield item

    @bentotool.api
    async def waits(self) -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.sleep(60)
            yield "never"
        finally:
            note("async")

    @bentotool.api
    def blocks(self) -> Iterator[str]:
        try:
            for _ in range(10_000):
                yield "item"
        finally:
            note("sync")

    @bentotool.api
    async def ends_others(self, how: str) -> AsyncIterator[str]:
        yield "one"
        raise ENDING[how]

    @bentotool.api
    def ends_others_in_a_thread(self, how: str) -> Iterator[str]:
        yield "one"
        raise ENDING[how]

    @bentotool.api
    def abandoned(self) -> Iterator[bytes]:
        yield b"one"
        raise RuntimeError("secret")


@pytest.fixture(scope="module")
def client():
    with TestClient(Streams) as found:
        yield found


EVENTS = {"accept": "text/event-stream"}


def test_a_silent_stream_of_events_sends_comments(client, monkeypatch):
    monkeypatch.setattr(streams, "_SILENCE_S", 0.01)
    with client.stream("POST", "/waits", headers=EVENTS) as answer:
        pieces = answer.iter_bytes()
        assert [next(pieces) for _ in range(3)] == [b"data: first\n\n", b":\n\n", b":\n\n"]
    with client.stream("POST", "/waits") as answer:
        assert next(answer.iter_bytes()) == b"first", "nothing but events has room for comments"


def test_lines_and_events(client):
    lines = client.post("/numbers", json={"n": 3})
    assert (lines.headers["content-type"], lines.text) == ("application/jsonl", "0\n1\n2\n")
    events = client.post("/numbers", json={"n": 2}, headers=EVENTS)
    assert (events.headers["content-type"], events.text) == ("text/event-stream", "data: 0\n\ndata: 1\n\n")
    assert client.post("/numbers", json={"n": 0}).content == b""


def test_pieces_stand_alone(client):
    with client.stream("POST", "/raw") as answer:
        assert list(answer.iter_bytes()) == [b"\x00a", b"b"]


def test_an_event_has_all_fields(client):
    assert client.post("/events", headers=EVENTS).text == (
        'event: text\nid: 1\nretry: 10\ndata: a\ndata: b\n\ndata: {"n":1}\n\n'
    )


def test_events_are_events_without_being_asked_for(client):
    assert client.post("/events").headers["content-type"] == "text/event-stream"


@pytest.mark.parametrize(
    "pieces",
    [
        ['data: {"n": 1}\n\n', "data: [DONE]\n\n"],
        ["event: message\n", "data: a\n", "\n"],
        [": hello\n\n", "id: 1\ndata: a\n\n"],
    ],
)
def test_events_that_the_service_writes_itself(client, pieces):
    answer = client.post("/written", json={"pieces": pieces})
    assert (answer.headers["content-type"], answer.text) == ("text/event-stream", "".join(pieces))


@pytest.mark.parametrize(
    "pieces", [["a", "data: b\n\n"], ["data:image/png;base64,", "AA=="], [":", "\n"], [":\n"], [""]]
)
def test_texts_that_are_no_events(client, pieces):
    answer = client.post("/written", json={"pieces": pieces})
    assert (answer.headers["content-type"], answer.text) == ("text/plain; charset=utf-8", "".join(pieces))


def test_an_error_within_an_event_that_the_service_writes_is_an_event_of_its_own(client):
    answer = client.post("/written", json={"pieces": ["data: a\n"], "fails": True})
    assert answer.text.startswith('data: a\n\n\nevent: error\ndata: {"error":')


@pytest.mark.parametrize("text", ["a\rb", "a\r\nevent: x\r\rdata: y", "a\n\nb", ""])
def test_a_text_cannot_add_fields(text):
    lines = frame_event(text).decode()
    assert lines.endswith("\n\n")
    assert all(line.startswith("data: ") for line in lines.removesuffix("\n\n").split("\n"))
    assert "\r" not in lines


def test_a_line_break_in_the_name_of_an_event_is_an_error():
    with pytest.raises(ValueError, match="line break"):
        frame_event(bentotool.ServerSentEvent("x", event="a\ndata: b"))


def test_status_and_headers_of_the_context(client):
    answer = client.post("/told")
    assert (answer.status_code, answer.headers["x-told"], answer.text.strip('"\n')) == (206, "1", "a")


@pytest.mark.parametrize(("known", "status", "code"), [(True, 400, "invalid_input"), (False, 500, "internal")])
def test_a_stream_that_breaks(client, known, status, code):
    early = client.post("/breaks", json={"early": True, "known": known})
    assert (early.status_code, early.json()["error"]["code"]) == (status, code)
    lines = client.post("/breaks", json={"early": False, "known": known}).text.splitlines()
    assert json.loads(lines[-1])["error"]["code"] == code
    *_, last = client.post("/breaks", json={"early": False, "known": known}, headers=EVENTS).text.split("\n\n")[:-1]
    name, data = last.split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["code"] == code
    assert "secret" not in last


def test_a_stream_without_room_for_an_error_is_cut(client):
    with client.stream("POST", "/abandoned") as answer:
        pieces = answer.iter_bytes()
        assert next(pieces) == b"one"
        with pytest.raises(ConnectionError):
            next(pieces)


@pytest.mark.parametrize("path", ["/ends_others", "/ends_others_in_a_thread"])
@pytest.mark.parametrize("how", ENDING)
def test_what_would_end_a_task_or_the_server_is_an_error_of_its_stream(client, path, how):
    with client.stream("POST", path, json={"how": how}) as answer:
        pieces = answer.iter_bytes()
        assert next(pieces) == b"one"
        with pytest.raises(ConnectionError):
            next(pieces)
    assert client.app.in_flight == 0
    events = client.post(path, json={"how": how}, headers=EVENTS).text
    assert events.startswith("data: one\n\nevent: error\ndata: ")


def test_an_error_that_has_no_form_in_json_ends_a_stream_as_any_does(client):
    *_, last = client.post("/breaks_oddly", json={}, headers=EVENTS).text.split("\n\n")[:-1]
    assert json.loads(last.removeprefix("event: error\ndata: "))["error"]["message"] == "bad file \ufffd"


@pytest.mark.parametrize(("path", "name"), [("/waits", "async"), ("/blocks", "sync")])
def test_a_generator_ends_when_its_reader_leaves(client, path, name):
    closed[name] = threading.Event()
    with client.stream("POST", path) as answer:
        assert next(answer.iter_bytes())
    assert closed[name].wait(10), "its finally clause has run"
    assert client.app.in_flight == 0
