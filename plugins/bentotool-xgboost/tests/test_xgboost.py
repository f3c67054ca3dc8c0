from __future__ import annotations

import json
import struct
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from bentotool_xgboost import loader
from bentotool_xgboost.framework import XgboostFramework
from bentotool_xgboost.predictor import predictor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import ModelInfo, TensorSpec
from bentotool.models.api import import_model
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import check_framework, check_plugin, check_served, source_files

np = pytest.importorskip("numpy")
xgb = pytest.importorskip("xgboost")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")]

CHANCE = np.random.default_rng(0)
X = np.column_stack([CHANCE.normal(size=(200, 2)), CHANCE.integers(0, 6, 200)])
Y = ((X[:, 0] > 0) ^ np.isin(X[:, 2], [1, 4])).astype(int)
DATA = xgb.DMatrix(X, Y, feature_names=["a", "b", "kind"], feature_types=["q", "q", "c"], enable_categorical=True)
OPTIONS = {"max_depth": 3, "nthread": 1, "tree_method": "hist", "max_cat_to_onehot": 1}
MODEL = xgb.train({**OPTIONS, "objective": "binary:logistic"}, DATA, 3)
UBJ, TEXT = bytes(MODEL.save_raw("ubj")), bytes(MODEL.save_raw("json"))


def put(tmp_path: Path, content: bytes, name: str = "model.ubj") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def describe(path: Path) -> ModelInfo:
    framework = XgboostFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


def test_plugin() -> None:
    check_plugin("xgboost")


