"""How an ONNX model is asked when it is served with no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bentotool_onnx import loader
from bentotool_onnx.predictor import predictor
from onnx import TensorProto, helper

from bentotool.errors import UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import TensorSpec
from bentotool.predictspec import ANY_AXES
from bentotool.testing import check_served

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
