"""With MLflow itself: models that it wrote, a tracking store on disk, and a server that lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from bentotool_mlflow.source import MlflowSource

from bentotool.errors import AuthenticationError, BentotoolError, NotFoundError, RemoteError, UnsafeError
from bentotool.frameworks import namespace
from bentotool.interfaces import SourceModel, SourceRequest
from bentotool.models.api import import_model
from bentotool.testing import check_framework

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # read when mlflow is imported
np = pytest.importorskip("numpy")
mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.filterwarnings("ignore")  # of MLflow's and of all that it imports

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
Require = Callable[[str], None]
NEEDS = {"pip_requirements": ["mlflow"]}  # not found out, which takes MLflow many seconds


def bentotool(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bentotool", "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def linear(path: Path) -> Any:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression

    estimator = LogisticRegression().fit(X, Y)

    signature = mlflow.models.infer_signature(X, Y)
    mlflow.sklearn.save_model(estimator, path, signature=signature, serialization_format="cloudpickle", **NEEDS)
    return estimator


def test_a_pickle_is_imported_and_loaded_with_trust_only(tmp_path: Path, require_package: Require) -> None:
    require_package("sklearn")
    estimator = linear(tmp_path / "linear")
    refused = bentotool("model", "import", str(tmp_path / "linear"))
    assert refused.returncode == 6, refused.stderr
    assert json.loads(refused.stderr)["error"]["message"].startswith("linear runs code when it is loaded: ")
    done = bentotool("model", "import", str(tmp_path / "linear"), "--trust")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["framework"], json.loads(done.stdout)["safety"]) == ("mlflow", "pickle")
    names = namespace("mlflow")
    with pytest.raises(UnsafeError, match="runs code when it is loaded: mlflow.sklearn reads pickles"):
        names.load_model("linear")
    assert np.array_equal(names.load_model("linear", trust=True).predict(X), estimator.predict(X))


def test_native_formats_load_by_themselves(tmp_path: Path, require_package: Require) -> None:
    require_package("xgboost")
    import mlflow.xgboost
    import xgboost

    estimator = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y)
    mlflow.xgboost.save_model(estimator, tmp_path / "trees", **NEEDS)
    (tmp_path / "scratch").mkdir()
    (info,) = check_framework("mlflow", [tmp_path / "trees"], scratch=tmp_path / "scratch")
    assert info.safety == "data"
    import_model(tmp_path / "trees", "trees")
    assert np.array_equal(namespace("mlflow").load_model("trees").predict(X), estimator.predict(X))


def test_catboost_and_lightgbm(tmp_path: Path, require_package: Require) -> None:
    require_package("catboost")
    import catboost
    import mlflow.catboost

    options = {"iterations": 2, "verbose": False, "allow_writing_files": False, "thread_count": 1}
    estimator = catboost.CatBoostClassifier(**options).fit(X, Y)
    mlflow.catboost.save_model(estimator, tmp_path / "cat", **NEEDS)
    assert import_model(tmp_path / "cat", "cat").info["safety"] == "data"
    assert np.array_equal(namespace("mlflow").load_model("cat").predict(X), estimator.predict(X))
    require_package("lightgbm")
    import lightgbm
    import mlflow.lightgbm

    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(X, Y), 2)
    mlflow.lightgbm.save_model(booster, tmp_path / "lgb", **NEEDS)
    assert import_model(tmp_path / "lgb", "lgb").info["safety"] == "data"


def test_onnx_with_data_of_its_own(tmp_path: Path, require_package: Require) -> None:
    require_package("onnx")
    import onnx

    require_package("onnxruntime")
    import mlflow.onnx

    weights = np.arange(3 * 400, dtype=np.float32).reshape(3, 400)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 400])],
        [onnx.numpy_helper.from_array(weights, "w")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    signature = mlflow.models.infer_signature(X, X @ weights)
    mlflow.onnx.save_model(model, tmp_path / "onnx", signature=signature, **NEEDS)
    assert list((tmp_path / "onnx").glob("*.data")), "no external data: the sample is too small"
    assert import_model(tmp_path / "onnx", "onnx").info["safety"] == "data"
    assert np.allclose(namespace("mlflow").load_model("onnx").predict(X)["y"], X @ weights)


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A tracking store in a folder; the one of before afterwards."""
    place = (tmp_path / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", place)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)
    yield place
    mlflow.set_tracking_uri(None)
    mlflow.set_registry_uri(None)


def test_runs_and_registered_models_of_a_store_on_disk(tracking: str, require_package: Require) -> None:
    require_package("xgboost")
    import mlflow.xgboost
    import xgboost

    estimator = xgboost.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y)
    with mlflow.start_run() as run:
        mlflow.xgboost.log_model(estimator, name="trees", registered_model_name="Iris", **NEEDS)
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("Iris", "best", 1)
    client.set_model_version_tag("Iris", "1", "team", "red")
    found = {
        uri: import_model(f"mlflow:{uri}") for uri in ("models:/Iris/1", "models:/Iris@best", "models:/Iris/latest")
    }
    assert {model.tag for model in found.values()} == {"iris:1"}
    assert len({model.digest for model in found.values()}) == 1
    info = found["models:/Iris/1"].info
    assert (info["framework"], info["safety"], info["labels"]) == ("mlflow", "data", {"team": "red"})
    assert info["metadata"]["mlflow_registry"] == {"name": "Iris", "version": "1", "run_id": run.info.run_id}
    logged = import_model(f"mlflow:runs:/{run.info.run_id}/trees")
    assert logged.tag.startswith("trees:")
    assert np.array_equal(namespace("mlflow").load_model("iris:1").predict(X), estimator.predict(X))
    for absent in ("models:/Iris/7", "models:/none/1", "models:/none", f"runs:/{'0' * 32}/trees"):
        with pytest.raises(NotFoundError):
            import_model(f"mlflow:{absent}")


