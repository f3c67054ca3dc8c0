"""``bentotool model serve`` as it is typed: real models of two frameworks, a real server, and callers over HTTP."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

LIMIT = 60.0
FLOWER = [5.1, 3.5, 1.4, 0.2]
NEEDED = ("sklearn", "skops", "skl2onnx", "onnx", "onnxruntime", "bentotool_onnx", "bentotool_sklearn")


def _run(store: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", "--store", str(store), *arguments]
    environment = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment, check=False)


@pytest.fixture(scope="module")
def trained(require_package: Callable[[str], None]) -> Any:
    for package in NEEDED:
        require_package(package)
    from sklearn.datasets import load_iris
    from sklearn.linear_model import LogisticRegression

    features, species = load_iris(return_X_y=True)
    return LogisticRegression(max_iter=500).fit(features, species), features, species


@pytest.fixture(scope="module")
def models(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one classifier in both frameworks, and models of other forms."""
    import onnx
    import skops.io
    from onnx import TensorProto, helper
    from skl2onnx import to_onnx
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    folder, store = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("store") / "store"
    model, features, species = trained
    skops.io.dump(model, folder / "iris.skops")
    (folder / "classes.onnx").write_bytes(to_onnx(model, features[:1].astype("float32")).SerializeToString())
    skops.io.dump(ExtraTreesClassifier(200, random_state=0).fit(features, species), folder / "forest.skops")
    texts = make_pipeline(CountVectorizer(), LogisticRegression()).fit(["good film", "bad film"], ["yes", "no"])
    skops.io.dump(texts, folder / "mood.skops")
    mixed = np.array([[1.0, "red"], [2.0, "blue"]], dtype=object)
    columns = ColumnTransformer([("number", StandardScaler(), [0]), ("word", OneHotEncoder(), [1])])
    skops.io.dump(make_pipeline(columns, LogisticRegression()).fit(mixed, [0, 1]), folder / "mixed.skops")
    nodes = [helper.make_node("Add", ["a", "b"], ["sum"]), helper.make_node("Identity", ["word"], ["same"])]
    kinds = {"a": TensorProto.FLOAT, "b": TensorProto.FLOAT, "word": TensorProto.STRING}
    inputs = [helper.make_tensor_value_info(name, kind, ["batch", 2]) for name, kind in kinds.items()]
    outputs = [
        helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("same", TensorProto.STRING, ["batch", 2]),
    ]
    graph = helper.make_graph(nodes, "sums", inputs, outputs)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, folder / "sums.onnx")
    (folder / "plain.pkl").write_bytes(pickle.dumps(model))
    for file in sorted(folder.iterdir()):
        extra = ["--trust", "--framework", "sklearn"] if file.suffix == ".pkl" else []
        done = _run(store, "model", "import", str(file), "--name", file.stem, "--version", "1", *extra)
        assert done.returncode == 0, done.stderr
    return store


