"""Folders as MLflow writes them, looked at without MLflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from bentotool_mlflow import loader
from bentotool_mlflow.framework import MlflowFramework
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, NotFoundError, UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.interfaces import ModelInfo, TensorSpec
from bentotool.models.api import import_model
from bentotool.testing import check_framework, check_plugin, source_files

BOOSTER = """tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=regression
feature_names=a b
feature_infos=[0:1] [0:1]
tree_sizes=40

Tree=0
num_leaves=1
num_cat=0
leaf_value=0.5


end of trees

parameters:
end of parameters
"""


def native() -> dict[str, Any]:
    """An ``MLmodel`` of MLflow 3 for a LightGBM booster."""
    return {
        "flavors": {
            "lightgbm": {
                "code": None,
                "data": "model.lgb",
                "lgb_version": "4.7.0",
                "model_class": "lightgbm.basic.Booster",
                "serialization_format": "skops",
                "skops_trusted_types": ["os.system"],
            },
            "python_function": {
                "data": "model.lgb",
                "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
                "loader_module": "mlflow.lightgbm",
                "python_version": "3.11.7",
            },
        },
        "mlflow_version": "3.17.2",
        "model_uuid": "b94a5e93f41749eeb797a53e7286dca1",
        "run_id": "d3cf5528a73b4eaeb1b6327f39dbd213",
        "signature": {
            "inputs": json.dumps([{"type": "double", "name": "a", "required": True}, {"type": "long", "name": "b"}]),
            "outputs": json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]),
            "params": json.dumps([{"name": "t", "type": "double", "default": float("nan"), "shape": None}]),
        },
    }


def python_object() -> dict[str, Any]:
    settings = {"loader_module": "mlflow.pyfunc.model", "python_model": "python_model.pkl", "code": "code"}
    return {"flavors": {"python_function": settings}, "mlflow_version": "2.20.0"}


def folder(tmp_path: Path, document: Any, **files: str | bytes) -> Path:
    root = tmp_path / "model"
    root.mkdir(exist_ok=True)
    text = document if isinstance(document, str) else yaml.safe_dump(document)
    content = {"MLmodel": text, "model.lgb": BOOSTER, "requirements.txt": "mlflow==3.17.2\n", **files}
    for name, value in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else value.encode())
    return root


def describe(root: Path) -> ModelInfo:
    framework = MlflowFramework()
    assert framework.detect(source_files(root)), "not detected"
    return framework.describe(source_files(root))


def test_plugin() -> None:
    check_plugin("mlflow")


def test_contract(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (info,) = check_framework("mlflow", [folder(tmp_path, python_object())], scratch=tmp_path / "scratch")
    assert info.safety == "pickle"


def test_what_a_native_model_says(tmp_path: Path) -> None:
    extra = {"python_env.yaml": "python: 3.11.7\n", "input_example.json": "{}", "conda.yaml": "name: x\n"}
    info = describe(folder(tmp_path, native(), **extra))
    assert info.safety == "data"
    assert info.inputs == (TensorSpec("a", "float64", (None,)), TensorSpec("b", "int64", (None,)))
    assert info.outputs == (TensorSpec("output", "float64", (None, 2)),)
    assert info.requirements == ("mlflow==3.17.2",)
    assert info.metadata == {
        "flavors": ["lightgbm", "python_function"],
        "loader_module": "mlflow.lightgbm",
        "mlflow_version": "3.17.2",
        "model_uuid": "b94a5e93f41749eeb797a53e7286dca1",
        "params": [{"name": "t", "type": "float64", "default": "nan"}],
        "python_version": "3.11.7",
        "run_id": "d3cf5528a73b4eaeb1b6327f39dbd213",
    }


def test_without_a_signature_the_format_tells(tmp_path: Path) -> None:
    document = native()
    del document["signature"]
    assert describe(folder(tmp_path, document)).inputs == (TensorSpec("X", "float64", (None, 2)),)


def test_the_folder_stays_whole(tmp_path: Path) -> None:
    model = import_model(folder(tmp_path, native()), "m")
    assert (model.info["framework"], model.info["safety"], model.info["main_file"]) == ("mlflow", "data", "")
    assert sorted(path.name for path in model.path.iterdir()) == ["MLmodel", "model.lgb", "requirements.txt"]


CHANGES: list[tuple[tuple[str, ...], object, str]] = [
    (("flavors", "lightgbm", "model_class"), "lightgbm.sklearn.LGBMClassifier", "has model_class"),
    (("flavors", "lightgbm", "code"), "code", "has code"),
    (("flavors", "lightgbm", "anything"), 1, "has anything"),
    (("flavors", "lightgbm", "data"), "sub/model.lgb", "names no file of the folder"),
    (("flavors", "sklearn"), {"pickled_model": "model.pkl"}, "reads pickles or code"),
    (("flavors", "python_function", "code"), "code", "brings code"),
    (("flavors", "python_function", "python_model"), "python_model.pkl", "has 'python_model'"),
    (("flavors", "python_function", "predict_fn"), "__class__", "predicts by"),
    (("flavors", "python_function", "loader_module"), "mlflow.sklearn", "loaded by mlflow.sklearn"),
    (("flavors", "python_function", "loader_module"), "mlflow.pyfunc.model", "loaded by mlflow.pyfunc.model"),
    (("flavors", "python_function", "data"), "other.lgb", "names no file of the folder"),
]


@pytest.mark.parametrize(("where", "value", "expected"), CHANGES)
def test_what_can_run_code_is_a_pickle(tmp_path: Path, where: tuple[str, ...], value: object, expected: str) -> None:
    document = native()
    table = document
    for part in where[:-1]:
        table = table[part]
    table[where[-1]] = value
    root = folder(tmp_path, document)
    info = describe(root)
    assert info.safety == "pickle"
    assert expected in " ".join(map(str, info.metadata["needs_trust"]))  # type: ignore[arg-type]
    with pytest.raises(UnsafeError, match="runs code when it is loaded: "):
        import_model(root)
    with pytest.raises(loader.UnsafeModelError, match="trust=True"):
        loader.load(root)
    with pytest.raises(loader.UnsafeModelError, match="trust=True"):
        loader.load(root, trust=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["code/evil.py", "model.pkl", "extra", "sub/MLmodel", "artifacts/x.bin"])
def test_a_file_that_nobody_accounts_for_is_a_doubt(tmp_path: Path, name: str) -> None:
    info = describe(folder(tmp_path, native(), **{name: b"\x80\x04N."}))
    assert info.safety == "pickle"
    assert f"{name} is there as well" in info.metadata["needs_trust"]  # type: ignore[operator]


def test_bytes_count_and_not_what_the_document_claims(tmp_path: Path) -> None:
    flavors = {
        "catboost": {"data": "model.cb", "model_type": "CatBoost", "save_format": "cbm"},
        "python_function": {"data": "model.cb", "loader_module": "mlflow.catboost"},
    }
    root = folder(tmp_path, {"flavors": flavors}, **{"model.cb": b"\x80\x04N."})
    (root / "model.lgb").unlink()
    info = describe(root)
    assert info.safety == "pickle"
    assert info.metadata["needs_trust"] == ["model.cb is not a file that plugin catboost takes"]
    damaged = folder(tmp_path, native(), **{"model.lgb": BOOSTER[:-100]})
    with pytest.raises(UsageError, match="is not a valid LightGBM model"):
        describe(damaged)


def test_a_format_without_its_plugin_is_not_vouched_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_DISABLE_PLUGINS", "lightgbm")
    info = describe(folder(tmp_path, native()))
    assert info.safety == "pickle"
    assert "without the plugin bentotool-lightgbm" in str(info.metadata["needs_trust"])


@pytest.mark.parametrize(
    "value", ["os", "subprocess", "mlflow", "mlflow..x", "mlflowx.y", "mlflow.x\n", "../x", "mlflow.X"]
)
def test_only_loaders_of_mlflow_are_let_load(tmp_path: Path, value: str) -> None:
    document = python_object()
    document["flavors"]["python_function"]["loader_module"] = value
    root = folder(tmp_path, document)
    with pytest.raises(UnsafeError, match="not a module of mlflow's"):
        import_model(root, trust=True)
    with pytest.raises(loader.UnsafeModelError, match="not a module of mlflow's"):
        loader.load(root, trust=True)


@pytest.mark.parametrize("value", ["/etc", "..", "../up", "a/../../b", "..\\x", "C:\\x", "~/x"])
@pytest.mark.parametrize("key", ["code", "data", "python_model"])
def test_paths_that_leave_the_folder(tmp_path: Path, key: str, value: str) -> None:
    document = python_object()
    document["flavors"]["python_function"][key] = value
    with pytest.raises(UnsafeError, match="outside the folder"):
        import_model(folder(tmp_path, document), trust=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "names no flavors"),
        ("- 1", "names no flavors"),
        ("flavors: [1]", "names no flavors"),
        ("flavors: {a: 1}", "without settings"),
        ("flavors: {onnx: {data: m.onnx}}", "has no python_function flavor"),
        ("flavors: {python_function: {loader_module: 3}}", "names no loader_module"),
        ("flavors: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("flavors: {", "not valid YAML"),
        ("a: &a [1,1]\nflavors: [*a,*a]", "has aliases"),
        ("flavors: " + "[" * 60 + "]" * 60, "nested too deep"),
        ("flavors: [" + "1," * 200_001 + "]", "too many values"),
        ("# " + "x" * (4 << 20), "more than 4194304 bytes"),
        ("flavors: {python_function: {loader_module: mlflow.x}}\nsignature: {inputs: 3}", "not a list in JSON"),
        ("flavors: {python_function: {loader_module: mlflow.x}}\nsignature: {inputs: '[1]'}", "not a list in JSON"),
        ("flavors: {python_function: {loader_module: mlflow.x}}\nsignature: {params: '{'}", "not a list in JSON"),
        (
            'flavors: {python_function: {loader_module: mlflow.x}}\nsignature: {inputs: \'[{"type": "tensor"}]\'}',
            "says nothing of tensor",
        ),
    ],
)
def test_damaged_documents(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        import_model(folder(tmp_path, text), trust=True)
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith("MLmodel")


def test_requirements_from_elsewhere_are_left_out(tmp_path: Path) -> None:
    lines = [
        "numpy==2.0.0  # why",
        "",
        "--extra-index-url https://evil.example",
        "x @ https://evil.example/x.whl",
        "./y",
    ]
    info = describe(
        folder(tmp_path, native(), **{"requirements.txt": "\n".join([*lines, "-r other.txt", "numpy==2.0.0"])})
    )
    assert info.requirements == ("numpy==2.0.0", "mlflow>=2.10")
    assert info.metadata["requirements_left_out"] == [
        "--extra-index-url https://evil.example",
        "x @ https://evil.example/x.whl",
        "./y",
        "-r other.txt",
    ]


def test_save_takes_a_folder(tmp_path: Path) -> None:
    saved = namespace("mlflow").save_model("m", folder(tmp_path, native()))
    assert saved.info["safety"] == "data"
    with pytest.raises(UsageError, match="is not the path of an MLflow model"):
        namespace("mlflow").save_model("m", object())
    with pytest.raises(NotFoundError, match="there is no MLmodel"):
        namespace("mlflow").save_model("m", tmp_path)
    with pytest.raises(UnsafeError):
        namespace("mlflow").save_model("n", folder(tmp_path, python_object()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutations_end_in_an_answer_or_an_error_of_one_line(tmp_path: Path, data: Any) -> None:
    content = bytearray(yaml.safe_dump(native()).encode())
    for position in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[position] = data.draw(st.integers(0, 255))
    root = folder(tmp_path, native(), MLmodel=bytes(content[: data.draw(st.integers(0, len(content) * 2))]))
    try:
        info = describe(root)
    except BentotoolError as error:
        assert "\n" not in error.message  # noqa: PT017 - most mutations raise, some do not
    else:
        json.dumps(dict(info.metadata), allow_nan=False)


def test_looking_at_a_model_imports_nothing_of_it(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from bentotool.models.detect import describe_model
from bentotool.plugins import load_plugins
from bentotool.testing import source_files
opened = []
sys.addaudithook(lambda event, args: opened.append(args) if event in ("exec", "compile", "subprocess.Popen") else None)
files = source_files(Path(sys.argv[1]))
describe_model(files, load_plugins(), trust=True)
assert not {"mlflow", "lightgbm", "numpy", "pickle", "cloudpickle"} & set(sys.modules)
assert not [args for args in opened if sys.argv[1] in str(args)]
"""
    root = folder(
        tmp_path, python_object(), **{"code/evil.py": "raise SystemExit(9)", "python_model.pkl": b"\x80\x04N."}
    )
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, timeout=60)