MLMODEL = b"flavors: {python_function: {loader_module: mlflow.pyfunc.model, python_model: m.pkl}}\n"
ROOT = "mlflow-artifacts:/1/model"


class Server(ThreadingHTTPServer):
    """Answers as a tracking server does, with what a test puts in."""

    location = ROOT
    status = 200
    listing: tuple[dict[str, Any], ...] = ()
    files: dict[str, bytes] = {}  # noqa: RUF012 - set by each test


class Answers(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        if self.server.status != 200:
            self._send(json.dumps({"error_code": "PERMISSION_DENIED", "message": "no\nentry"}).encode())
        elif url.path.endswith("/model-versions/get"):
            self._send(json.dumps({"model_version": {"name": "m", "version": "1", "run_id": "r"}}).encode())
        elif url.path.endswith("/get-download-uri"):
            self._send(json.dumps({"artifact_uri": self.server.location}).encode())
        elif url.path.endswith("/mlflow-artifacts/artifacts"):
            inner = query.get("path", [""])[0].removeprefix("1/model").strip("/")
            here = self.server.listing if not inner else [{"path": "deep", "is_dir": True}]
            self._send(json.dumps({"files": list(here)}).encode())
        else:
            self._send(self.server.files.get(url.path.rpartition("/")[2], b""))

    def _send(self, body: bytes) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Answers) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{running.server_port}")
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)
        yield running
        running.shutdown()
        thread.join(10)
        mlflow.set_tracking_uri(None)
        mlflow.set_registry_uri(None)


def fetch(tmp_path: Path, max_bytes: int = 1 << 20) -> SourceModel:
    room = tmp_path / "room"
    room.mkdir(exist_ok=True)
    return MlflowSource().fetch(SourceRequest("mlflow:models:/m/1", room, max_bytes, None, lambda amount: None))


def entry(path: str, size: int = 1) -> dict[str, Any]:
    return {"path": path, "is_dir": False, "file_size": str(size)}


def test_files_of_a_server(tmp_path: Path, server: Server) -> None:
    server.listing = (entry("MLmodel", len(MLMODEL)), entry("m.pkl", 3))
    server.files = {"MLmodel": MLMODEL, "m.pkl": b"abc"}
    found = fetch(tmp_path)
    assert {file.name: file.path.read_bytes() for file in found.files} == {"MLmodel": MLMODEL, "m.pkl": b"abc"}
    assert (found.name, found.version) == ("m", "1")
    server.files["m.pkl"] = bytes(5000)  # more than it stated
    with pytest.raises(UnsafeError, match="is larger than 200 bytes"):
        fetch(tmp_path, 200)
    with pytest.raises(UnsafeError, match="is larger than 20 bytes"):
        fetch(tmp_path, 20)


@pytest.mark.parametrize("path", ["../up", "/etc/x", "a/../../up", "a\\b", "C:x", "NUL", "MLMODEL", "x" * 300])
def test_hostile_names_of_files(tmp_path: Path, server: Server, path: str) -> None:
    server.listing = (entry("MLmodel"), entry(path))
    server.files = {"MLmodel": MLMODEL}
    with pytest.raises(BentotoolError) as caught:
        fetch(tmp_path)
    assert "\n" not in caught.value.message
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_folders_without_end(tmp_path: Path, server: Server) -> None:
    server.listing = (entry("MLmodel"), {"path": "deep", "is_dir": True})
    with pytest.raises(UnsafeError, match="lists 'deep/"):
        fetch(tmp_path)


@pytest.mark.parametrize("location", ["/etc", "file:///etc", "http://169.254.169.254/latest", "https://evil.example/x"])
def test_a_server_that_points_elsewhere(tmp_path: Path, server: Server, location: str) -> None:
    server.location = location
    with pytest.raises(UnsafeError, match="the server says that models:/m/1 lies on"):
        fetch(tmp_path)


def test_refusals_and_silence(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.status = 403
    with pytest.raises(AuthenticationError) as caught:
        fetch(tmp_path)
    assert "\n" not in caught.value.message
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    server.status = 503
    with pytest.raises(RemoteError, match=r"did not give models:/m/1: 127\.0\.0\.1:\d+ answers 503$"):
        fetch(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(
        RemoteError, match=r"MLflow did not give models:/m/1: 127\.0\.0\.1:9 cannot be reached, or does"
    ) as silent:
        fetch(tmp_path)
    assert len(silent.value.message) < 100
    assert "MLFLOW_TRACKING_URI" in str(silent.value.hint)
    assert "MLFLOW_DISABLE_TELEMETRY" in os.environ
    assert "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR" not in os.environ
