"""Tensors in a safetensors body: both ways, beside the safetensors package, and against damaged bodies."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentotool.sdk.tensors import Tensor, decode_tensors, encode_tensors, tensor_of

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "int64", "float64"]


@pytest.fixture
def np(require_package):
    require_package("numpy")
    import numpy

    return numpy


def body_of(*arguments):
    return b"".join(bytes(piece) for piece in encode_tensors(*arguments))


def raw(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


@pytest.mark.parametrize("dtype", [*DTYPES, "uint64", "complex64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_every_dtype_and_shape_travels(np, dtype, shape):
    array = np.ones(shape, dtype)
    tensors, rest = decode_tensors(bytearray(body_of({"x": tensor_of(array)}, b'{"n":1}')))
    found = tensors["x"].numpy()
    assert found.dtype == array.dtype
    assert found.shape == shape
    assert (found == array).all()
    assert found.flags.writeable or not found.size
    assert rest == b'{"n":1}'


def test_arrays_in_another_order_are_the_same_arrays(np):
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    for given_array in (array, array.T, array[:, ::2]):
        tensors, _ = decode_tensors(body_of({"x": tensor_of(given_array)}))
        assert (tensors["x"].numpy() == given_array).all()


def test_bfloat16_is_widened(np):
    tensor = Tensor("bfloat16", (2,), memoryview(np.array([0x3F80, 0xC000], "<u2").view("u1")))
    tensors, _ = decode_tensors(body_of({"x": tensor}))
    assert tensors["x"].numpy().tolist() == [1.0, -2.0]


def test_elements_without_a_binary_form(np):
    with pytest.raises(TypeError, match="no binary form"):
        tensor_of(np.array(["text"]))


def test_the_safetensors_package_reads_and_writes_the_same(np, require_package):
    require_package("safetensors")
    from safetensors.numpy import load, save

    arrays = {"a": np.arange(5, dtype="int8"), "b": np.ones((2, 2), "float64"), "c": np.zeros((), "float32")}
    ours = load(body_of({name: tensor_of(array) for name, array in arrays.items()}))
    theirs = {name: tensor.numpy() for name, tensor in decode_tensors(save(arrays))[0].items()}
    for found in (ours, theirs):
        assert {name: (array.dtype, array.tolist()) for name, array in found.items()} == {
            name: (array.dtype, array.tolist()) for name, array in arrays.items()
        }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 8,
        raw(b"[]"),
        raw(b"[" * 100_000),
        raw(b"{" + b'"a":1,' * 3 + b'"a":1}'),
        raw({"x": 1}),
        raw({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        raw({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 4),
        raw({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 9),
        raw({"x": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, b"\0" * 12),
        raw({"x": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, b"\0" * 8),
        raw({"x": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b"\0" * 4),
        raw({"x": {"dtype": "O", "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        raw({"x": {"dtype": [], "shape": [1], "data_offsets": [0, 8]}}, b"\0" * 8),
        raw({"x": {"dtype": "U8", "shape": [1] * 33, "data_offsets": [0, 1]}}, b"\0"),
        raw({"x": {"dtype": "U8", "shape": [2**62, 2**62], "data_offsets": [0, 1]}}, b"\0"),
        raw({n: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]} for n in "xy"}, b"\0"),
        raw({"__metadata__": {"json": 3}}),
    ],
)
def test_damaged_bodies_are_refused(body):
    with pytest.raises(ValueError, match="."):
        decode_tensors(body)


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_nothing_but_value_errors(data):
    for body in (data, raw(data), raw({"x": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, 3]}}, data)):
        try:
            decode_tensors(body)
        except ValueError:
            pass
