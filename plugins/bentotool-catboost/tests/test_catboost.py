from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bentotool_catboost import loader
from bentotool_catboost.framework import CatboostFramework
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
catboost = pytest.importorskip("catboost")

CHANCE = np.random.default_rng(0)
NUMBERS = CHANCE.normal(size=(200, 2))
KINDS = CHANCE.integers(0, 6, 200).astype(str)
X = np.column_stack([NUMBERS.astype(object), KINDS.astype(object)])
Y = ((NUMBERS[:, 0] > 0) ^ np.isin(KINDS, ["1", "4"])).astype(int)
OPTIONS = {"iterations": 3, "depth": 2, "thread_count": 1, "verbose": False, "allow_writing_files": False}
POOL = catboost.Pool(X, Y, cat_features=[2], feature_names=["a", "b", "kind"])


def trained(kind: str, data: Any, target: Any = None, **options: Any) -> Any:
    return getattr(catboost, kind)(**{**OPTIONS, **options}).fit(data, target)


CATEGORIES = trained("CatBoostClassifier", POOL, one_hot_max_size=2, simple_ctr=["Borders", "Counter"])
ONE_HOT = trained("CatBoostClassifier", POOL, one_hot_max_size=10)
SEVERAL = trained("CatBoostClassifier", NUMBERS, KINDS, depth=3)
LEAFWISE = trained("CatBoostRegressor", NUMBERS, NUMBERS[:, 0] * 3, grow_policy="Lossguide")
PAIR = trained("CatBoostRegressor", NUMBERS, NUMBERS, loss_function="MultiRMSE")
MODELS = {"categories": CATEGORIES, "one_hot": ONE_HOT, "several": SEVERAL, "leafwise": LEAFWISE, "pair": PAIR}


def written(tmp_path: Path, name: str, format: str = "cbm") -> Path:
    path = tmp_path / f"{name}.{format}"
    MODELS[name].save_model(str(path), format=format, pool=POOL if name in ("categories", "one_hot") else None)
    return path


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("samples")
    return {f"{name}.{form}": written(folder, name, form).read_bytes() for name in MODELS for form in ("cbm", "json")}


def put(tmp_path: Path, content: bytes, name: str = "model.cbm") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def describe(path: Path) -> ModelInfo:
    framework = CatboostFramework()
    assert framework.detect(source_files(path)), "not detected"
    return framework.describe(source_files(path))


def test_plugin() -> None:
    check_plugin("catboost")


