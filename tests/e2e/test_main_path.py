"""The whole path with the real command: a trained model, a real lock, real servers, a real registry.

One story, told once for the module: import → build → serve the folder → serve the Bento → push → pull into another
store → serve there. What needs a registry or the package index is skipped by name where there is none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)

SERVICE = """
import numpy as np
import bentotool


@bentotool.service
class Iris:
    model = bentotool.models.BentoModel("iris:latest")

    def __init__(self):
        self.session = bentotool.onnx.load_model(self.model)

    @bentotool.api(batchable=True, max_batch_size=32)
    def classify(self, measurements: np.ndarray) -> np.ndarray:
        return self.session.run(["label"], {"measurements": measurements.astype(np.float32)})[0]
"""
BENTOFILE = 'service: "service:Iris"\nname: iris\ninclude: ["*.py"]\npython:\n  packages: [numpy, onnxruntime]\n'


@dataclass
class Workplace:
    """A project folder, a store, and the command."""

    project: Path
    store: Path
    environment: dict[str, str]

    def run(self, *arguments: str, cwd: Path | None = None, expect: int = 0) -> Any:
        """Run ``bentotool --json`` and return the document."""
        done = subprocess.run(
            [sys.executable, "-m", "bentotool", "--store", str(self.store), "--json", *arguments],
            cwd=cwd or self.project,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == expect, f"{arguments}: {done.stderr}{done.stdout}"
        return json.loads(done.stdout) if expect == 0 else json.loads(done.stderr)

    @contextmanager
    def serving(self, *arguments: str, cwd: Path) -> Iterator[str]:
        """Run ``bentotool serve`` on a free port until the block ends; yields the URL it prints."""
        process = subprocess.Popen(
            [sys.executable, "-m", "bentotool", "--store", str(self.store), "serve", *arguments, "--port", "0"],
            cwd=cwd,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        try:
            printed = []
            for line in process.stdout:
                printed.append(line)
                if "http://127.0.0.1:" in line:
                    yield "http://127.0.0.1:" + line.split("http://127.0.0.1:")[1].split()[0].rstrip("/.,")
                    break
            else:
                pytest.fail("".join(printed))
        finally:
            process.terminate()
            process.communicate(timeout=30)
        assert process.returncode == 0, "a server that is told to stop ends with status 0"


def ask(url: str, path: str, body: object | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        text = response.read().decode()
        return json.loads(text) if "json" in response.headers["Content-Type"] else text


@pytest.fixture(scope="module")
def iris() -> tuple[Any, Any, Any]:
    """scikit-learn's own data, a model trained on it, and the same model as ONNX bytes."""
    datasets = pytest.importorskip("sklearn.datasets")
    skl2onnx = pytest.importorskip("skl2onnx")
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.linear_model import LogisticRegression

    features, species = datasets.load_iris(return_X_y=True)
    model = LogisticRegression(max_iter=500).fit(features, species)
    onnx = skl2onnx.to_onnx(
        model,
        initial_types=[("measurements", FloatTensorType([None, 4]))],
        options={"zipmap": False},
        target_opset=17,
    )
    return model, features, onnx.SerializeToString()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, iris: tuple[Any, Any, Any]) -> Workplace:
    root = tmp_path_factory.mktemp("path")
    project = root / "project"
    project.mkdir()
    (project / "service.py").write_text(SERVICE, encoding="utf-8")
    (project / "bentofile.yaml").write_text(BENTOFILE, encoding="utf-8")
    (project / "iris.onnx").write_bytes(iris[2])
    environment = {**os.environ, "HOME": str(root / "home"), "DOCKER_CONFIG": str(root / "docker")}
    return Workplace(project, root / "store", environment)


@pytest.fixture(scope="module")
def model(place: Workplace) -> Any:
    return place.run("model", "import", "iris.onnx", "--name", "iris")


@pytest.fixture(scope="module")
def bento(place: Workplace, model: Any, package_index: None) -> Any:
    return place.run("build")


def predictions_match(url: str, iris: tuple[Any, Any, Any]) -> None:
    trained, features, _ = iris
    assert ask(url, "/classify", {"measurements": features.tolist()}) == trained.predict(features).tolist()
    assert ask(url, "/classify", {"measurements": features[:1].tolist()}) == trained.predict(features[:1]).tolist()


