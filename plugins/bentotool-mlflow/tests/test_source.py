"""``mlflow:FOLDER``, and what is said where there is no client; no network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bentotool_mlflow.source import MlflowSource

from bentotool.errors import MissingDependencyError, NotFoundError, UnsafeError, UsageError
from bentotool.interfaces import SourceModel, SourceRequest
from bentotool.models.api import import_model

MLMODEL = "flavors: {python_function: {loader_module: mlflow.pyfunc.model, python_model: m.pkl}}\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "my model"
    (root / "sub").mkdir(parents=True)
    (root / "MLmodel").write_text(MLMODEL)
    (root / "m.pkl").write_bytes(b"\x80\x04N.")
    (root / "sub" / "x").write_text("x")
    return root


def fetch(tmp_path: Path, uri: str, max_bytes: int = 1 << 30, checksum: str | None = None) -> SourceModel:
    room = tmp_path / "room"
    room.mkdir(exist_ok=True)
    return MlflowSource().fetch(SourceRequest(uri, room, max_bytes, checksum, lambda amount: None))


def test_a_folder_is_copied(tmp_path: Path, model: Path) -> None:
    found = fetch(tmp_path, f"mlflow:{model}")
    assert (found.name, found.framework, found.version) == ("my model", "mlflow", None)
    assert sorted(file.name for file in found.files) == ["MLmodel", "m.pkl", "sub/x"]
    assert all(file.path.is_relative_to((tmp_path / "room").resolve()) for file in found.files)
    stored = import_model(f"mlflow:{model}", trust=True)
    assert stored.tag.startswith("my-model:")
    assert not (stored.path / "m.pkl").samefile(model / "m.pkl")
    with pytest.raises(UnsafeError, match="^my-model runs code when it is loaded: it is a Python object"):
        import_model(f"mlflow:{model}")


def test_bounds_and_absent_folders(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UnsafeError, match="is larger than 5 bytes"):
        fetch(tmp_path, f"mlflow:{model}", 5)
    with pytest.raises(UsageError, match="--checksum"):
        fetch(tmp_path, f"mlflow:{model}", checksum="sha256:" + "0" * 64)
    with pytest.raises(NotFoundError, match="is not a folder"):
        fetch(tmp_path, f"mlflow:{tmp_path / 'absent'}")
    with pytest.raises(UsageError, match="has no MLmodel"):
        fetch(tmp_path, f"mlflow:{tmp_path}")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_links_out_of_the_folder(tmp_path: Path, model: Path) -> None:
    (tmp_path / "secret").write_text("s")
    (model / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UnsafeError, match="outside the model"):
        fetch(tmp_path, f"mlflow:{model}")


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "mlflow:models:/",
            "mlflow:models:/a/b/c",
            "mlflow:models:/a@b@c",
            "mlflow:models:/a/1@b",
            "mlflow:models:a/1",
        ),
        *("mlflow:runs:/", "mlflow:runs:/abc", "mlflow:runs:/abc/", "mlflow:runs:/a b/c", "mlflow:runs:/abc/x?y"),
        "mlflow://server/model",
    ],
)
def test_addresses_that_name_no_model(tmp_path: Path, uri: str) -> None:
    with pytest.raises(UsageError, match="names no MLflow model"):
        fetch(tmp_path, uri)


def test_an_address_without_a_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="mlflow: names nothing after the colon") as caught:
        fetch(tmp_path, "mlflow:")
    assert caught.value.hint is not None
    assert "mlflow:FOLDER" in caught.value.hint


@pytest.mark.parametrize("uri", ["mlflow:models:/iris/1", "mlflow:models:/iris@best", "mlflow:runs:/abc/model"])
def test_without_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mlflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError) as caught:
        fetch(tmp_path, uri)
    assert caught.value.hint == "pip install mlflow-skinny"