def test_contract(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    paths = [written(tmp_path, name, form) for form in ("cbm", "json") for name in MODELS]
    infos = check_framework("catboost", paths, scratch=tmp_path / "scratch")
    binary, text = infos[: len(MODELS)], infos[len(MODELS) :]
    assert [(info.inputs, info.outputs, info.metadata) for info in binary] == [
        (info.inputs, info.outputs, info.metadata) for info in text
    ]
    assert {info.safety for info in infos} == {"data"}
    categories, one_hot, several, leafwise, pair = binary
    assert categories.inputs == (TensorSpec("X", "object", (None, 3)),)
    assert categories.metadata["features"] == one_hot.metadata["features"] == ["a", "b", "kind"]
    assert categories.metadata["categories"] == [2]
    assert categories.metadata["classes"] == [0, 1]
    assert categories.metadata["catboost_version"] == catboost.__version__
    assert several.inputs == (TensorSpec("X", "float32", (None, 2)),)
    assert several.metadata["classes"] == ["0", "1", "2", "3", "4", "5"]
    assert (leafwise.metadata["symmetric"], leafwise.metadata["trees"]) == (False, 3)
    assert [info.metadata["loss"] for info in binary] == ["Logloss", "Logloss", "MultiClass", "RMSE", "MultiRMSE"]
    assert pair.outputs == (TensorSpec("prediction", "float64", (None, 2)),)


@pytest.mark.parametrize("form", ["cbm", "json"])
@pytest.mark.parametrize("name", list(MODELS))
def test_predictions_are_those_of_the_model_and_of_the_signature(tmp_path: Path, name: str, form: str) -> None:
    path = written(tmp_path, name, form)
    info = describe(path)
    loaded = loader.load(path)
    assert type(loaded).__name__ == info.metadata["estimator"] == type(MODELS[name]).__name__
    data = X if info.inputs[0].dtype == "object" else NUMBERS
    found, expected = loaded.predict(data), MODELS[name].predict(data)
    assert np.array_equal(found, expected) if found.dtype.kind in "iUO" else np.allclose(found, expected)
    (output,) = info.outputs
    assert output.shape == (None, *found.shape[1:])
    assert output.dtype == ("str" if found.dtype.kind in "UO" else str(found.dtype))


def test_save_and_load_keep_the_class() -> None:
    names = namespace("catboost")
    assert names.save_model("m", CATEGORIES).info["safety"] == "data"
    assert np.array_equal(names.load_model("m").predict_proba(X), CATEGORIES.predict_proba(X))
    plain = catboost.CatBoost({**OPTIONS, "loss_function": "Logloss"}).fit(NUMBERS, Y)
    names.save_model("plain", plain)
    assert type(names.load_model("plain")) is catboost.CatBoost
    assert np.array_equal(names.load_model("plain").predict(NUMBERS), plain.predict(NUMBERS))
    assert names.get("plain").info["metadata"]["estimator"] == "CatBoost"
    assert type(names.load_model("plain", estimator="CatBoostClassifier")).__name__ == "CatBoostClassifier"
    with pytest.raises(ValueError, match="is none of"):
        names.load_model("m", estimator="sum_models")


@pytest.mark.parametrize("thing", ["text", {}, catboost.CatBoost, CATEGORIES.predict])
def test_only_models_are_saved(tmp_path: Path, thing: object) -> None:
    with pytest.raises(UsageError, match="is not a CatBoost model"):
        CatboostFramework().save(thing, tmp_path)
    with pytest.raises(UsageError, match="is not fitted"):
        CatboostFramework().save(catboost.CatBoostRegressor(), tmp_path)


def test_texts_and_embeddings(tmp_path: Path) -> None:
    words = np.array(["red blue", "green red", "blue", "green"], dtype=object)[CHANCE.integers(0, 4, 200)]
    rows = [[word, float(number)] for word, number in zip(words, NUMBERS[:, 0], strict=True)]
    model = trained("CatBoostClassifier", catboost.Pool(rows, Y, text_features=[0]))
    path = tmp_path / "text.cbm"
    model.save_model(str(path))
    info = describe(path)
    assert (info.inputs[0].dtype, info.metadata["texts"]) == ("object", [0])
    assert np.array_equal(loader.load(path).predict(rows), model.predict(rows))
    content = path.read_bytes()
    core = 8 + struct.unpack_from("<I", content, 4)[0]
    with pytest.raises(UsageError, match="is missing"):
        describe(put(tmp_path, content[:core]))
    vectors = [[list(row), 1.0] for row in NUMBERS]
    model = trained("CatBoostClassifier", catboost.Pool(vectors, Y, embedding_features=[0]))
    model.save_model(str(path))
    assert describe(path).metadata["embeddings"] == [0]


def field(content: bytes, sizes: tuple[int, ...]) -> int:
    """Where a vector of these whole numbers lies in a model's core."""
    found = content.find(struct.pack(f"<{len(sizes) + 1}I", len(sizes), *sizes))
    assert found > 0
    return found + 4


def test_hostile_numbers_of_trees(tmp_path: Path, samples: dict[str, bytes]) -> None:
    content = samples["several.cbm"]
    sizes, starts = field(content, (3, 3, 3)), field(content, (0, 3, 6))
    splits = json.loads(samples["several.json"])["oblivious_trees"]
    chosen = field(content, tuple(split["split_index"] for tree in splits for split in tree["splits"]))
    for at, value, expected in (
        (sizes, 25, "starts at split|depth of trees"),
        (sizes, -1, "starts at split"),
        (sizes + 8, 2, "take 8 splits of 9"),
        (starts + 4, 2**31 - 1, "starts at split 2147483647"),
        (chosen, 10**6, "splits has a value outside 0 to"),
        (chosen, -1, "splits has a value outside 0 to"),
        (4, 2**32 - 2, "a part of 4294967294 bytes is stated"),
        (4, 2**32 - 1, "are left"),
        (8, 2**31, "is looked for in a buffer of"),
    ):
        damaged = bytearray(content)
        struct.pack_into("<I", damaged, at, value % 2**32)
        with pytest.raises(UsageError, match=expected) as caught:
            import_model(put(tmp_path, bytes(damaged)))
        assert caught.value.message.startswith("model.cbm is not a valid CatBoost model: ")


def test_hostile_tables_of_categories(tmp_path: Path, samples: dict[str, bytes]) -> None:
    content = samples["categories.cbm"]
    core = 8 + struct.unpack_from("<I", content, 4)[0]
    empty = content.find(b"\xff" * 8 + bytes(4), core)
    assert empty > core
    filled = content[:core] + content[core:].replace(b"\xff" * 8 + bytes(4), b"\1" * 8 + bytes(4))
    with pytest.raises(UsageError, match="no empty bucket"):
        describe(put(tmp_path, filled))
    far = bytearray(content)
    far[empty : empty + 12] = b"\1" * 8 + struct.pack("<I", 10**6)
    with pytest.raises(UsageError, match="leads to value 1000000 of"):
        describe(put(tmp_path, bytes(far)))
    with pytest.raises(UsageError, match="cut short"):
        describe(put(tmp_path, content[:core]))
    with pytest.raises(UsageError, match="is missing"):
        describe(put(tmp_path, content[:core] + bytes(4)))
    with pytest.raises(UsageError, match="1 bytes follow"):
        describe(put(tmp_path, content + b"x"))


def test_kinds_of_tables_below_zero(tmp_path: Path, samples: dict[str, bytes]) -> None:
    """A kind is a signed byte: each that may be one (4 is a counter) is tried."""
    content = samples["categories.cbm"]
    refused = 0
    for at in (at for at, value in enumerate(content) if value == 4):
        try:
            describe(put(tmp_path, content[:at] + b"\x84" + content[at + 1 :]))
        except UsageError:
            refused += 1
    assert refused


def test_hostile_nodes(tmp_path: Path, samples: dict[str, bytes]) -> None:
    content = samples["leafwise.cbm"]
    at = content.find(struct.pack("<4H", 1, 2, 3, 4))
    at = at if at > 0 else content.find(struct.pack("<2H", 1, 4))
    assert at > 0
    damaged = bytearray(content)
    struct.pack_into("<H", damaged, at, 60000)
    with pytest.raises(UsageError, match="leads out of its tree"):
        describe(put(tmp_path, bytes(damaged)))


@pytest.mark.parametrize(
    ("sample", "where", "value", "expected"),
    [
        ("several", ("features_info",), [], "has no 'features_info'"),
        ("several", ("features_info", "float_features", 0, "feature_index"), 1, "out of order"),
        ("several", ("features_info", "float_features", 0, "flat_feature_index"), 1, "have one place"),
        ("several", ("features_info", "float_features", 0, "flat_feature_index"), 10**9, "outside the input"),
        ("several", ("features_info", "float_features", 0, "feature_id"), 3, "no text"),
        ("several", ("features_info", "float_features", 0, "borders"), [], "splits by"),
        ("several", ("features_info", "float_features", 0, "borders"), ["x"], "no number"),
        ("several", ("oblivious_trees",), {}, "no list 'oblivious_trees'"),
        ("several", ("oblivious_trees", 0, "leaf_values"), [1.0], "has 1 values"),
        ("several", ("oblivious_trees", 0, "splits", 0, "split_index"), -1, "splits by -1 of"),
        ("several", ("oblivious_trees", 0, "splits", 0, "split_index"), 10**9, "splits by 1000000000 of"),
        ("several", ("scale_and_bias",), [1], "not a number and a list"),
        ("several", ("scale_and_bias",), [1, [0, 0]], "biases are not as many"),
        ("several", ("model_info",), [], "model_info is no object"),
        ("several", ("model_info", "params"), "{", "params are not JSON"),
        ("several", ("model_info", "class_params", "class_to_label", 4), 2**31 - 1, "lead to class 2147483647 of 6"),
        ("several", ("model_info", "class_params", "class_to_label", 4), -1, "lead to class -1 of 6"),
        ("several", ("model_info", "class_params", "class_to_label"), 4, "no list"),
        ("several", ("model_info", "class_params", "class_names"), ["a"], "lead to class 1 of 1"),
        ("several", ("model_info", "class_params", "classes_count"), "4", "state '4' classes"),
        ("several", ("model_info", "class_params", "classes_count"), 2**31 - 1, "state 2147483647 classes"),
        ("leafwise", ("trees", 0, "left"), None, "no object"),
        ("leafwise", ("trees", 0, "left"), {"value": "x"}, "no number"),
        ("leafwise", ("trees", 0, "left"), {"value": [1.0, 2.0]}, "as many values each"),
        ("leafwise", ("trees", 0, "split", "split_index"), 10**6, "splits by 1000000 of"),
        ("categories", ("ctr_data",), {}, "is missing"),
        ("categories", ("ctr_data",), {'{"type":"Counter"}': {"hash_stride": 0, "hash_map": []}}, "0 values by 0"),
        ("categories", ("features_info", "ctrs", 0, "ctr_type"), "Buckets", "does not fit"),
    ],
)
def test_hostile_documents(
    tmp_path: Path, samples: dict[str, bytes], sample: str, where: tuple[Any, ...], value: object, expected: str
) -> None:
    document = json.loads(samples[f"{sample}.json"])
    table = document
    for part in where[:-1]:
        table = table[part]
    table[where[-1]] = value
    with pytest.raises(UsageError, match=expected) as caught:
        import_model(put(tmp_path, json.dumps(document).encode(), "model.json"))
    assert caught.value.message.startswith("model.json is not a valid CatBoost model: ")


def test_damaged_json(tmp_path: Path, samples: dict[str, bytes]) -> None:
    content = samples["several.json"]
    for damaged in (content[: len(content) // 2], b'{"trees":' + b"[" * 200_000):
        with pytest.raises(UsageError, match="is not JSON|nested too deep"):
            describe(put(tmp_path, damaged, "model.json"))


def test_other_json_is_not_ours(tmp_path: Path) -> None:
    assert CatboostFramework().detect(source_files(put(tmp_path, b'{"learner": {}}', "model.json"))) is None


@pytest.mark.parametrize("record", [b"{", b"[]", b'{"estimator": "Pool"}', b'{"estimator": ["CatBoost"]}', b" " * 5000])
def test_a_record_that_names_no_class(tmp_path: Path, samples: dict[str, bytes], record: bytes) -> None:
    put(tmp_path, samples["several.cbm"])
    put(tmp_path, record, "estimator.json")
    with pytest.raises(UsageError, match="names none of"):
        CatboostFramework().describe(source_files(tmp_path))


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_end_in_an_answer_or_an_error_of_one_line(
    tmp_path: Path, samples: dict[str, bytes], data: Any
) -> None:
    name = data.draw(st.sampled_from(sorted(samples)))
    content = bytearray(samples[name])
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=8)):
        content[position] = data.draw(st.integers(0, 255))
    path = put(tmp_path, bytes(content[: data.draw(st.integers(0, len(content) * 2))]), name)
    framework = CatboostFramework()
    try:
        if framework.detect(source_files(path)):
            framework.describe(source_files(path))
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


def test_looking_at_a_model_imports_no_catboost(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import source_files
describe_model(source_files(Path(sys.argv[1])), load_plugins())
assert not {"catboost", "numpy", "pickle"} & set(sys.modules)
"""
    path = written(tmp_path, "categories")
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)


@pytest.mark.parametrize("name", ["model", "model.bin", "model.onnx", "model.ubj", "model.pkl"])
@pytest.mark.parametrize("format", ["cbm", "json"])
def test_whatever_the_file_is_called(tmp_path: Path, samples: dict[str, bytes], format: str, name: str) -> None:
    path = put(tmp_path, samples[f"categories.{format}"], name)
    info = describe_model(source_files(path), load_plugins(), trust=True)
    assert (info.framework, info.format) == ("catboost", format)
    assert loader.load(path).tree_count_ == 3


@pytest.mark.parametrize("name", ["several", "leafwise", "pair"])
def test_served_with_no_code(name: str) -> None:
    namespace("catboost").save_model("m", MODELS[name])
    found = check_served("m", {"X": NUMBERS[:20].astype("float32")})
    expected = MODELS[name].predict(NUMBERS)[:20]
    assert found["prediction"] == expected.tolist() if name == "several" else np.allclose(found["prediction"], expected)
    if name == "several":
        assert np.allclose(found["probabilities"], MODELS[name].predict_proba(NUMBERS)[:20])


def test_categories_have_no_place_in_an_array() -> None:
    namespace("catboost").save_model("m", CATEGORIES)
    with pytest.raises(UsageError, match="cannot be served without code: it takes categories"):
        check_served("m", {"X": NUMBERS})
