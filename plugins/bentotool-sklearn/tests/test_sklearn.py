from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from bentotool_sklearn import loader
from bentotool_sklearn.framework import SklearnFramework
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from bentotool.errors import BentotoolError, UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import Match, SourceFile, TensorSpec
from bentotool.models.api import import_model
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import check_framework, check_plugin, source_files

X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
Y = np.array([0, 0, 1, 1])
MODEL = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
GOOD = skops.io.dumps(MODEL)


class Canary:
    """What a hostile pickle does: runs a program of the author's choice."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


def files(path: Path) -> list[SourceFile]:
    return [SourceFile(path, path.name)]


def describe(path: Path) -> object:
    framework = SklearnFramework()
    assert framework.detect(files(path))
    return framework.describe(files(path))


def rewrite(schema: dict[str, object]) -> bytes:
    """The good model's archive with another schema.json."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(GOOD)) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, json.dumps(schema) if name == "schema.json" else old.read(name))
    return target.getvalue()


def schema() -> dict[str, object]:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        content: dict[str, object] = json.loads(archive.read("schema.json"))
    return content


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "iris.skops"
    path.write_bytes(GOOD)
    return path


def test_plugin() -> None:
    check_plugin("sklearn")


def test_contract(model: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "iris.joblib"
    joblib.dump(MODEL, pickled)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    safe, unsafe = check_framework("sklearn", [model, pickled], scratch=scratch)
    assert (safe.safety, unsafe.safety) == ("data", "pickle")


def test_description(model: Path) -> None:
    import sklearn

    info = describe(model)
    assert info.inputs == (TensorSpec("X", "float64", (None, 2)),)
    assert info.metadata == {
        "class": "sklearn.pipeline.Pipeline",
        "sklearn_version": sklearn.__version__,
        "n_features_in": 2,
    }
    assert info.requirements[0] == f"scikit-learn=={sklearn.__version__}"


def test_save_load_and_predict() -> None:
    saved = namespace("sklearn").save_model("iris", MODEL, signatures={"predict": {"batchable": True}})
    assert saved.info["safety"] == "data"
    assert saved.info["metadata"]["signatures"] == {"predict": {"batchable": True}}
    loaded = namespace("sklearn").load_model("iris:latest")
    assert (loaded.predict(X) == MODEL.predict(X)).all()
    assert np.array_equal(loaded.predict_proba(X), MODEL.predict_proba(X))


def test_the_same_model_has_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from bentotool_sklearn.framework import SklearnFramework
junk = [object() for _ in range(int(sys.argv[2]))]  # other addresses
X, Y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
model = make_pipeline(StandardScaler(), RandomForestClassifier(5, random_state=0)).fit(X, Y)
SklearnFramework().save(model, Path(sys.argv[1]))
"""
    saved = []
    for number in (1, 5000):
        folder = tmp_path / str(number)
        folder.mkdir()
        subprocess.run([sys.executable, "-c", code, str(folder), str(number)], check=True, timeout=120)
        saved.append((folder / "model.skops").read_bytes())
    assert saved[0] == saved[1]
    path = tmp_path / "1" / "model.skops"
    assert loader.load(path).predict([[0.0, 1.0]]).shape == (1,)


@pytest.mark.parametrize("thing", [{"a": 1}, LogisticRegression, "text"])
def test_only_estimators_are_saved(tmp_path: Path, thing: object) -> None:
    with pytest.raises(UsageError, match="is not a scikit-learn estimator"):
        SklearnFramework().save(thing, tmp_path)


@pytest.mark.parametrize("suffix", [".joblib", ".pkl", ".pickle", ".bin"])
def test_pickles_are_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(pickle.dumps(Canary()))
    with pytest.raises(UnsafeError, match="is a pickle") as caught:
        import_model(path)
    assert caught.value.exit_status == 6
    with pytest.raises(loader.UnsafeModelError):
        loader.load(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("xz", 3), ("bz2", 3)])
def test_a_trusted_joblib_file(tmp_path: Path, compress: object) -> None:
    path = tmp_path / "iris.joblib"
    joblib.dump(MODEL, path, compress=compress)
    with pytest.raises(UnsafeError):
        import_model(path)
    import_model(path, "iris", trust=True)
    with pytest.raises(UnsafeError, match=r"iris:\w+ is a pickle"):
        namespace("sklearn").load_model("iris")
    with pytest.raises(loader.UnsafeModelError):
        loader.load(path, trust="false")
    assert (namespace("sklearn").load_model("iris", trust=True).predict(X) == MODEL.predict(X)).all()


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ({"__module__": "os", "__class__": "system"}, "os.system"),
        ({"__module__": "builtins", "__class__": "eval"}, "builtins.eval"),
        ({"__module__": "sklearnx.evil", "__class__": "Model"}, "sklearnx.evil.Model"),
        ({"__loader__": "OperatorFuncNode"}, "OperatorFuncNode"),
        ({"__loader__": "MethodNode"}, "MethodNode"),
        ({"__loader__": "PartialNode"}, "PartialNode"),
        ({"__loader__": "ConstructorFromReduceNode"}, "ConstructorFromReduceNode"),
        ({"__loader__": 7}, "(7)"),
    ],
)
def test_foreign_types_make_it_a_pickle(tmp_path: Path, node: dict[str, object], expected: str) -> None:
    changed = schema()
    inner = {"__class__": "str", "__module__": "builtins", "__loader__": "TypeNode", "__id__": 1, **node}
    changed["content"]["content"]["memory"] = inner  # type: ignore[index]
    path = tmp_path / "evil.skops"
    path.write_bytes(rewrite(changed))
    info = describe(path)
    assert info.safety == "pickle"
    assert any(expected in name for name in info.metadata["unknown_types"])
    assert any(expected in reason for reason in info.metadata["needs_trust"])
    with pytest.raises(UnsafeError, match="runs code when it is loaded: it holds ") as caught:
        import_model(path)
    assert "not known to be safe" in caught.value.message


def test_types_that_skops_does_not_know_need_trust_in_code(tmp_path: Path) -> None:
    """Our check and skops' own both have to pass."""
    path = tmp_path / "f.skops"
    skops.io.dump(make_pipeline(FunctionTransformer(os.path.join)), path)
    with pytest.raises(loader.UnsafeModelError, match="join") as caught:
        loader.load(path)
    assert caught.value.unsafe
    assert loader.load(path, trust=True).steps[0][1].func is os.path.join


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "damaged"),
        (b"no archive", "damaged"),
        (GOOD[: len(GOOD) // 2], "damaged"),
        (rewrite([]), "describes no object"),  # type: ignore[arg-type]
        (rewrite({"__class__": 3, "__module__": "x"}), "describes no object"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "iris.skops"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=expected) as caught:
        describe(path)
    assert caught.value.message.startswith("iris.skops is not a valid skops file: ")


def test_an_archive_without_schema(tmp_path: Path) -> None:
    path = tmp_path / "iris.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.json", "{}")
    with pytest.raises(UsageError, match=r"no schema\.json"):
        describe(path)
    path = path.rename(tmp_path / "some.zip")
    assert SklearnFramework().detect(files(path)) is None


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader.schema, "MAX_UNPACKED", 1 << 20)
    path = tmp_path / "bomb.skops"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", json.dumps(schema()))
        archive.writestr("1.npy", bytes(8 << 20))
    with pytest.raises(UsageError, match="would unpack to"):
        describe(path)
    monkeypatch.setattr(loader.schema, "MAX_SCHEMA", 1000)
    path.write_bytes(GOOD)
    with pytest.raises(UsageError, match=r"schema\.json is larger than"):
        describe(path)


