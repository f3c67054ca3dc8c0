"""What ``bentotool.models`` gives to Python code, by BentoML's names."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import bentotool
from bentotool.errors import NotFoundError, UsageError
from bentotool.models import Model, importing, intake

MODEL = Path(__file__).parents[3] / "templates" / "quickstart" / "iris.onnx"


@pytest.fixture
def iris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_package: Callable[[str], None]) -> Model:
    require_package("bentotool_onnx")
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "store"))
    signatures = {"predict": {"batchable": True}}
    with bentotool.models.create(
        "iris:1", labels={"team": "a"}, metadata={"accuracy": 1}, signatures=signatures, module="bentoml.onnx"
    ) as model:
        Path(model.path_of("iris.onnx")).write_bytes(MODEL.read_bytes())
    return model


def test_what_is_known_of_a_model(iris: Model) -> None:
    model = bentotool.models.get("iris")
    assert model == iris
    assert (model.tag, model.name, model.version) == (model.info.tag, model.info.name, model.info.version)
    assert model.labels == model.info.labels == model.info["labels"] == {"team": "a"}
    assert model.metadata["accuracy"] == model.info.metadata["accuracy"] == 1
    assert (model.info.module, model.info.framework, model.info.safety) == ("bentoml.onnx", "onnx", "data")
    assert model.info.signatures == {"predict": {"batchable": True}}
    assert (model.info.options, model.custom_objects) == ({}, {})
    assert model.creation_time is not None
    assert 0 <= (datetime.now(timezone.utc) - model.creation_time).total_seconds() < 3600
    assert model.file_size == MODEL.stat().st_size
    with pytest.raises(AttributeError, match="there are: .*labels"):
        _ = model.info.nothing_like_it


def test_a_model_in_a_bento(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home" / "bento"
    home.mkdir(parents=True)
    entry = {"alias": "m", "name": "m", "version": "1", "digest": "sha256:0", "path": "models/m", "labels": {"a": "b"}}
    (home / "bento.json").write_text(json.dumps({"models": [entry]}), encoding="utf-8")
    monkeypatch.setenv("BENTOTOOL_BENTO", str(home / "bento.json"))
    model = bentotool.models.get("m:latest")
    assert (model.labels, model.metadata, model.creation_time) == ({"a": "b"}, {}, None)
    assert (model.info.version, model.info.framework) == ("1", None)


def test_a_model_and_a_reference_stand_for_their_tag(iris: Model, tmp_path: Path) -> None:
    assert bentotool.models.get(iris) is iris
    (reference,) = bentotool.models.list()
    assert bentotool.models.export_model(iris, tmp_path) == iris.export(tmp_path) == str(tmp_path / "iris-1.tar")
    bentotool.models.delete(reference)
    with pytest.raises(NotFoundError):
        bentotool.models.delete(iris)


def test_a_model_loads_itself(
    iris: Model, require_package: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_package("onnxruntime")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")  # the loader sets it
    assert iris.load_model().get_inputs()[0].name == "measurements"


def test_what_is_saved_is_moved_into_the_store_not_copied_through_a_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_package: Callable[[str], None]
) -> None:
    require_package("bentotool_onnx")
    require_package("onnx")
    import onnx

    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    seen: dict[int, Path] = {}
    taking = intake.take_files

    def take(layout: Any, name: str, files: Any, *more: Any, **options: Any) -> Any:
        seen.update({file.path.stat().st_ino: file.path for file in files})
        return taking(layout, name, files, *more, **options)

    monkeypatch.setattr(importing, "take_files", take)
    model = bentotool.onnx.save_model("iris", onnx.load(MODEL))
    (written,) = seen.items()
    assert written[1].is_relative_to(tmp_path / "store" / "tmp")
    assert (model.path / written[1].name).stat().st_ino == written[0]
    assert not list((tmp_path / "store" / "tmp").iterdir())


@pytest.mark.parametrize("labels", [{"a": 1}, {1: "a"}, {"a": None}, "a=b", ["a"]])
def test_labels_that_no_filter_would_find_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, require_package: Callable[[str], None], labels: Any
) -> None:
    require_package("bentotool_onnx")
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "store"))
    with pytest.raises(UsageError, match="label"):
        bentotool.models.import_model(MODEL, "iris", labels=labels)
    with pytest.raises(UsageError, match="label"), bentotool.models.create("iris", labels=labels):
        pytest.fail("before anything is written")
    with pytest.raises(UsageError, match="label"):
        bentotool.onnx.save_model("iris", str(MODEL), labels=labels)
    assert bentotool.models.list() == []


def test_what_names_no_model_is_refused() -> None:
    for call in (bentotool.models.get, bentotool.models.list, bentotool.models.delete):
        with pytest.raises(UsageError, match="named by text"):
            call(3)
