"""The binary form of calls between services: what goes in comes out, and nothing hostile gets in."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import struct
import tracemalloc
import uuid

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bentotool.runtime.typedcalls import TypedCall, restore
from bentotool.runtime.wire import (
    CALL,
    HELLO,
    MAX_MESSAGE,
    RESULT,
    Frame,
    FrameReader,
    WireError,
    frame,
    pack,
    unpack,
)
from bentotool.sdk.exceptions import InvalidArgument, InvalidOutput
from bentotool.sdk.service import service

HEAD = struct.Struct("!B3xIQ")
FOREIGN = 1


def written(pieces):
    return b"".join(bytes(piece) for piece in pieces)


def read(data, limit=MAX_MESSAGE, step=None):
    """The frames of what a socket gives, `step` bytes at a time at most."""
    data, reader, found, position = memoryview(data), FrameReader(limit), [], 0
    while position < len(data):
        room = reader.buffer()
        count = min(len(room), len(data) - position, step or len(data))
        room[:count] = data[position : position + count]
        found += reader.received(count)
        position += count
    return found


def round_trip(value, step=None):
    [received] = read(written(pack(RESULT, value)), step=step)
    return unpack(received)[1]


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
dtypes = st.sampled_from(["?", "u1", "i2", "<i4", ">i8", "f2", "<f4", "f8", "c8", "c16", "S3", "U2", "M8[ms]", "m8[s]"])


@st.composite
def arrays(draw):
    dtype = np.dtype(draw(dtypes))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    size = int(np.prod(shape, dtype=int)) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    return np.frombuffer(bytearray(b"\0" * size if dtype.kind == "U" else data), dtype).reshape(shape)


@settings(deadline=None, max_examples=200)
@given(value=plain, step=st.sampled_from([None, 1, 7, 4096]))
@example(value={"x": [1.0, None, b"\0", "é"]}, step=1)
def test_plain_values_come_out_as_they_went_in(value, step):
    assert round_trip(value, step) == value


@settings(deadline=None, max_examples=200)
@given(values=st.lists(arrays(), max_size=3), step=st.sampled_from([None, 5, 4096]))
def test_arrays_keep_type_shape_and_bytes(values, step):
    found = round_trip({"a": values}, step)["a"]
    for ours, theirs in zip(values, found, strict=True):
        assert (ours.dtype, ours.shape, ours.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
        assert theirs.flags.writeable


def test_an_array_that_does_not_lie_in_order_comes_in_order():
    value = np.arange(24).reshape(4, 6)[::2, ::-1]
    assert np.array_equal(round_trip(value), value)


def test_large_arrays_are_read_in_place():
    value = np.ones(1_000_000, np.float64)
    data = written(pack(RESULT, value))
    tracemalloc.start()
    [received] = read(data)
    found = unpack(received)[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.array_equal(found, value)
    assert peak < 1.2 * value.nbytes


def test_other_values():
    assert round_trip(pathlib.Path("a/b")) == pathlib.Path("a/b")
    assert round_trip(np.float32(2.5)) == 2.5
    assert round_trip((1, 2)) == [1, 2]  # a tuple by the receiver's annotation
    assert sorted(round_trip({3, 1})) == [1, 3]
    moment, name, money = (
        datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        uuid.uuid4(),
        decimal.Decimal("1.50"),
    )
    found = round_trip([moment, name, money])
    assert restore(tuple[datetime.datetime, uuid.UUID, decimal.Decimal], found) == (moment, name, money)


def test_images(require_package):
    require_package("PIL")
    from PIL import Image

    for mode in ("1", "L", "RGB", "RGBA", "CMYK", "F"):
        value = Image.linear_gradient("L").resize((13, 7)).convert(mode)
        found = round_trip(value)
        assert (found.mode, found.size, found.tobytes()) == (value.mode, value.size, value.tobytes())


def test_frames(require_package):
    require_package("pandas")
    import pandas as pd

    value = pd.DataFrame({"a": [1, 2], "b": ["x", None], "c": pd.to_datetime(["2026-01-01", None])}, index=[5, 9])
    pd.testing.assert_frame_equal(round_trip(value), value)
    series = pd.Series([1.5, 2.5], name="s")
    pd.testing.assert_series_equal(round_trip(series), series)


def test_tensors(require_package):
    require_package("torch")
    import torch

    for kind in (torch.bfloat16, torch.float32, torch.bool, torch.int64):
        value = torch.ones(2, 3).to(kind)
        found = round_trip(value)
        assert found.dtype == kind
        assert torch.equal(found, value)


@pytest.mark.parametrize("value", [object(), np.array([object()]), lambda: 1, type, np.zeros(1, "V3"), 2**70])
def test_what_cannot_be_sent_is_said(value):
    with pytest.raises(WireError):
        pack(RESULT, {"x": value})


# hostile messages


def message(kind, head, body=b"", head_size=None, body_size=None):
    return (
        HEAD.pack(kind, len(head) if head_size is None else head_size, len(body) if body_size is None else body_size)
        + head
        + body
    )


def hostile(fields, body=b"", sizes=()):
    value = msgspec.msgpack.encode(msgspec.msgpack.Ext(FOREIGN, msgspec.msgpack.encode(fields)))
    head = msgspec.msgpack.encode({"sizes": list(sizes), "value": msgspec.Raw(value)})
    return Frame(RESULT, bytearray(message(RESULT, head, body)), len(head))


@pytest.mark.parametrize(
    "data",
    [
        HEAD.pack(99, 0, 0),
        HEAD.pack(0, 0, 0),
        HEAD.pack(CALL, 0xFFFFFFFF, 0),
        HEAD.pack(CALL, 0, 2**63),
        HEAD.pack(RESULT, 4, MAX_MESSAGE),
    ],
)
def test_lengths_are_not_believed(data):
    tracemalloc.start()
    with pytest.raises(WireError):
        read(data)
    assert tracemalloc.get_traced_memory()[1] < 200_000
    tracemalloc.stop()


def test_who_has_not_shown_the_token_gets_no_room():
    with pytest.raises(WireError):
        read(HEAD.pack(HELLO, 5000, 0), limit=4096)


@pytest.mark.parametrize(
    ("fields", "body", "sizes"),
    [
        (["array", "<f4", [2], 0], b"1234", [4]),  # more than there is
        (["array", "<f4", [2**40, 2**40], 0], b"1234", [4]),
        (["array", "<f4", [-1], 0], b"1234", [4]),
        (["array", "<f4", [True], 0], b"1234", [4]),
        (["array", "<f4", "1", 0], b"1234", [4]),
        (["array", "O", [1], 0], b"12345678", [8]),
        (["array", "<f4,<f4", [1], 0], b"12345678", [8]),
        (["array", "V8", [1], 0], b"12345678", [8]),
        (["array", "S999999", [0], 0], b"", [0]),
        (["array", "<f4", [1], 7], b"1234", [4]),
        (["array", "<f4", [1], -1], b"1234", [4]),
        (["array", "<f4", [1] * 40, 0], b"1234", [4]),
        (["array", "<f4", [1], 0], b"1234", [2**62]),
        (["array", "<f4", [1], 0], b"1234", [-4]),
        (["array", "<f4", [1], 0], b"12345678", [4]),  # bytes that nobody names
        (["tensor", "object", [1], 0], b"1234", [4]),
        (["image", "RGB", [100000, 100000], 0], b"123", [3]),
        (["image", "XYZ", [1, 1], 0], b"123", [3]),
        (["frame", [["a"], [["os.system", [1]]], [0, 1, 1]]], b"", []),
        (["frame"], b"", []),
        (["unknown", 1], b"", []),
        (["path"], b"", []),
        (["complex", "a", "b"], b"", []),
        ([], b"", []),
        ("array", b"", []),
    ],
)
def test_hostile_values(fields, body, sizes):
    if fields and fields[0] == "array" and fields[1] == "S999999":
        assert unpack(hostile(fields, body, sizes))[1].size == 0  # odd, and harmless
        return
    with pytest.raises(WireError):
        unpack(hostile(fields, body, sizes))


def test_deep_messages():
    head = msgspec.msgpack.encode({"sizes": [], "value": msgspec.Raw(b"\x91" * 200_000 + b"\xc0")})
    with pytest.raises(WireError):
        unpack(Frame(RESULT, bytearray(message(RESULT, head)), len(head)))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_noise(data):
    try:
        frames = read(data)
        for received in frames:
            unpack(received)
    except WireError:
        pass


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_messages(data):
    whole = bytearray(written(pack(RESULT, {"a": np.arange(10.0), "b": [1, "x"], "c": pathlib.Path("p")})))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        for received in read(bytes(whole), limit=1 << 20):
            unpack(received)
    except WireError:
        pass


def test_a_call_carries_api_deadline_and_headers():
    [received] = read(written(pack(CALL, [[1], {"y": 2}], ("add", 1.5, {"traceparent": "00-1"}))))
    head, value = unpack(received)
    assert (head.api, head.seconds, head.headers, value) == ("add", 1.5, {"traceparent": "00-1"}, [[1], {"y": 2}])


def test_too_large():
    class Huge:
        nbytes = MAX_MESSAGE

    with pytest.raises(WireError, match="too large"):
        frame(RESULT, b"", [Huge()])


# types


class Point(msgspec.Struct):
    x: int
    y: float = 0.5


@service
class Typed:
    from bentotool.sdk.api import api as _api

    @_api
    def add(self, point: Point, *more: int, scale: float = 1.0, **rest: set[int]) -> tuple[int, float]:
        return point.x, point.y


def typed():
    return TypedCall("Typed", Typed.apis["add"])


def test_arguments_come_in_their_declared_types():
    args, named = typed().incoming(round_trip([[Point(3), 4, 5], {"scale": 2, "z": {1}}]))
    assert (args, named) == ((Point(3), 4, 5), {"scale": 2.0, "z": {1}})
    assert typed().result(round_trip((1, 2.0))) == (1, 2.0)


@pytest.mark.parametrize("value", [[[{"x": "a"}], {}], [[], {}], [[{"x": 1}], {"scale": "b"}], [[{"x": 1}, "c"], {}]])
def test_wrong_arguments_are_the_callers_fault(value):
    with pytest.raises(InvalidArgument):
        typed().incoming(value)


@pytest.mark.parametrize("value", [None, [], [1, 2], [[], []], [{}, []], "x"])
def test_no_arguments_at_all(value):
    with pytest.raises(WireError):
        typed().incoming(value)


def test_a_result_of_another_type_is_said():
    with pytest.raises(InvalidOutput, match=r"Typed\.add returned"):
        typed().result(["a", "b"])
