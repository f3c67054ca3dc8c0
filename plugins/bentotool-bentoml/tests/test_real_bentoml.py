"""With BentoML itself: models that it saved and exported, imported by the command, and the same predictions."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bentotool.frameworks import namespace

pytestmark = pytest.mark.filterwarnings("ignore")  # of all that BentoML imports

SAVE = """
import sys
import warnings
warnings.simplefilter("ignore")
import bentoml
import numpy as np
import onnx
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestClassifier

folder = sys.argv[1]
X = np.random.RandomState(0).rand(40, 3)
y = (X[:, 0] > 0.5).astype(int)
np.save(f"{folder}/X.npy", X)
forest = RandomForestClassifier(5, random_state=0).fit(X, y)
np.save(f"{folder}/forest.npy", forest.predict_proba(X))
bentoml.sklearn.save_model(
    "forest", forest, labels={"team": "a"}, metadata={"accuracy": np.float64(0.5)}, custom_objects={"names": ["x"]},
    signatures={"predict": {"batchable": True}},
)
values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in ("x", "y")]
graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "adder", values[:1], values[1:])
bentoml.onnx.save_model("adder", helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
for name in ("forest", "adder"):
    for ending in ("bentomodel", "tar.gz", "zip"):
        bentoml.models.export_model(f"{name}:latest", f"{folder}/{name}.{ending}")
try:
    from importlib.metadata import distribution
    distribution("xgboost")  # BentoML looks for this name, and not for xgboost-cpu
except ImportError:
    sys.exit()
import xgboost
booster = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(X, y), 5)
np.save(f"{folder}/boost.npy", booster.predict(xgboost.DMatrix(X)))
bentoml.xgboost.save_model("boost", booster)
bentoml.models.export_model("boost:latest", f"{folder}/boost.bentomodel")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for name in ("bentoml", "sklearn", "onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the package {name} is absent")
    folder = tmp_path_factory.mktemp("saved")
    environment = {**os.environ, "BENTOML_HOME": str(folder / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-c", SAVE, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert not done.returncode, done.stderr[-2000:]
    return folder


def bring(saved: Path, source: str, *options: str) -> None:
    environment = {**os.environ, "BENTOML_HOME": str(saved / "home")}
    command = [sys.executable, "-m", "bentotool", "model", "import", source, *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr


@pytest.mark.parametrize("form", ["bentoml:{name}", "{folder}/{name}.bentomodel", "bentoml:{folder}/{name}.zip"])
def test_models_saved_by_bentoml(saved: Path, form: str) -> None:
    import numpy as np

    X = np.load(saved / "X.npy")
    bring(saved, form.format(name="forest", folder=saved), "--trust")
    forest = namespace("sklearn").get("forest")
    assert forest.info["labels"] == {"team": "a"}
    assert forest.info["metadata"]["accuracy"] == 0.5
    assert forest.info["metadata"]["signatures"]["predict"]["batchable"] is True
    assert forest.info["metadata"]["bentoml"]["left_out"] == ["custom_objects.pkl"]
    expected = np.load(saved / "forest.npy")
    assert np.array_equal(namespace("sklearn").load_model(forest, trust=True).predict_proba(X), expected)
    bring(saved, form.format(name="adder", folder=saved))
    session = namespace("onnx").load_model("adder")
    assert np.array_equal(session.run(None, {"x": X.astype("float32")})[0], X.astype("float32") * 2)


def test_a_booster(saved: Path) -> None:
    import numpy as np

    if not (saved / "boost.npy").exists():
        pytest.skip("BentoML saves boosters with the distribution xgboost only")
    xgboost = pytest.importorskip("xgboost")
    bring(saved, str(saved / "boost.bentomodel"))
    booster = namespace("xgboost").load_model("boost")
    assert np.array_equal(booster.predict(xgboost.DMatrix(np.load(saved / "X.npy"))), np.load(saved / "boost.npy"))


SERVICE = """
import bentoml
from bentoml.models import BentoModel

@bentoml.service
class Doubler:
    adder = BentoModel("adder:latest")

    @bentoml.api
    def double(self, x: float) -> float:
        return 2 * x
"""


def test_an_exported_bento(saved: Path) -> None:
    project, file = saved / "project", saved / "doubler.bento"
    project.mkdir()
    (project / "service.py").write_text(SERVICE)
    (project / "bentofile.yaml").write_text(
        "service: service:Doubler\nmodels: ['adder:latest']\npython: {lock_packages: false}\n"
    )
    environment = {**os.environ, "BENTOML_HOME": str(saved / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    for words in (["build", "--version", "1.2"], ["export", "doubler:1.2", str(file)]):
        command = [sys.executable, "-m", "bentoml", *words]
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert not done.returncode, done.stderr[-2000:]
    command = [sys.executable, "-m", "bentotool", "import", str(file), "--trust", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert not done.returncode, done.stderr
    made = json.loads(done.stdout)
    assert (made["tag"], [model["alias"] for model in made["models"]]) == ("doubler:1.2", ["adder:latest"])