def test_contract(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    samples = [put(tmp_path, UBJ), put(tmp_path, TEXT, "model.json")]
    for kind in ("dart", "gblinear"):
        path = tmp_path / f"{kind}.json"
        options = {"booster": kind, "nthread": 1}
        xgb.train(options, xgb.DMatrix(X, Y), 2).save_model(path)
        samples.append(path)
    path = tmp_path / "several.ubj"
    xgb.train({**OPTIONS, "objective": "multi:softprob", "num_class": 3}, xgb.DMatrix(X, X[:, 2] // 2), 2).save_model(
        path
    )
    infos = check_framework("xgboost", [*samples, path], scratch=tmp_path / "scratch")
    assert infos[0].inputs == (TensorSpec("X", "float32", (None, 3)),)
    assert infos[0].metadata == {**infos[1].metadata}
    assert infos[0].metadata["features"] == ["a", "b", "kind"]
    assert [info.metadata["trees"] for info in infos] == [3, 3, 2, 0, 6]
    assert [info.outputs[0].shape for info in infos] == [(None,)] * 4 + [(None, 3)]


def test_save_load_and_predict() -> None:
    assert namespace("xgboost").save_model("m", MODEL).info["safety"] == "data"
    assert np.array_equal(namespace("xgboost").load_model("m:latest").predict(DATA), MODEL.predict(DATA))


def test_an_estimator_is_saved_and_loaded_as_one() -> None:
    pytest.importorskip("sklearn")
    estimator = xgb.XGBClassifier(n_estimators=2, n_jobs=1).fit(X, Y)
    namespace("xgboost").save_model("m", estimator)
    loaded = namespace("xgboost").load_model("m", estimator="XGBClassifier")
    assert np.array_equal(loaded.predict_proba(X), estimator.predict_proba(X))
    with pytest.raises(ValueError, match="is none of"):
        namespace("xgboost").load_model("m", estimator="collective")


@pytest.mark.parametrize("thing", ["text", {}, MODEL.predict])
def test_only_models_are_saved(tmp_path: Path, thing: object) -> None:
    with pytest.raises(UsageError, match="is not an XGBoost model"):
        XgboostFramework().save(thing, tmp_path)


def test_the_sample_has_categories() -> None:
    trees = json.loads(TEXT)["learner"]["gradient_booster"]["model"]["trees"]
    assert any(tree["categories"] for tree in trees)


LEARNER, MODEL_KEYS = ("learner",), ("learner", "gradient_booster", "model")
TREE = (*MODEL_KEYS, "trees", 0)


@pytest.mark.parametrize(
    ("where", "key", "value", "expected"),
    [
        ((), "learner", [], "has no 'learner'"),
        (LEARNER, "feature_names", ["a"], "names 1 features and states 3"),
        (LEARNER, "feature_names", [1, 2, 3], "not texts"),
        (LEARNER, "objective", {"name": 3}, "names no objective"),
        ((*LEARNER, "learner_model_param"), "num_feature", "-1", "not a number"),
        ((*LEARNER, "gradient_booster"), "name", "gbother", "unknown booster"),
        (MODEL_KEYS, "trees", {}, "no list of trees"),
        (MODEL_KEYS, "trees", [], "states another number"),
        (MODEL_KEYS, "tree_info", [0, 0, 7], "tree_info has a value outside 0 to 0"),
        (MODEL_KEYS, "iteration_indptr", [0, 3, 1, 3], "out of order"),
        (MODEL_KEYS, "iteration_indptr", [0, 900], "outside 0 to 3"),
        ((*TREE, "tree_param"), "num_nodes", "900", "left_children has"),
        ((*TREE, "tree_param"), "num_nodes", "0", "has no node"),
        (TREE, "categories_sizes", [10**6], "categories_sizes has|beyond their list"),
        (TREE, "left_children", [1.5], "needs|no whole number"),
    ],
)
def test_hostile_documents(tmp_path: Path, where: tuple[Any, ...], key: str, value: object, expected: str) -> None:
    document = json.loads(TEXT)
    table = document
    for part in where:
        table = table[part]
    table[key] = value
    with pytest.raises(UsageError, match=expected) as caught:
        import_model(put(tmp_path, json.dumps(document).encode(), "model.json"))
    assert caught.value.message.startswith("model.json is not a valid XGBoost model: ")


@pytest.mark.parametrize(
    ("key", "index", "value", "expected"),
    [
        ("left_children", 0, 0, "lead to node 0"),
        ("left_children", 0, -1, "has one child"),
        ("left_children", 0, 10**6, "left_children has a value outside"),
        ("left_children", 0, -2, "left_children has a value outside"),
        ("right_children", 0, 1, "lead to node 1"),
        ("split_indices", 0, 3, "splits by feature 3 of 3"),
        ("default_left", 0, 2, "default_left has a value outside"),
        ("categories_segments", 0, 10**6, "beyond their list"),
        ("categories_nodes", 0, 10**6, "categories_nodes has a value outside"),
        ("split_conditions", 0, "x", "no number"),
    ],
)
def test_hostile_trees(tmp_path: Path, key: str, index: int, value: object, expected: str) -> None:
    document = json.loads(TEXT)
    trees = document["learner"]["gradient_booster"]["model"]["trees"]
    tree = next(tree for tree in trees if tree["categories"])
    tree[key][index] = value
    with pytest.raises(UsageError, match=expected):
        describe(put(tmp_path, json.dumps(document).encode(), "model.json"))


def length(number: int) -> bytes:
    return b"L" + struct.pack(">q", number)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "truncated at byte 0"),
        (b"{", "truncated"),
        (b"{}x", "1 bytes follow"),
        (b"Q", "marker 'Q'"),
        (b"[" * 1000, "nested more than"),
        (b"[#" + length(2**62), "more than there is"),
        (b"[$l#" + length(-1), "more than there is"),
        (b"[$Z#" + length(1), "a typed array of 'Z'"),
        (b"[$L#" + length(2) + bytes(8), "truncated|more than there is"),
        (b"[$d#S", "where a length should be"),
        (b"S" + length(2**62), "more than there is"),
        (b"{i\x01ai\x00i\x01ai\x00}", "twice"),
        (b"[i\x01]", "has no 'learner'"),
    ],
)
def test_damaged_ubjson(tmp_path: Path, content: bytes, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        describe(put(tmp_path, content))
    assert caught.value.message.startswith("model.ubj is not a valid XGBoost model: ")


def test_damaged_json(tmp_path: Path) -> None:
    for content in (TEXT[: len(TEXT) // 2], b'{"learner":' + b"[" * 200_000):
        with pytest.raises(UsageError, match="is not JSON"):
            describe(put(tmp_path, content, "model.json"))


def test_other_json_is_not_ours(tmp_path: Path) -> None:
    assert XgboostFramework().detect(source_files(put(tmp_path, b'{"model_type": "bert"}', "config.json"))) is None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), sample=st.sampled_from([UBJ, TEXT]))
def test_mutations_end_in_an_answer_or_an_error_of_one_line(tmp_path: Path, data: Any, sample: bytes) -> None:
    content = bytearray(sample)
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    path = put(tmp_path, bytes(content[: data.draw(st.integers(0, len(content) * 2))]))
    framework = XgboostFramework()
    try:
        if framework.detect(source_files(path)):
            framework.describe(source_files(path))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


def test_looking_at_a_model_imports_no_xgboost(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import source_files
describe_model(source_files(Path(sys.argv[1])), load_plugins())
assert not {"xgboost", "numpy", "pickle"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(put(tmp_path, UBJ))], check=True, timeout=60)
    assert loader.load(tmp_path / "model.ubj").num_features() == 3


@pytest.mark.parametrize(
    ("installed", "needed"),
    [
        ({"xgboost"}, "xgboost"),
        ({"xgboost-cpu"}, "xgboost-cpu"),
        ({"xgboost", "xgboost-cpu"}, "xgboost"),
        ((), "xgboost"),
    ],
)
def test_a_bento_gets_the_distribution_that_is_installed_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: set[str], needed: str
) -> None:
    """On Linux ``xgboost`` brings libraries for GPUs; ``xgboost-cpu`` has the same files without them."""

    def distribution(name: str) -> str:
        if name in installed:
            return name
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    assert describe(put(tmp_path, UBJ)).requirements == ("numpy", f"{needed}>=2.1")