@contextmanager
def serving(store: Path, *arguments: str) -> Iterator[tuple[httpx.Client, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "bentotool", "--store", str(store), "model", "serve", *arguments]
    with subprocess.Popen(
        [*command, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.communicate(timeout=LIMIT)[1]
            with httpx.Client(base_url=json.loads(line)["url"], timeout=LIMIT) as client:
                yield client, process
        finally:
            if process.poll() is None:
                process.terminate()
            try:
                process.communicate(timeout=LIMIT)
            finally:
                process.kill()


@pytest.fixture(scope="module")
def iris(models: Path) -> Iterator[httpx.Client]:
    with serving(models, "iris") as (client, _):
        yield client


def v2(rows: Any, datatype: str = "FP64", name: str = "X") -> dict[str, Any]:
    array = np.asarray(rows)
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}


def test_a_model_of_scikit_learn_in_json(iris: httpx.Client, trained: Any) -> None:
    model, features, _ = trained
    answer = iris.post("/predict", json={"X": features.tolist()})
    assert answer.status_code == 200
    assert answer.json()["predict"] == model.predict(features).tolist()
    np.testing.assert_allclose(answer.json()["predict_proba"], model.predict_proba(features), atol=1e-9)
    for body in ({"X": FLOWER}, [FLOWER]):  # one row, and the one input without its name
        assert iris.post("/predict", json=body).json()["predict"] == [0]


def test_a_model_of_scikit_learn_by_the_protocol(iris: httpx.Client, trained: Any) -> None:
    model, features, _ = trained
    answer = iris.post("/v2/models/iris/infer", json={"id": "1", "inputs": [v2(features)]}).json()
    labels, proba = answer.pop("outputs")
    assert answer == {"model_name": "iris", "model_version": "1", "id": "1"}
    assert (labels["name"], labels["datatype"], labels["shape"]) == ("predict", "INT64", [150])
    assert labels["data"] == model.predict(features).tolist()
    np.testing.assert_allclose(np.reshape(proba["data"], proba["shape"]), model.predict_proba(features), atol=1e-9)
    told = iris.get("/v2/models/iris/versions/1").json()
    assert told["inputs"] == [{"name": "X", "datatype": "FP64", "shape": [-1, 4]}]
    assert [output["shape"] for output in told["outputs"]] == [[-1], [-1, 3]]
    head = {"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP64", "parameters": {"binary_data_size": 32}}]}
    text = json.dumps({**head, "parameters": {"binary_data_output": True}}).encode()
    sent = {"inference-header-content-length": str(len(text))}
    binary = iris.post("/v2/models/iris/infer", content=text + np.array(FLOWER, "<f8").tobytes(), headers=sent)
    length = int(binary.headers["inference-header-content-length"])
    assert np.frombuffer(binary.content[length : length + 8], "<i8").tolist() == [0]


def test_what_a_caller_does_wrong(iris: httpx.Client) -> None:
    wrong = iris.post("/predict", json={"X": [[1, 2]]})
    assert (wrong.status_code, wrong.json()["error"]["path"]) == (400, "$.X")
    missing = iris.post("/predict", json={"X": [[None, 1, 2, 3]]})
    assert missing.status_code == 400
    assert missing.json()["error"]["message"] == "the model refuses the input: Input X contains NaN"
    assert iris.post("/v2/models/iris/infer", json={"inputs": [v2([[1, 2]])]}).status_code == 400
    assert iris.post("/v2/models/rose/infer", json={"inputs": [v2([FLOWER])]}).status_code == 404


def test_pages_probes_metrics_and_our_client(iris: httpx.Client) -> None:
    import bentotool

    paths = ("/livez", "/readyz", "/healthz", "/metrics", "/docs.json", "/schema.json", "/", "/v2/health/ready")
    assert {path: iris.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)
    document = iris.get("/docs.json").json()
    assert document["info"] == {"title": "iris", "version": "1", "description": "The model iris:1, as it is."}
    answer = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert set(answer["properties"]) == {"predict", "predict_proba"}
    with bentotool.SyncHTTPClient(str(iris.base_url)) as client:
        assert client.predict({"X": np.array([FLOWER])})["predict"].tolist() == [0]


def test_requests_share_calls_of_the_model(models: Path) -> None:
    with serving(models, "forest") as (client, _), ThreadPoolExecutor(16) as pool:
        ways = [("/predict", {"X": [FLOWER]}), ("/v2/models/forest/infer", {"inputs": [v2([FLOWER])]})] * 40
        answers = list(pool.map(lambda way: client.post(way[0], json=way[1]), ways))
        assert {answer.status_code for answer in answers} == {200}
        lines = client.get("/metrics").text.splitlines()
    sizes = {line.partition("{")[0]: float(line.split()[-1]) for line in lines if "batch_size" in line and "{" in line}
    rows, calls = (next(sizes[name] for name in sizes if name.endswith(end)) for end in ("_sum", "_count"))
    assert rows == 80
    assert calls < 80  # each takes long enough for the next requests to come


def test_a_classifier_in_onnx(models: Path, trained: Any) -> None:
    model, features, _ = trained
    with serving(models, "classes:1", "--workers", "2") as (client, process):
        answer = client.post("/predict", json={"X": features.tolist()}).json()
        assert answer["output_label"] == model.predict(features).tolist()
        np.testing.assert_allclose(answer["output_probability"], model.predict_proba(features), atol=1e-5)
        told = client.get("/v2/models/classes").json()
        assert told["platform"] == "onnx"
        assert told["inputs"] == [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}]
        asked = {"inputs": [v2(features, "FP32")], "outputs": [{"name": "output_label"}]}
        (labels,) = client.post("/v2/models/classes/infer", json=asked).json()["outputs"]
        assert labels["data"] == model.predict(features).tolist()
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130