def test_import_describes_the_model_without_running_it(place: Workplace, model: Any) -> None:
    assert model["framework"] == "onnx"
    assert model["safety"] == "data"
    assert model["signature"]["inputs"] == [{"name": "measurements", "dtype": "float32", "shape": [None, 4]}]
    assert [item["tag"] for item in place.run("model", "list")] == [model["tag"]]
    path = Path(place.run("model", "path", "iris")["path"])
    assert (path / "iris.onnx").read_bytes() == (place.project / "iris.onnx").read_bytes()


def test_serve_the_folder(place: Workplace, model: Any, iris: tuple[Any, Any, Any]) -> None:
    with place.serving(cwd=place.project) as url:
        predictions_match(url, iris)
        assert ask(url, "/schema.json")["routes"][0]["name"] == "classify"
        assert ask(url, "/docs.json")["openapi"].startswith("3.1")
        assert "classify" in ask(url, "/metrics")
        for probe in ("/livez", "/readyz", "/healthz"):
            ask(url, probe)


def test_two_builds_in_two_folders_are_one_bento(place: Workplace, bento: Any, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / "copy"
    shutil.copytree(place.project, copy, ignore=shutil.ignore_patterns("bento.lock", "__pycache__"))
    for path in copy.iterdir():
        path.chmod(0o600)
        os.utime(path, (1, 1))
    again = place.run("build", cwd=copy)
    assert (again["digest"], again["tag"]) == (bento["digest"], bento["tag"])
    assert [item["digest"] for item in place.run("list")] == [bento["digest"]]


def test_serve_the_bento_from_any_folder(
    place: Workplace, bento: Any, iris: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    with place.serving(bento["tag"], cwd=tmp_path) as url:
        predictions_match(url, iris)


def test_show_tag_path_delete(place: Workplace, bento: Any) -> None:
    assert place.run("show", "iris")["models"][0]["name"] == "iris"
    root = Path(place.run("path", "iris")["path"])
    assert (root / "home/bento/app/service.py").read_text(encoding="utf-8") == SERVICE
    assert place.run("tag", bento["tag"], "copy:1")["digest"] == bento["digest"]
    assert place.run("delete", "copy", "--yes")[0]["tag"] == "copy:1"
    assert place.run("show", "copy", expect=3)["error"]["code"] == "not_found"


def test_push_pull_and_serve_elsewhere(
    place: Workplace, bento: Any, iris: tuple[Any, Any, Any], registry: str, tmp_path: Path
) -> None:
    remote = f"{registry}/acme/iris:1"
    pushed = place.run("push", bento["tag"], remote)
    assert pushed["digest"] == bento["digest"]
    other = Workplace(tmp_path, tmp_path / "other-store", place.environment)
    pulled = other.run("pull", remote)
    assert (pulled["digest"], pulled["tag"]) == (bento["digest"], bento["tag"])
    with other.serving(pulled["tag"], cwd=tmp_path) as url:
        predictions_match(url, iris)


def test_quickstart(place: Workplace, package_index: None, tmp_path: Path) -> None:
    fresh = Workplace(tmp_path, tmp_path / "store", place.environment)
    result = fresh.run("quickstart", str(tmp_path / "demo"))
    assert result["response"] == [0, 2]
    assert fresh.run("quickstart", str(tmp_path / "demo"))["bento"]["digest"] == result["bento"]["digest"]
    (tmp_path / "demo" / "service.py").write_text("mine = 1", encoding="utf-8")
    assert fresh.run("quickstart", str(tmp_path / "demo"), expect=1)["error"]["code"] == "conflict"


@pytest.fixture(scope="module")
def package_index() -> None:
    """Skips by name where the package index cannot be reached: a lock needs it."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", os.devnull, "idna"],
        capture_output=True,
        timeout=60,
        check=False,
    )
    text = done.stderr.decode(errors="replace")
    if done.returncode and "No matching distribution" in text:
        if os.environ.get("BENTOTOOL_TEST_REQUIRE_ALL") == "1":
            pytest.fail("needs the package index", pytrace=False)
        pytest.skip("needs the package index")


@pytest.fixture(scope="module")
def registry(require_tool: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry on a free port, stopped by its process."""
    import socket
    import time

    program = require_tool("docker-registry")
    root = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    config = root / "config.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {root / 'data'}}}}}\n"
        f"http: {{addr: 127.0.0.1:{port}}}\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
