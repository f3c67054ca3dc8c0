"""What comes for an array is taken as it is, or refused: no number becomes another, no text costs those beside it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from bentotool.sdk.api import api
from bentotool.sdk.arrays import element_types, fitted
from bentotool.sdk.binary import render_binary
from bentotool.sdk.service import Service, service
from bentotool.sdk.tensors import MEDIA_TYPE as TENSORS
from bentotool.sdk.tensors import Tensor, decode_tensors

BIG = 2**63
SAME = [
    ([BIG], "uint64"),
    ([1, BIG], "uint64"),
    ([[2**64 - 1, 0], [1, 2]], "uint64"),
    ([-(2**63), 2**63 - 1], "int64"),
    ([65504.0, -1], "float16"),
    (["a", "bjørn"], "U5"),
]
REFUSED = [
    ([-1, BIG], "uint64", "does not fit into uint64"),
    ([2**64], "uint64", "does not fit into uint64"),
    ([1, BIG], "int64", "does not fit into int64"),
    ([256], "uint8", "does not fit into uint8"),
    ([1, 1e300], "float32", "does not fit into float32"),
    ([[1.0, 1e300]], "float32", "does not fit into float32"),
    ([70000], "float16", "does not fit into float16"),
    (np.array([1e300]), "float32", "does not fit into float32"),
    ([1, "2"], "float32", "expected an array of numbers"),
    (["a", 1], "U1", "expected an array of texts"),
    ([["a"], ["b", "c"]], "U1", "rows of equal length"),
    ([[1], [2, 3]], "float32", "rows of equal length"),
]


@pytest.mark.parametrize(("value", "dtype"), SAME)
def test_what_fits_is_what_came(value: Any, dtype: str) -> None:
    made = fitted(value, np.dtype(dtype), None)
    assert (made.tolist(), made.dtype) == (value, np.dtype(dtype))


@pytest.mark.parametrize(("value", "dtype", "said"), REFUSED)
def test_what_does_not_fit_is_refused(value: Any, dtype: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fitted(value, np.dtype(dtype), None)


def test_a_byte_is_true_or_false() -> None:
    assert fitted(Tensor("bool", (2,), memoryview(b"\0\1")), np.dtype("bool"), None).tolist() == [False, True]
    with pytest.raises(ValueError, match="a byte that is neither 0 nor 1"):
        fitted(Tensor("bool", (2, 1), memoryview(b"\0\2")), None, None)
    assert fitted(Tensor("bool", (), memoryview(b"\1")), None, None).tolist() is True


def test_infinity_stays_infinity() -> None:
    assert np.isinf(fitted(np.array([np.inf, 1.0]), np.dtype("float32"), None)).tolist() == [True, False]


@pytest.mark.parametrize("dtype", ["float32", "int64", "U", None])
def test_a_long_text_among_short_ones_takes_no_room(dtype: str | None) -> None:
    value = ["x" * 200_000, *["b"] * 30_000]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"too long for an array of so many|expected an array of numbers"):
            fitted(value, None if dtype is None else np.dtype(dtype), None)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20_000_000


def test_a_long_text_in_an_answer_takes_no_room() -> None:
    class Echo:
        @api
        def words(self) -> list[str]:
            return []

    made: Service[Any] = service(name="echo")(Echo)
    tracemalloc.start()
    try:
        assert render_binary("words", made.apis["words"].output, ["x" * 200_000, *["b"] * 30_000], TENSORS) is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 20_000_000


def test_large_whole_numbers_of_an_answer_stay_whole() -> None:
    class Large:
        @api
        def numbers(self) -> list[int]:
            return []

    made: Service[Any] = service(name="large")(Large)
    output = made.apis["numbers"].output
    rendered = render_binary("numbers", output, [1, 2**64 - 1], TENSORS)
    assert rendered is not None
    tensors, _ = decode_tensors(b"".join(rendered.content))  # type: ignore[arg-type]
    assert tensors["value"].numpy().tolist() == [1, 2**64 - 1]
    assert render_binary("numbers", output, [-1, 2**63], TENSORS) is None  # which is JSON then


def test_lists_in_lists() -> None:
    assert element_types([[1, 2.0], [None, ["a"]], True]) == {int, float, type(None), str, bool}
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(ValueError, match="rows of equal length"):
        element_types(deep)
