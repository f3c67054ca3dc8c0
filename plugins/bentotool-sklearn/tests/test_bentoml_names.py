"""The argument names of BentoML 1.4.39: each works with its meaning, or is refused with what to do instead."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import bentotool_sklearn.loader
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import bentotool
from bentotool import frameworks
from bentotool.errors import ConflictError, NotFoundError, UsageError
from bentotool.frameworks import FrameworkNamespace, namespace
from bentotool.models import api

X = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
MODEL = LogisticRegression().fit(X, [0, 0, 1, 1])

NAMES = {
    FrameworkNamespace.save_model: "name model signatures labels custom_objects external_modules metadata",
    FrameworkNamespace.load_model: "bento_model",
    FrameworkNamespace.get: "tag_like",
    api.create: "name labels metadata module signatures",
    api.get: "tag",
    api.list: "tag",
    api.delete: "tag",
    api.import_model: "path",
    api.export_model: "tag path output_format",
}
REFUSED: dict[str, str] = {
    "create": "api_version options custom_objects external_modules context",
    "import_model": "input_format protocol user passwd params subpath",
    "export_model": "output_format protocol user passwd params subpath",
}


@pytest.mark.parametrize("function", NAMES, ids=lambda function: function.__name__)
def test_names_are_taken(function: Any) -> None:
    assert set(NAMES[function].split()) <= set(inspect.signature(function).parameters)


@pytest.mark.parametrize(("function", "name"), [(f, n) for f, names in REFUSED.items() for n in names.split()])
def test_what_means_nothing_here_is_refused_with_a_hint(tmp_path: Path, function: str, name: str) -> None:
    calls = {
        "create": lambda **options: api.create("iris", **options).__enter__(),
        "import_model": lambda **options: api.import_model(tmp_path, **options),
        "export_model": lambda **options: api.export_model("iris", tmp_path, **options),
    }
    with pytest.raises(UsageError, match=f"{name}='x' means nothing here") as caught:
        calls[function](**{name: "x"})
    assert caught.value.hint
    with pytest.raises(TypeError, match="no argument nonsense"):
        calls[function](nonsense=1)


@pytest.mark.parametrize("name", ["custom_objects", "external_modules"])
def test_objects_and_modules_are_not_pickled_beside_a_model(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} is not kept with a model") as caught:
        namespace("sklearn").save_model("iris", MODEL, **{name: {"a": 1}})  # type: ignore[arg-type]
    assert caught.value.hint
    assert namespace("sklearn").save_model("iris", MODEL, custom_objects=None, external_modules=[]).name == "iris"


def test_signatures_and_a_tag_for_a_name() -> None:
    signatures = {"predict": {"batchable": True, "batch_dim": 0}}
    saved = namespace("sklearn").save_model(
        "iris:v1", MODEL, signatures=signatures, labels={"a": "b"}, metadata={"c": 1}
    )
    assert (saved.tag, saved.info["labels"]) == ("iris:v1", {"a": "b"})
    assert saved.info["metadata"]["signatures"] == signatures
    assert saved.info["metadata"]["c"] == 1
    assert namespace("sklearn").load_model(bento_model="iris:v1").predict(X).shape == (4,)
    assert namespace("sklearn").get(tag_like="iris:v1").digest == saved.digest
    with pytest.raises(UsageError, match="are not a dictionary for each method"):
        namespace("sklearn").save_model("iris", MODEL, signatures={"predict": True})


@pytest.mark.parametrize(("name", "meant"), sorted(frameworks._ALIASES.items()))
def test_names_of_frameworks(monkeypatch: pytest.MonkeyPatch, name: str, meant: str) -> None:
    monkeypatch.setattr(frameworks, "_known", lambda: frozenset({meant}))
    assert namespace(name).name == meant
    monkeypatch.setattr(frameworks, "_known", lambda: frozenset({meant, name}))  # a plugin of that very name
    assert namespace(name).name == name
    monkeypatch.setattr(frameworks, "_known", frozenset)
    with pytest.raises(AttributeError, match=name):
        namespace(name)


def test_options_that_loaders_call_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    namespace("sklearn").save_model("iris", MODEL)
    monkeypatch.setattr(bentotool_sklearn.loader, "load", lambda path, *, device="cpu", **options: (device, options))
    assert namespace("sklearn").load_model("iris", device_id="cuda:0") == ("cuda:0", {})
    monkeypatch.setattr(bentotool_sklearn.loader, "load", lambda path, *, device_id="cpu": device_id)
    assert namespace("sklearn").load_model("iris", device_id="cuda:0") == "cuda:0"


def test_create(tmp_path: Path) -> None:
    namespace("sklearn").save_model("first", MODEL)
    content = Path(api.get("first").path_of("model.skops")).read_bytes()
    with bentotool.models.create("iris:v1", labels={"a": "b"}, signatures={"predict": {}}, module="sklearn") as model:
        Path(model.path_of("model.skops")).write_bytes(content)
        with pytest.raises(NotFoundError):
            model.path_of("../outside")
    assert (model.tag, model.path_of("model.skops")) == ("iris:v1", api.get("iris").path_of("model.skops"))
    assert model.info["metadata"]["module"] == "sklearn"
    with pytest.raises(RuntimeError, match="on purpose"), bentotool.models.create("other") as model:
        raise RuntimeError("on purpose")
    with pytest.raises(NotFoundError):
        api.get("other")


def test_export_delete_and_import(tmp_path: Path) -> None:
    saved = namespace("sklearn").save_model("iris:v1", MODEL, labels={"a": "b"})
    for target in ("model.tar", ""):
        written = bentotool.models.export_model("iris:v1", str(tmp_path / target))
        bentotool.models.delete("iris:v1")
        assert bentotool.models.list("iris") == []
        found = bentotool.models.import_model(written)
        assert (found.tag, found.digest, found.info) == (saved.tag, saved.digest, saved.info)
        assert namespace("sklearn").load_model(found).predict(X).tolist() == MODEL.predict(X).tolist()
    with pytest.raises(UsageError, match="input_format='gz' means nothing here"):
        bentotool.models.import_model(written, "gz")


def test_import_model_of_a_framework(tmp_path: Path) -> None:
    saved = namespace("sklearn").save_model("iris", MODEL)
    found = namespace("sklearn").import_model("copy:v2", saved.main_path, signatures={"predict": {}}, labels={"a": "b"})
    assert (found.tag, found.info["framework"], found.info["labels"]) == ("copy:v2", "sklearn", {"a": "b"})
    assert found.info["metadata"]["signatures"] == {"predict": {}}
    with warnings.catch_warnings(), pytest.raises(ConflictError):
        namespace("sklearn").import_model("copy:v2", saved.main_path, labels={"a": "another"})
