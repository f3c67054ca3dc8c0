"""Rows of numbers take a quick way into an array: what comes of it is what numpy makes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentotool.sdk import arrays
from bentotool.sdk.arrays import fitted

DTYPES = [None, np.dtype("f4"), np.dtype("f8")]
NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.booleans(),
    st.none(),
    st.text(max_size=2),
)


def _made(value: Any, dtype: Any) -> tuple[Any, ...]:
    with np.errstate(over="ignore"):
        try:
            array = fitted(value, dtype, None)
        except (ValueError, OverflowError) as error:
            return type(error).__name__, str(error)
    return (
        array.dtype,
        array.shape,
        array.flags.writeable,
        array.tobytes() if array.dtype.kind != "O" else array.tolist(),
    )


def _same_without_the_quick_way(value: Any, dtype: Any) -> None:
    quick = _made(value, dtype)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(arrays, "_PACKED", {})
        assert quick == _made(value, dtype)


@given(value=st.lists(st.lists(NUMBERS, max_size=4), max_size=4), dtype=st.sampled_from(DTYPES))
def test_any_rows(value: Any, dtype: Any) -> None:
    _same_without_the_quick_way(value, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "value",
    [
        [[1.0, 2, True], [3.5, 1, 2]],
        [[True, 1.0]],
        [[1.0, 1e300]],
        [[1.0, 10**400]],
        [["ab", 1.0]],
        ["ab", "cd"],
        [[[1.0, 2.0]]],
        [[1.0, [2.0]]],
        [[1.5] * 5000],
        [{"a": 1.0}],
        [[math.pi, math.e]] * 3,
        [],
        [[]],
        3.0,
    ],
)
def test_odd_ones(value: Any, dtype: Any) -> None:
    _same_without_the_quick_way(value, dtype)
