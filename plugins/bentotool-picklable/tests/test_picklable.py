from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import pytest
from bentotool_picklable import loader
from bentotool_picklable.framework import PicklableFramework
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentotool.errors import BentotoolError, UnsafeError, UsageError
from bentotool.frameworks import namespace
from bentotool.models.api import import_model
from bentotool.testing import check_framework, check_plugin, check_served, source_files

pytest.importorskip("cloudpickle")


class Canary:
    """What a hostile pickle does: runs a program of the author's choice."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("canary",)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_DISABLE_PLUGINS", "sklearn")  # it takes precedence for pickles


def put(tmp_path: Path, content: bytes, name: str = "thing.pkl") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_plugin() -> None:
    check_plugin("picklable")


def test_contract(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    path = put(tmp_path, pickle.dumps({"a": list(range(50))}))
    (info,) = check_framework("picklable", [path], scratch=tmp_path / "scratch")
    assert info.safety == "pickle"


def test_save_and_load() -> None:
    def model(x: int) -> int:
        return x + 1

    with pytest.raises(UnsafeError):
        namespace("picklable").save_model("plus", model)
    namespace("picklable").save_model("plus", model, trust=True)
    with pytest.raises(UnsafeError):
        namespace("picklable").load_model("plus")
    assert namespace("picklable").load_model("plus", trust=True)(2) == 3


def test_what_cannot_be_pickled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a lock cannot be pickled: TypeError"):
        PicklableFramework().save(threading.Lock(), tmp_path)


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_runs_without_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    path = put(tmp_path, pickle.dumps(Canary(), protocol))
    expected = UnsafeError if protocol >= 2 else UsageError  # older ones are not told from text
    with pytest.raises(expected):
        import_model(path)
    for trust in (False, "yes", 1):
        with pytest.raises(loader.UnsafeModelError):
            loader.load(path, trust=trust)  # type: ignore[arg-type]
    if protocol >= 2:
        import_model(path, "evil", trust=True)  # importing runs nothing either
    assert not (tmp_path / "canary").exists()


def test_several_pickles(tmp_path: Path) -> None:
    put(tmp_path, b"", "a.pkl")
    put(tmp_path, b"", "b.pkl")
    with pytest.raises(UsageError, match=r"several pickles: a\.pkl, b\.pkl"):
        PicklableFramework().detect(source_files(tmp_path))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=50))
def test_any_bytes_end_in_an_answer_or_an_error(tmp_path: Path, content: bytes) -> None:
    for start in (b"", b"\x80\x04"):
        files = source_files(put(tmp_path, start + content))
        try:
            if PicklableFramework().detect(files):
                assert PicklableFramework().describe(files).safety == "pickle"
        except BentotoolError as error:
            assert "\n" not in error.message  # noqa: PT017 - few raise


def test_what_predicts_is_served_with_no_code() -> None:
    np = pytest.importorskip("numpy")

    class Doubler:  # cloudpickle takes its code along
        n_features_in_ = 2

        def predict(self, rows):  # type: ignore[no-untyped-def]
            return rows.sum(axis=1) * 2

    namespace("picklable").save_model("doubler", Doubler(), trust=True)
    assert check_served("doubler", {"X": np.ones((3, 2))}, trust=True) == {"predict": [4, 4, 4]}
    with pytest.raises(UnsafeError):
        check_served("doubler", {"X": np.ones((3, 2))})
    namespace("picklable").save_model("list", [1, 2], trust=True)
    with pytest.raises(UsageError, match="list:.* cannot be served without code: a list is not known to have predict"):
        check_served("list", {"X": np.ones((3, 2))}, trust=True)
