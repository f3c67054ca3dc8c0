"""The model that every server serves: rows of float32 to rows of one float.

``MODEL=sim``: a device that takes 8 ms and 1 ms per row, without using the processor. Otherwise the path of a file in
the ONNX format.
"""

from __future__ import annotations

import os
import time
from typing import Any

FIXED, EACH = 0.008, 0.001


def load() -> Any:
    """A function from an array (rows, features) to an array (rows, 1)."""
    import numpy as np

    name = os.environ.get("MODEL", "sim")
    if name == "sim":

        def simulate(rows: Any) -> Any:
            time.sleep(FIXED + EACH * len(rows))
            return np.asarray(rows, dtype=np.float32)[:, :1]

        return simulate
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(name, options, providers=["CPUExecutionProvider"])
    put, got = session.get_inputs()[0].name, session.get_outputs()[0].name

    def run(rows: Any) -> Any:
        return session.run([got], {put: np.asarray(rows, dtype=np.float32)})[0]

    return run


def write_mlp(path: str, features: int = 512, hidden: int = 512) -> None:
    """A perceptron of two layers with weights made from a fixed seed."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rng = np.random.default_rng(7)
    sizes = [(features, hidden), (hidden, 1)]
    weights = [numpy_helper.from_array(rng.normal(0, 0.05, s).astype(np.float32), f"w{n}") for n, s in enumerate(sizes)]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w1"], ["y"]),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, path)
