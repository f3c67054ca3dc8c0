"""What a service that means harm, or is broken, can do to a client: an error of ours, and nothing else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentotool.client.errors import call_error
from bentotool.client.http import SyncHTTPClient
from bentotool.client.results import Folder, decode_value
from bentotool.client.routes import Route, read_routes
from bentotool.client.streams import make_splitter
from bentotool.client.tasks import read_id, read_status
from bentotool.errors import BentotoolError, RemoteError

httpx = pytest.importorskip("httpx")
TENSORS = "application/vnd.bentotool.tensors"
FILE = Route("made", "made", "/made", output={"type": "file"}, native=True)


@pytest.mark.parametrize(
    "name",
    [
        "../../x",
        "/etc/passwd",
        "..\\..\\x",
        "C:\\x",
        "..",
        ".",
        "",
        "a/../../b",
        "\u202e",
        "x" * 500,
        "con\0.txt",
        ".bashrc",
    ],
)
def test_a_file_is_put_nowhere_else(tmp_path: Path, name: str) -> None:
    folder = Folder(tmp_path / "media")
    headers = {"content-disposition": f'attachment; filename="{name}"', "content-type": "text/plain"}
    for _ in range(2):
        made = decode_value(FILE, b"x", headers, folder)
        assert made.parent == tmp_path / "media"
        assert made.read_bytes() == b"x"
        assert not made.name.startswith(".")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["media"]
    assert len(list((tmp_path / "media").iterdir())) == 2


def tensors(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff" * 8,
        struct.pack("<Q", 1 << 60) + b"{}",
        tensors(b"[]"),
        tensors({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, b"1234"),
        tensors({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 40]}}, b"1234"),
        tensors({"a": {"dtype": "O", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        tensors({"a[9999999]": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        tensors({"a" + "[0]" * 500: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
        tensors({"__class__": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"123"),
    ],
)
def test_damaged_tensors_are_an_error(body: bytes) -> None:
    route = Route("r", "r", "/r", output={"type": "object"}, native=True)
    with pytest.raises(RemoteError, match="the answer is no tensors"):
        decode_value(route, body, {"content-type": TENSORS}, Folder(None))


TYPES = st.sampled_from(
    [TENSORS, "application/json", "text/plain; charset=x", "image/png", "", "text/event-stream", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SCHEMAS = st.sampled_from(
    [
        {"type": "tensor"},
        {"type": "tensor", "dtype": "float32", "format": "numpy-array"},
        {"type": "string"},
        {"type": "object", "properties": {"a": {"type": "tensor"}}},
        {"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "tensor"}}]},
        {},
    ]
)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()), TYPES, SCHEMAS, st.booleans())
def test_any_answer_is_a_value_or_an_error(content: bytes, media: str, schema: dict[str, Any], native: bool) -> None:
    route = Route("r", "r", "/r", output=schema, native=native)
    try:
        decode_value(route, content, {"content-type": media}, Folder(None))
    except BentotoolError:
        return


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=6), TYPES | st.just("application/jsonl"), SCHEMAS, st.booleans())
def test_any_stream_gives_items_or_an_error(
    pieces: list[bytes], media: str, schema: dict[str, Any], native: bool
) -> None:
    route = Route("r", "r", "/r", output={**schema, "is_stream": True}, native=native)
    try:
        splitter = make_splitter(route, media)
        for piece in pieces:
            list(splitter.feed(piece))
        list(splitter.end())
    except BentotoolError:
        return


@settings(max_examples=150, deadline=None)
@given(JSON, st.integers(400, 599))
def test_any_error_body_is_an_error(body: Any, status: int) -> None:
    error = call_error("api", status, body)
    assert (error.status, "\n" in error.message) == (status, False)
    assert len(error.message) < 3000
    for read in (read_status, read_id):
        try:
            read(body)
        except RemoteError:
            continue


def test_a_borderless_item_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentotool.client.streams._LONGEST_ITEM", 1000)
    for media in ("application/jsonl", "text/event-stream"):
        splitter = make_splitter(Route("r", "r", "/r", output={"is_stream": True}, native=True), media)
        list(splitter.feed(b"x" * 900))
        with pytest.raises(RemoteError, match="more than 1000 bytes"):
            list(splitter.feed(b"x" * 200))


def test_a_token_goes_to_no_other_host() -> None:
    """Neither by a route of the schema, nor by a redirect."""
    asked = []
    document = {
        "name": "S",
        "routes": [
            {"name": f"r{number}", "route": route, "method": "GET", "input": {"type": "object"}, "output": {}}
            for number, route in enumerate(
                ["//evil.example/x", "http://evil.example/", "/\\evil.example", "/@evil.example", "/moved"]
            )
        ],
    }

    def answer(request: Any) -> Any:
        asked.append(request.url.host)
        if request.url.path == "/schema.json":
            return httpx.Response(200, json=document)
        return httpx.Response(307, headers={"location": "http://evil.example/"}, json=1)

    with SyncHTTPClient("http://good.example", token="secret", server_ready_timeout=0) as client:
        client._client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://good.example")
        known = list(client._schema().by_name)
        for name in known:
            try:
                client.call(name)
            except BentotoolError:
                continue
        client._client.close()
    assert set(asked) == {"good.example"}
    assert "r0" not in known
    assert "r1" not in known


def test_names_of_the_schema_cannot_be_pythons_own() -> None:
    routes = [
        {"name": name, "route": "/x", "method": "POST"} for name in ("__class__", "_client", "close", "class", "a b")
    ]
    found = read_routes({"name": "S", "routes": routes}, lambda name: hasattr(SyncHTTPClient, name))
    assert "close" not in found.by_attribute
    with SyncHTTPClient("http://localhost", server_ready_timeout=0) as client:
        client._routes = found
        assert client.__class__ is SyncHTTPClient
        assert isinstance(client._client, httpx.Client)
        assert callable(client.close)
