from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bentotool_lightgbm.framework import LightgbmFramework
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
lgb = pytest.importorskip("lightgbm")
pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")]

CHANCE = np.random.default_rng(0)
X = np.column_stack([CHANCE.normal(size=(200, 2)), CHANCE.integers(0, 6, 200)])
Y = ((X[:, 0] > 0) ^ np.isin(X[:, 2], [1, 4])).astype(int)
OPTIONS = {"objective": "binary", "verbose": -1, "num_leaves": 5, "min_data_per_group": 1, "cat_smooth": 1}
MODEL = lgb.train(
    {**OPTIONS, "max_cat_to_onehot": 1, "num_threads": 1},
    lgb.Dataset(X, Y, feature_name=["a", "b", "kind"], categorical_feature=[2]),
    3,
)
GOOD = MODEL.model_to_string().encode() + b"\n"


def put(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "model.txt"
    path.write_bytes(content)
    return path


def describe(path: Path) -> ModelInfo:
    framework = LightgbmFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


def test_plugin() -> None:
    check_plugin("lightgbm")


def test_contract(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    several = lgb.train(
        {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}, lgb.Dataset(X, X[:, 2] // 2), 2
    )
    several.save_model(tmp_path / "several.txt")
    one, three = check_framework(
        "lightgbm", [put(tmp_path, GOOD), tmp_path / "several.txt"], scratch=tmp_path / "scratch"
    )
    assert one.inputs == (TensorSpec("X", "float64", (None, 3)),)
    assert one.metadata["features"] == ["a", "b", "kind"]
    assert one.metadata["trees"] == 3
    assert (one.safety, one.outputs[0].shape, three.outputs[0].shape) == ("data", (None,), (None, 3))


def test_save_load_and_predict() -> None:
    assert namespace("lightgbm").save_model("m", MODEL).info["safety"] == "data"
    assert np.array_equal(namespace("lightgbm").load_model("m:latest").predict(X), MODEL.predict(X))


def test_an_estimator_is_saved_as_its_booster() -> None:
    pytest.importorskip("sklearn")
    estimator = lgb.LGBMClassifier(n_estimators=2, verbose=-1, n_jobs=1).fit(X, Y)
    namespace("lightgbm").save_model("m", estimator)
    assert np.allclose(namespace("lightgbm").load_model("m").predict(X), estimator.predict_proba(X)[:, 1])


@pytest.mark.parametrize("thing", ["text", {}, MODEL.predict])
def test_only_models_are_saved(tmp_path: Path, thing: object) -> None:
    with pytest.raises(UsageError, match="is not a LightGBM model"):
        LightgbmFramework().save(thing, tmp_path)


def line(key: str) -> str:
    return next(text for text in GOOD.decode().splitlines() if text.startswith(f"{key}="))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("max_feature_idx", "7", "names 3 features and states 8"),
        ("max_feature_idx", "-1", "not a number"),
        ("num_tree_per_iteration", "0", "no tree for an iteration"),
        ("num_tree_per_iteration", "2", "has 3 trees and states 3, 2 for an iteration"),
        ("tree_sizes", "1 2", "has 3 trees and states 2"),
        ("num_leaves", "99999999999", "not a number up to"),
        ("num_leaves", "0", "has no leaf"),
        ("num_leaves", "900", "leaf_value has 5 values and needs 900"),
        ("split_feature", "0 0 0 3", "split_feature has a value outside 0 to 2"),
        ("split_feature", "0 0 0 -1", "split_feature has a value outside 0 to 2"),
        ("left_child", "0 1 2 3", "no node below it"),
        ("left_child", "1 1 2 3", "no node below it"),
        ("left_child", "1 2 3 -9", "left_child has a value outside -5 to 3"),
        ("left_child", "1 2 3 9", "left_child has a value outside -5 to 3"),
        ("decision_type", "1 1 1 1", "splits by category set"),
        ("num_cat", "1000", "cat_boundaries has"),
        ("cat_boundaries", "0 99", "tree"),
        ("leaf_value", "a b c d e", "no number"),
        ("split_feature", "0 0 0 0_1", "split_feature has a value that is no number"),
        ("split_feature", "0\t0\t0\t0", "split_feature has 1 values and needs 4"),
        ("split_feature", "0 " * 100, "split_feature has more values than 4"),
        ("is_linear", "1", "linear trees"),
    ],
)
def test_hostile_numbers(tmp_path: Path, key: str, value: str, expected: str) -> None:
    path = put(tmp_path, GOOD.replace(line(key).encode(), f"{key}={value}".encode(), 1))
    with pytest.raises(UsageError, match=expected) as caught:
        import_model(path)
    assert caught.value.message.startswith("model.txt is not a valid LightGBM model: ")


def test_the_sample_has_categories() -> None:
    assert b"cat_threshold=" in GOOD


def test_a_file_cut_short(tmp_path: Path) -> None:
    for share in (0.01, 0.1, 0.3):
        with pytest.raises(UsageError, match="cut short|needs|repeats|stated|states"):
            describe(put(tmp_path, GOOD[: int(len(GOOD) * share)].ljust(20)))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(0, len(GOOD) * 2),
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8),
)
def test_mutations_end_in_an_answer_or_an_error_of_one_line(
    tmp_path: Path, cut: int, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(GOOD)
    for position, value in changes:
        content[position] = value
    path = put(tmp_path, bytes(content[:cut]))
    framework = LightgbmFramework()
    try:
        if framework.detect(source_files(path)):
            framework.describe(source_files(path))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


def test_looking_at_a_model_imports_no_lightgbm(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import source_files
describe_model(source_files(Path(sys.argv[1])), load_plugins())
assert not {"lightgbm", "numpy", "pickle"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(put(tmp_path, GOOD))], check=True, timeout=60)


@pytest.mark.parametrize("name", ["model", "model.bin", "model.onnx", "model.json", "model.pkl"])
def test_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(GOOD)
    info = describe_model(source_files(tmp_path / name), load_plugins(), trust=True)
    assert (info.framework, info.main_file) == ("lightgbm", name)


def test_served_with_no_code() -> None:
    namespace("lightgbm").save_model("m", MODEL)
    assert np.allclose(check_served("m", {"X": X[:20]})["prediction"], MODEL.predict(X)[:20])
