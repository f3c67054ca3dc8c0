"""How an ONNX model is asked when it is served with no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bentotool_onnx import loader
from bentotool_onnx.predictor import _failure, predictor
from onnx import TensorProto, helper

from bentotool.errors import UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import ANY_AXES
from bentotool.testing import ContractError, check_served

pytest.importorskip("onnxruntime")


def value(name: str, shape: Any, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: tuple[Any, ...] = ()) -> Any:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def asked(tmp_path: Path, made: Any) -> Any:
    onnx.save(made, tmp_path / "m.onnx")
    return predictor(loader.load(tmp_path / "m.onnx", providers=["CPUExecutionProvider"]), {})


def negated(first_in: Any, first_out: Any) -> Any:
    return model([helper.make_node("Neg", ["x"], ["y"])], [value("x", [first_in, 2])], [value("y", [first_out, 2])])


@pytest.mark.parametrize(
    ("first_in", "first_out", "rows"),
    [
        (None, None, True),
        ("batch", "batch", True),
        ("N", None, True),
        (8, 8, False),
        (1, 1, False),
        ("batch", "other", False),
        ("sequence", "sequence", False),
        ("seq_len", "seq_len", False),
        ("height", "height", False),
    ],
)
def test_rows_are_what_the_first_axes_count(tmp_path: Path, first_in: Any, first_out: Any, rows: bool) -> None:
    found = asked(tmp_path, negated(first_in, first_out))
    assert found.rows is rows
    assert found.inputs == (TensorSpec("x", "float32", (first_in, 2)),)


def test_an_input_without_axes_is_no_row() -> None:
    node = helper.make_node("Mul", ["x", "factor"], ["y"])
    made = model([node], [value("x", ["n", 2]), value("factor", [])], [value("y", ["n", 2])])
    namespace("onnx").save_model("scaled", made)
    given = {"x": np.ones((1, 2), "float32"), "factor": np.array(3, "float32")}
    assert check_served("scaled", given) == {"y": [[3, 3]]}


def test_a_fixed_batch_is_served_as_it_is() -> None:
    namespace("onnx").save_model("fixed", negated(2, 2))
    assert check_served("fixed", {"x": np.array([[1, 2], [3, 4]], "float32")}) == {"y": [[-1, -2], [-3, -4]]}


def test_every_type_that_travels() -> None:
    kinds = {
        "bool": TensorProto.BOOL,
        "int8": TensorProto.INT8,
        "int64": TensorProto.INT64,
        "uint16": TensorProto.UINT16,
        "float16": TensorProto.FLOAT16,
        "float32": TensorProto.FLOAT,
        "float64": TensorProto.DOUBLE,
        "str": TensorProto.STRING,
    }
    made = model(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in kinds],
        [value(f"in_{name}", [None, 2], kind) for name, kind in kinds.items()],
        [value(f"out_{name}", [None, 2], kind) for name, kind in kinds.items()],
    )
    namespace("onnx").save_model("kinds", made)
    given = {f"in_{name}": np.array([[0, 1]]).astype(name) for name in kinds}
    found = check_served("kinds", given)
    assert found == {f"out_{name}": given[f"in_{name}"].tolist() for name in kinds}


def test_texts_are_those_that_came() -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    text = TensorProto.STRING
    namespace("onnx").save_model("echo", model([node], [value("x", ["n"], text)], [value("y", ["n"], text)]))
    given = np.array(["a", "", "b\0", "bjørn", "x" * 5000], dtype=object)
    assert check_served("echo", {"x": given}) == {"y": given.tolist()}


def test_what_the_model_refuses_is_a_wrong_value(tmp_path: Path) -> None:
    table = helper.make_tensor("table", TensorProto.FLOAT, [3, 1], [1, 2, 3])
    node = helper.make_node("Gather", ["table", "index"], ["y"])
    made = model([node], [value("index", ["n"], TensorProto.INT64)], [value("y", ["n", 1])], (table,))
    found = asked(tmp_path, made)
    assert found.run({"index": np.array([2])})["y"].tolist() == [[3]]
    with pytest.raises(ValueError, match="out of data bounds"):
        found.run({"index": np.array([7])})


RUNNING = "Non-zero status code returned while running Conv node. Name:'c' Status Message:"
TWO = helper.make_tensor("two", TensorProto.INT64, [1], [2])


def refusing(operator: str, **attributes: Any) -> Any:
    inputs = [value("a", [None, None]), value("b", [None, None])]
    return model([helper.make_node(operator, ["a", "b"], ["y"], **attributes)], inputs, [value("y", [None, None])])


@pytest.mark.parametrize(
    ("made", "shapes", "said"),
    [
        (refusing("Add"), ([1, 2], [1, 3]), "Add: Attempting to broadcast an axis by a dimension other than 1. 2 by 3"),
        (refusing("MatMul"), ([1, 2], [3, 3]), "MatMul dimension mismatch"),
        (refusing("Concat", axis=0), ([1, 2], [1, 3]), "Axis 1 has mismatched dimensions of 3 and 2"),
    ],
    ids=["Add", "MatMul", "Concat"],
)
def test_shapes_that_do_not_fit_inside_are_the_callers_fault(
    made: Any, shapes: tuple[list[int], list[int]], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    namespace("onnx").save_model("inside", made)
    a, b = (np.ones(shape, "float32") for shape in shapes)
    with pytest.raises(ContractError) as caught:
        check_served("inside", {"a": a, "b": b})
    assert "inside answers 400" in str(caught.value)
    assert said in str(caught.value)
    assert "onnxruntime" not in str(caught.value)
    shown = capfd.readouterr()
    assert "Non-zero status" not in shown.err + shown.out
    assert "Traceback" not in shown.err + shown.out


def test_what_the_machine_lacks_is_not_the_callers_fault(caplog: pytest.LogCaptureFixture) -> None:
    inputs = [value("x", [None]), value("shape", [None], TensorProto.INT64)]
    made = model([helper.make_node("Expand", ["x", "shape"], ["y"])], inputs, [value("y", [None])])
    namespace("onnx").save_model("wide", made)
    with pytest.raises(ContractError, match="wide answers 500.*the model failed; the server's log says why"):
        check_served("wide", {"x": np.ones(1, "float32"), "shape": np.array([2**45])})
    told = [record for record in caplog.records if "the model failed" in record.getMessage()]
    line = f"predict: the model failed: Expand: Failed to allocate memory for requested buffer of size {2**47}"
    assert {record.getMessage() for record in told} == {line}
    assert [record.exc_info for record in told] == [None] * len(told)


@pytest.mark.parametrize(
    ("status", "text", "kind", "said"),
    [
        (
            "1 : FAIL",
            f"{RUNNING} /src/common/safeint.h:17 static void Handler<onnxruntime::E>::OnOverflow() Integer overflow\n",
            ValueError,
            "Conv: Integer overflow",
        ),
        (
            "6 : RUNTIME_EXCEPTION",
            f"{RUNNING} CUDNN failure 4: CUDNN_STATUS_INTERNAL_ERROR",
            RuntimeError,
            "Conv: CUDNN failure 4: CUDNN_STATUS_INTERNAL_ERROR",
        ),
        ("11 : EP_FAIL", "it is gone", RuntimeError, "it is gone"),
        (
            "2 : INVALID_ARGUMENT",
            "Invalid rank for input: a Got: 1 Expected: 2",
            ValueError,
            "Invalid rank for input: a Got: 1 Expected: 2",
        ),
    ],
)
def test_what_is_told_of_a_message(status: str, text: str, kind: type[Exception], said: str) -> None:
    found = _failure(f"[ONNXRuntimeError] : {status} : {text}")
    assert (type(found), str(found)) == (kind, said)


def without_names(*nodes: Any, constants: tuple[Any, ...] = ()) -> Any:
    return model(list(nodes), [value("x", [None])], [value("y", [None])], constants)


FIVE = helper.make_tensor("five", TensorProto.FLOAT, [], [5])
BELOW_FIVE = (helper.make_node("Less", ["x", "five"], ["below"]), helper.make_node("Compress", ["x", "below"], ["y"]))


@pytest.mark.parametrize(
    ("made", "rows"),
    [
        (without_names(helper.make_node("Neg", ["x"], ["y"])), True),
        (without_names(helper.make_node("Softmax", ["x"], ["y"], axis=0)), False),
        (without_names(helper.make_node("ReduceSum", ["x"], ["y"], keepdims=1)), False),
        (without_names(helper.make_node("Tile", ["x", "two"], ["y"]), constants=(TWO,)), False),
        (without_names(*BELOW_FIVE, constants=(FIVE,)), True),  # as far as anybody can see beforehand
    ],
    ids=["Neg", "Softmax", "ReduceSum", "Tile", "Compress"],
)
def test_axes_without_names_are_tried(tmp_path: Path, made: Any, rows: bool) -> None:
    assert asked(tmp_path, made).rows is rows


@pytest.mark.parametrize("node", [("ReduceSum", ["x"], {"keepdims": 1}), ("Tile", ["x", "two"], {})])
def test_other_rows_than_came_are_answered(node: tuple[str, list[str], dict[str, int]]) -> None:
    operator, names, attributes = node
    namespace("onnx").save_model(
        "other", without_names(helper.make_node(operator, names, ["y"], **attributes), constants=(TWO,))
    )
    expected = {"ReduceSum": [6.0], "Tile": [1.0, 2.0, 3.0] * 2}[operator]
    assert check_served("other", {"x": np.array([1, 2, 3], "float32")}) == {"y": expected}


def test_rows_that_are_left_out_end_the_sharing_of_calls(caplog: pytest.LogCaptureFixture) -> None:
    namespace("onnx").save_model("some", without_names(*BELOW_FIVE, constants=(FIVE,)))
    assert check_served("some", {"x": np.array([1, 9, 2], "float32")}) == {"y": [1, 2]}
    told = [record.getMessage() for record in caplog.records if "share no calls" in record.getMessage()]
    assert told == ["some gives y of shape (2,) for 3 rows: requests share no calls of it from now on"]


def test_a_shape_that_is_not_known(tmp_path: Path) -> None:
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    unknown = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = model([node], [value("x", [None, 2]), value("shape", [None], TensorProto.INT64)], [unknown])
    found = asked(tmp_path, made)
    assert (found.outputs[0].shape, found.rows) == (ANY_AXES, False)


def test_sequences_do_not_travel(tmp_path: Path) -> None:
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    output = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    with pytest.raises(UsageError, match=r"it gives 'y', a seq\(tensor\(float\)\), which is no array that travels"):
        asked(tmp_path, model([node], [value("x", [None, 2])], [output]))
