"""The model that every server serves: rows of float32 to rows of one float.

``MODEL=sim``: a device that takes 8 ms and 1 ms per row, without using the processor. Otherwise the path of a file in
the ONNX format.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
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


def write_mlp(path: str, hidden: int = 512, further: int = 0, features: int = 512) -> None:
    """A perceptron with weights made from a fixed seed: one layer of `hidden`, `further` like it, and one number."""
    import numpy as np
    from onnx import TensorProto, checker, helper, numpy_helper, save

    rng = np.random.default_rng(7)
    sizes = [features, *[hidden] * (1 + further), 1]
    shapes = list(pairwise(sizes))
    weights = [
        numpy_helper.from_array(rng.normal(0, 0.05, s).astype(np.float32), f"w{n}") for n, s in enumerate(shapes)
    ]
    nodes, last = [], "x"
    for number in range(len(shapes)):
        name = "y" if number == len(shapes) - 1 else f"h{number}"
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [name]))
        if name != "y":
            nodes.append(helper.make_node("Relu", [name], [f"r{number}"]))
        last = f"r{number}"
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    checker.check_model(model)
    save(model, path)
