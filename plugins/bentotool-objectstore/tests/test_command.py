"""``bentotool model import s3://…``, by the real command against moto's server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

COMMAND = [sys.executable, "-m", "bentotool", "--json", "model", "import"]
PIECE = 8 << 20


def bentotool(*arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "the-secret-of-nobody" not in done.stdout + done.stderr
    text = done.stderr if done.returncode else done.stdout
    document: dict[str, Any] = json.loads(text.splitlines()[-1] if done.returncode else text)
    return done.returncode, document.get("error", document)


@pytest.fixture(scope="module")
def onnx_model(require_package: Any) -> bytes:
    """A model of 34 MiB: five pieces."""
    require_package("onnx")
    require_package("bentotool_onnx")
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.random.default_rng(3).random((34, 1 << 18), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 34])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1 << 18])],
        [weights],
    )
    content: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString()
    return content


def test_a_file_and_a_folder(door: Any, bucket: str, onnx_model: bytes) -> None:
    door.put(f"/{bucket}/wide/model.onnx", onnx_model)
    door.put(f"/{bucket}/wide/README.md", b"a wide model")
    status, model = bentotool(f"s3://{bucket}/wide/model.onnx", "--name", "wide", "--version", "file")
    assert (status, model["framework"], model["size"]) == (0, "onnx", len(onnx_model))
    status, model = bentotool(f"s3://{bucket}/wide")
    assert (status, model["name"], model["framework"]) == (0, "wide", "onnx")
    assert [file["path"] for file in model["files"]] == ["README.md", "model.onnx"]


@pytest.mark.parametrize("how", ["killed", "interrupted"])
def test_stopped_half_way_and_gone_on_with(door: Any, bucket: str, onnx_model: bytes, how: str) -> None:
    if how == "interrupted" and sys.platform == "win32":
        pytest.skip("ctrl-C cannot be sent to one process of Windows")
    store = Path(os.environ["BENTOTOOL_STORE"])
    door.put(f"/{bucket}/wide.onnx", onnx_model)
    door.rule = lambda asked: "hold" if asked.range and door.gets.index(asked) >= 3 else "open"
    process = subprocess.Popen([*COMMAND, f"s3://{bucket}/wide.onnx"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while _noted(store) < 3 and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.02)
        if how == "interrupted":
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
    finally:
        process.kill()
        _, told = process.communicate(timeout=30)
    assert b"Traceback" not in told
    assert _noted(store) == 3
    door.reset()
    status, model = bentotool(f"s3://{bucket}/wide.onnx")
    assert (status, model["size"]) == (0, len(onnx_model))
    assert len(door.gets) == 2
    assert sum(asked.length for asked in door.gets) <= 2 * PIECE
    assert list(store.rglob("journal")) == []


def _noted(store: Path) -> int:
    """Pieces that a running import has on the disk."""
    return sum(len(journal.read_bytes().split()) // 6 for journal in store.rglob("journal"))


@pytest.mark.parametrize(
    ("uri", "environment", "status", "said"),
    [
        ("s3://no-such-bucket/m", {}, 3, "s3://no-such-bucket does not exist"),
        ("s3://{}/absent", {}, 3, "there is nothing at s3://"),
        ("s3://{}/m", {"AWS_ACCESS_KEY_ID": ""}, 5, "there are no credentials for s3://"),
        ("s3://{}/m", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, 5, "did not answer"),
        ("s3://{}/m", {"AWS_ENDPOINT_URL": "http://store.internal"}, 6, "is not encrypted"),
        ("s3://AKIA:the-secret-of-nobody@{}/m", {}, 2, "password"),
        ("s3://the-secret-of-nobody@{}/m", {}, 2, "holds a user"),
    ],
)
def test_what_goes_wrong_is_one_line_with_a_hint(
    door: Any, bucket: str, uri: str, environment: dict[str, str], status: int, said: str
) -> None:
    code, error = bentotool(uri.format(bucket), **environment)
    assert (code, said in error["message"]) == (status, True), error
    assert error["hint"]