@pytest.mark.parametrize("name", ["model", "model.bin", "model.onnx", "model.json", "model.ubj"])
@pytest.mark.parametrize("content", [UBJ, TEXT], ids=["ubj", "json"])
def test_whatever_the_file_is_called(tmp_path: Path, content: bytes, name: str) -> None:
    path = put(tmp_path, content, name)
    assert describe_model(source_files(path), load_plugins(), trust=True).framework == "xgboost"
    assert loader.load(path).num_boosted_rounds() == 3
    assert loader.load(path, estimator="XGBClassifier").get_booster().num_boosted_rounds() == 3


def test_json_with_spaces_whatever_the_file_is_called(tmp_path: Path) -> None:
    path = put(tmp_path, json.dumps(json.loads(TEXT), indent=1).encode(), "model.bin")
    assert describe_model(source_files(path), load_plugins()).format == "json"


def test_what_the_model_refuses_is_told_without_where_in_its_source() -> None:
    found = predictor(MODEL, {})
    rows = np.full((1, MODEL.num_features()), np.inf, dtype="float32")
    with pytest.raises(ValueError, match="^Input data contains `inf`"):
        found.run({"X": rows})


def test_served_with_no_code() -> None:
    namespace("xgboost").save_model("m", MODEL)
    rows = X[:20].astype("float32")
    assert np.allclose(check_served("m", {"X": rows})["prediction"], MODEL.predict(DATA)[:20])
    several = xgb.train({**OPTIONS, "objective": "multi:softprob", "num_class": 3}, xgb.DMatrix(X, X[:, 2] // 2), 2)
    namespace("xgboost").save_model("several", several)
    assert np.allclose(check_served("several", {"X": rows})["prediction"], several.predict(xgb.DMatrix(X))[:20])
