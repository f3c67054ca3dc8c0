"""What a model is, its bytes say: whatever its file is called, and whatever lies beside it."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.errors import UnsafeError, UsageError
from bentotool.models.detect import describe_model
from bentotool.plugins import Plugins, load_plugins
from bentotool.testing import source_files

ONNX = Path(__file__).parents[2] / "templates" / "quickstart" / "iris.onnx"
# of every first-party plugin, and none
NAMES = (
    *("model", "model.bin", "model.onnx", "model.safetensors", "model.gguf", "model.pt", "model.pkl", "model.joblib"),
    *("model.skops", "model.ubj", "model.json", "model.cbm", "model.lgb", "model.tflite", "model.h5", "model.pb"),
)


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(8)


def gguf() -> bytes:
    key, value = b"general.architecture", b"llama"
    entry = struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(value)) + value
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + entry


def state_dict() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(OrderedDict(), protocol=2))
        archive.writestr("archive/version", "3\n")
    return out.getvalue()


def unnamed_onnx() -> bytes:
    """Without its producer's name and version, as writers may leave them out."""
    content = ONNX.read_bytes()
    while content[2] in (0x12, 0x1A):
        content = content[:2] + content[4 + content[3] :]
    return content


MODELS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "onnx": (ONNX.read_bytes, "onnx", "data"),
    "onnx-unnamed": (unnamed_onnx, "onnx", "data"),
    "safetensors": (safetensors, "safetensors", "data"),
    "gguf": (gguf, "gguf", "data"),
    "torch": (state_dict, "state_dict", "data"),
    "pickle": (lambda: pickle.dumps({"a": [1, 2]}), "pickle", "pickle"),
}


@pytest.fixture
def plugins(require_package: Callable[[str], None]) -> Plugins:
    for name in ("onnx", "huggingface", "torch", "sklearn", "picklable", "xgboost", "lightgbm", "catboost"):
        require_package(f"bentotool_{name}")
    return load_plugins()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", MODELS)
def test_the_name_of_a_file_decides_nothing(tmp_path: Path, plugins: Plugins, kind: str, name: str) -> None:
    content, format, safety = MODELS[kind]
    (tmp_path / name).write_bytes(content())
    info = describe_model(source_files(tmp_path / name), plugins, trust=True)
    assert (info.format, info.safety, info.main_file) == (format, safety, name)


@pytest.mark.parametrize("kind", MODELS)
def test_among_other_files(tmp_path: Path, plugins: Plugins, kind: str) -> None:
    content, format, safety = MODELS[kind]
    (tmp_path / "weights.bin").write_bytes(content())
    (tmp_path / "README.md").write_text("# A model\n", encoding="utf-8")
    (tmp_path / "labels.json").write_text('["a", "b"]', encoding="utf-8")
    info = describe_model(source_files(tmp_path), plugins, trust=True)
    assert (info.format, info.safety, info.main_file) == (format, safety, "weights.bin")


def test_a_name_breaks_a_tie_between_formats_without_a_signature(tmp_path: Path, plugins: Plugins) -> None:
    for name in ("model.onnx", "other.bin"):
        (tmp_path / name).write_bytes(ONNX.read_bytes())
    assert describe_model(source_files(tmp_path), plugins).main_file == "model.onnx"


def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps([1]))
    with pytest.raises(UnsafeError, match="is a pickle"):
        describe_model(source_files(tmp_path / "model.safetensors"), plugins)


def test_what_nobody_knows_is_told_as_a_damaged_file_of_its_name(tmp_path: Path, plugins: Plugins) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing that a plugin knows")
    with pytest.raises(UsageError, match=r"model\.onnx is not a valid ONNX model"):
        describe_model(source_files(tmp_path / "model.onnx"), plugins)


def skops() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("schema.json", '{"__class__": "Ridge", "__module__": "sklearn", "_skops_version": "1"}')
    return out.getvalue()


DAMAGED: dict[str, bytes] = {
    "model.onnx": ONNX.read_bytes(),
    "model.safetensors": safetensors(),
    "model.gguf": gguf(),
    "model.pt": state_dict(),
    "model.skops": skops(),
    "model.tflite": b"\x1c\0\0\0TFL3" + bytes(40),
    "model.keras": skops(),
    "model.ubj": b"{L\0\0\0\0\0\0\0\x07learner{" + bytes(40),
    "model.json": b'{"learner": {"objective": {"name": "x"}}}',
    "model.cbm": b"CBM1" + bytes(40),
    "model.lgb": b"tree\nversion=v4\nnum_class=1\n",
    "saved_model.pb": b"\x08\x01\x12\x40" + bytes(64),
    "MLmodel": b"flavors:\n  python_function:\n    loader_module: [",
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_is_wrong_usage_whatever_its_format(
    tmp_path: Path, plugins: Plugins, require_package: Callable[[str], None], name: str, capsys: Any
) -> None:
    """Status 2 for a file that is no model: what was given is wrong, whichever plugin says so."""
    for package in ("bentotool_tensorflow", "bentotool_mlflow"):
        require_package(package)
    content = DAMAGED[name]
    for cut in (len(content) // 4, len(content) // 2, len(content) - 2):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / name).write_bytes(content[:cut])
        capsys.readouterr()
        assert main(["model", "import", str(folder if name == "MLmodel" else folder / name), "--name", "m"]) == 2
        error, hint = capsys.readouterr().err.strip().splitlines()
        assert error.startswith("error: ")
        assert name in error
        assert hint.startswith("hint: ")
