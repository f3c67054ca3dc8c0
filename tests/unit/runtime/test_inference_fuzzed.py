"""Whatever comes to `infer` is answered, never with a failure of the server, nor with much more memory than it has."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.sdk.api import api
from bentotool.sdk.named_arrays import ArraySpec, ModelCard
from bentotool.sdk.service import Service, service
from bentotool.testing.client import TestClient

INFER = "/v2/models/fuzzed/infer"
LENGTH = "inference-header-content-length"
SIZES = {
    "BOOL": 1,
    "INT8": 1,
    "UINT8": 1,
    "FP16": 2,
    "BF16": 2,
    "INT32": 4,
    "FP32": 4,
    "INT64": 8,
    "UINT64": 8,
    "FP64": 8,
}
INPUTS = (ArraySpec("x", "float32", (None, 2)), ArraySpec("n", "int64", (None,)), ArraySpec("t", "str", (None,)))
OUTPUTS = (ArraySpec("y", "any", None), ArraySpec("t", "str", (None,)))
_ROOM, _TIMES = 2_000_000, 60
"""What a request may take beside its body, and how many times its body."""


def fuzzed() -> Service[Any]:
    card = ModelCard("fuzzed", "1", "toy", "predict", INPUTS, OUTPUTS, True)

    class Fuzzed:
        def predict(self, inputs: Any, /) -> Any:
            return {"y": inputs["x"].sum(axis=1) + inputs["n"], "t": inputs["t"]}

    Fuzzed.predict.__annotations__ = {"inputs": card.input_type(), "return": card.output_type()}
    Fuzzed.predict = api(batchable=True, max_batch_size=10)(Fuzzed.predict)  # type: ignore[method-assign]
    made: Service[Any] = service(name="fuzzed")(Fuzzed)
    made.card = card
    return made


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(fuzzed()) as made:
        yield made


WILD = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
NAMES = st.sampled_from(["x", "n", "t", "y", ""])
CODES = st.sampled_from([*SIZES, "BYTES", "FP8"])
SHAPES = st.lists(st.one_of(st.integers(0, 4), st.sampled_from([-1, 2**31, 2**63, 2**70])), max_size=4)
PARAMETERS = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": st.integers(-1, 70) | WILD,
        "binary_data": st.booleans() | WILD,
        "binary_data_output": st.booleans() | WILD,
    },
)
TENSOR = st.fixed_dictionaries(
    {"name": NAMES | WILD, "datatype": CODES | WILD, "shape": SHAPES | WILD},
    optional={"data": st.lists(WILD, max_size=6) | WILD, "parameters": PARAMETERS | WILD},
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3) | WILD},
    optional={
        "id": st.text(max_size=4) | WILD,
        "outputs": st.lists(st.fixed_dictionaries({"name": NAMES}, optional={"parameters": PARAMETERS})) | WILD,
        "parameters": PARAMETERS | WILD,
    },
)


def good(rows: int, values: list[Any], texts: list[str]) -> dict[str, Any]:
    """A request that is right, unless the values are not."""
    return {
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": (values * 2)[: 2 * rows]},
            {"name": "n", "datatype": "INT64", "shape": [rows], "data": [1] * rows},
            {"name": "t", "datatype": "BYTES", "shape": [rows], "data": texts[:rows]},
        ]
    }


def sent(client: TestClient, body: bytes, headers: dict[str, str]) -> int:
    """The status of an answer, which has the form that it has to have."""
    tracemalloc.start()
    try:
        answer = client.post(INFER, content=body, headers=headers)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status_code in (200, 400), (answer.status_code, answer.text)
    if answer.status_code != 200:
        assert set(answer.json()) == {"error"}
        assert "\n" not in answer.json()["error"]
    assert most < _ROOM + _TIMES * len(body)
    return int(answer.status_code)


FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(document=REQUEST | WILD)
def test_any_json(client: TestClient, document: Any) -> None:
    sent(client, json.dumps(document).encode(), {"content-type": "application/json"})


@FUZZ
@given(
    values=st.lists(
        st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70), min_size=3, max_size=3
    ),
    texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=40), min_size=3, max_size=3),
)
def test_right_requests_are_answered(client: TestClient, values: list[Any], texts: list[str]) -> None:
    body = json.dumps(good(3, values, texts)).encode()
    with np.errstate(over="ignore"):
        fits = np.isfinite(np.array(values, dtype="float64").astype("float32")).all()
    assert sent(client, body, {"content-type": "application/json"}) == (200 if fits else 400)


@FUZZ
@given(
    document=REQUEST,
    rest=st.binary(max_size=80),
    length=st.none() | st.integers(-2, 200) | st.text("0123_+ -", max_size=5),
)
def test_any_bytes_behind_it(client: TestClient, document: Any, rest: bytes, length: Any) -> None:
    head = json.dumps(document).encode()
    sent(client, head + rest, {LENGTH: str(len(head) if length is None else length)})


@FUZZ
@given(
    codes=st.tuples(*[st.sampled_from([*SIZES, "BYTES"])] * 3),
    rows=st.integers(0, 3),
    extra=st.integers(-1, 1),
    data=st.data(),
)
def test_tensors_of_any_bytes(client: TestClient, codes: Any, rows: int, extra: int, data: Any) -> None:
    described, pieces = [], b""
    for name, code, shape in zip("xnt", codes, ([rows, 2], [rows], [rows]), strict=True):
        size = int(np.prod(shape)) * SIZES.get(code, 5)
        piece = data.draw(st.binary(min_size=size, max_size=size))
        if code == "BYTES" and data.draw(st.booleans()):
            piece = b"\1\0\0\0a" * int(np.prod(shape))
        pieces += piece
        described.append(
            {"name": name, "datatype": code, "shape": shape, "parameters": {"binary_data_size": len(piece)}}
        )
    described[-1]["parameters"]["binary_data_size"] += extra
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    sent(client, head + pieces, {LENGTH: str(len(head))})