def test_several_inputs_and_texts_in_onnx(models: Path) -> None:
    body = {"a": [[1, 2]], "b": [[3, 4]], "word": [["x", "ü"]]}
    with serving(models, "sums") as (client, process):
        assert client.post("/predict", json=body).json() == {"sum": [[4, 6]], "same": [["x", "ü"]]}
        inputs = [v2(body["a"], "FP32", "a"), v2(body["b"], "FP32", "b"), v2(body["word"], "BYTES", "word")]
        outputs = client.post("/v2/models/sums/infer", json={"inputs": inputs}).json()["outputs"]
        assert [output["data"] for output in outputs] == [[4, 6], ["x", "ü"]]
        wrong = client.post("/predict", json={"a": [[1, 2]]}).json()
        assert wrong["error"]["message"] == "$.b: required, and not given"
        process.terminate()
        assert process.wait(LIMIT) == 0


def test_texts_and_labels_that_are_texts(models: Path) -> None:
    with serving(models, "mood", "--max-batch-size", "1") as (client, _):
        assert client.post("/predict", json={"X": ["a good film"]}).json()["predict"] == ["yes"]
        (label, _proba) = client.post("/v2/models/mood/infer", json={"inputs": [v2(["a bad film"], "BYTES")]}).json()[
            "outputs"
        ]
        assert (label["datatype"], label["data"]) == ("BYTES", ["no"])


def test_a_pickle_needs_trust(models: Path) -> None:
    refused = _run(models, "model", "serve", "plain", "--port", "0")
    assert (refused.returncode, refused.stdout) == (6, "")
    assert "plain:1 is a pickle" in refused.stderr
    assert "--trust" in refused.stderr
    with serving(models, "plain", "--trust") as (client, _):
        assert client.post("/predict", json={"X": [FLOWER]}).json()["predict"] == [0]


def test_what_is_not_served(models: Path, tmp_path: Path) -> None:
    missing = _run(models, "model", "serve", "nothing")
    assert (missing.returncode, missing.stdout) == (3, "")
    without = _run(models, "model", "serve", "iris", "--disable-plugin", "sklearn")
    assert without.returncode == 2
    assert without.stderr.startswith("error: iris:1 cannot be served without code: no plugin here knows framework")
    assert _run(models, "model", "serve", "iris", "--port", "70000").returncode == 2
    mixed = _run(models, "model", "serve", "mixed", "--port", "0")
    assert (mixed.returncode, mixed.stdout) == (2, "")
    assert mixed.stderr.startswith("error: mixed:1 cannot be served without code: it does not take a row of numbers")
    assert "hint: write a service with bentotool.sklearn.load_model('mixed:1')" in mixed.stderr


def test_a_policy_in_force_refuses_before_anything_starts(models: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("enforce: true\nrules: [{repositories: ['*'], safety: [program]}]\n")
    refused = _run(models, "model", "serve", "iris", "--json", BENTOTOOL_POLICY=str(policy))
    assert (refused.returncode, refused.stdout) == (4, "")
    error = json.loads(refused.stderr)["error"]
    assert error["code"] == "verification_failed"
    assert "iris" in error["message"]


def test_files_that_lie_here_are_no_code(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool.modellaunch import plan_model_launch
    from bentotool.models.store import ModelStore
    from bentotool.oci.layout import Layout
    from bentotool.plugins import load_plugins
    from bentotool.serving import running

    for name in ("numpy", "sklearn", "service"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    launch = plan_model_launch("iris", ModelStore(Layout(models)), load_plugins(), verify=True, note=told.append)
    assert told[0].startswith("verified 1 file,")
    launch.placed().folder.rmdir()  # it is empty
    with running(launch) as server:
        assert httpx.post(f"{server.url}/predict", json=[FLOWER], timeout=LIMIT).json()["predict"] == [0]