def test_deep_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.skops"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("schema.json", "[" * 200_000)
    with pytest.raises(UsageError, match="is not JSON"):
        describe(path)


def test_another_name_is_recognised_by_structure(model: Path) -> None:
    other = model.rename(model.with_name("model.bin"))
    assert SklearnFramework().detect(files(other)) == Match("sklearn", "skops", 0.9, "model.bin")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cut=st.integers(1, len(GOOD)),
    changes=st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), max_size=8),
)
def test_mutations_end_in_an_answer_or_an_error_of_one_line(
    tmp_path: Path, cut: int, changes: list[tuple[int, int]]
) -> None:
    content = bytearray(GOOD)
    for position, value in changes:
        content[position] = value
    path = tmp_path / "fuzz.skops"
    path.write_bytes(content[:cut])
    try:
        describe(path)
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not


def test_looking_at_a_model_imports_no_framework(model: Path) -> None:
    code = """
import sys
from pathlib import Path
from bentotool.interfaces import SourceFile
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
path = Path(sys.argv[1])
describe_model([SourceFile(path, path.name)], load_plugins())
assert not {"sklearn", "skops", "numpy", "joblib", "pickle"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(model)], check=True, timeout=60)


def test_a_crafted_zip_is_not_ours_and_no_crash(tmp_path: Path) -> None:
    """An archive that claims to span disks makes ``zipfile.is_zipfile`` itself raise."""
    end = b"PK\x05\x06" + b"\x00" * 18
    locator = b"PK\x06\x07" + b"\x01\x00\x00\x00" + b"\x00" * 8 + b"\x09\x00\x00\x00"
    for content in (b"PK\x03\x04" + b"\x00" * 100 + locator + end, locator + end):
        path = tmp_path / "model.bin"
        path.write_bytes(content)
        assert SklearnFramework().detect([SourceFile(path, path.name)]) is None


@pytest.mark.parametrize("name", ["model", "model.bin", "model.onnx", "model.pkl", "model.joblib", "model.zip"])
def test_whatever_the_file_is_called(model: Path, name: str) -> None:
    path = model.rename(model.with_name(name))
    (path.parent / "README.md").write_text("# A model", encoding="utf-8")
    info = describe_model(source_files(path.parent), load_plugins())
    assert (info.format, info.safety, info.main_file) == ("skops", "data", name)
    assert loader.load(path).predict(X).tolist() == Y.tolist()


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
@pytest.mark.parametrize("name", ["model.joblib", "model.bin", "model.onnx"])
def test_a_compressed_pickle_is_one_whatever_it_is_called(tmp_path: Path, compress: object, name: str) -> None:
    joblib.dump(MODEL, tmp_path / name, compress=compress)
    info = describe_model(source_files(tmp_path / name), load_plugins(), trust=True)
    assert (info.framework, info.format, info.safety) == ("sklearn", "pickle", "pickle")
