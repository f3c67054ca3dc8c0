"""A pickle comes into the store by no door without ``--trust``: archives and registries, models and Bentos."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.models.manifest import ModelDetails, ModelFile
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.layout import Layout


def pickled(layout: Layout, safety: str = "pickle") -> StoredModel:
    data = b"cos\nsystem\n(Vtrue\ntR."
    file = ModelFile("w.pkl", len(data), layout.put(data, "application/octet-stream").digest)
    details = ModelDetails("picklable", "pickle", safety, "w.pkl", {"inputs": [], "outputs": []}, (), {}, {})
    return ModelStore(layout).add("evil", "1", [file], details)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., tuple[int, Any]]:
    """A command in another store: its status, and its document or error."""

    def run(*words: object) -> tuple[int, Any]:
        capsys.readouterr()
        status = main([*map(str, words), "--json", "--store", str(tmp_path / "other")])
        printed = capsys.readouterr()
        return status, json.loads(printed.out or printed.err.splitlines()[-1])

    return run


def check(ask: Callable[..., tuple[int, Any]], tmp_path: Path, *words: object) -> None:
    status, document = ask(*words)
    assert (status, document["error"]["code"]) == (6, "unsafe")
    assert "evil" in document["error"]["message"]
    assert "--trust" in document["error"]["hint"]
    assert ask("model", "list") == (0, [])
    assert not list(tmp_path.glob("other/blobs/*/*"))
    assert ask(*words, "--trust")[0] == 0
    assert [item["safety"] for item in ask("model", "list")[1]] == ["pickle"]


def test_archives(ask: Callable[..., tuple[int, Any]], tmp_path: Path, store: Path, make_bento: Any) -> None:
    layout = Layout(store)
    make_bento(layout, [pickled(layout)])
    for words in (("model", "export", "evil"), ("export", "svc")):
        assert main([*words, str(tmp_path / f"{words[0]}.tar")]) == 0
    check(ask, tmp_path, "model", "import-archive", tmp_path / "model.tar")


def test_bento_archives(ask: Callable[..., tuple[int, Any]], tmp_path: Path, store: Path, make_bento: Any) -> None:
    layout = Layout(store)
    make_bento(layout, [pickled(layout)])
    assert main(["export", "svc", str(tmp_path / "svc.tar")]) == 0
    check(ask, tmp_path, "import", tmp_path / "svc.tar")


@pytest.mark.parametrize("kind", ["model", "bento"])
def test_pulls(
    ask: Callable[..., tuple[int, Any]], tmp_path: Path, store: Path, make_bento: Any, real_registry: Any, kind: str
) -> None:
    layout = Layout(store)
    make_bento(layout, [pickled(layout)])
    remote = f"{real_registry.host}/trust-{kind}:1"
    assert main(["push", "svc" if kind == "bento" else "evil", remote]) == 0
    check(ask, tmp_path, *(["pull"] if kind == "bento" else ["model", "pull"]), remote)


@pytest.mark.parametrize("stated", ["data", "harmless", ""])
def test_what_a_pickle_says_of_itself_loads_nothing(
    ask: Callable[..., tuple[int, Any]],
    tmp_path: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    require_package: Callable[[str], None],
    stated: str,
) -> None:
    """A lie in a manifest opens the store, at most; the loader goes by ``trust`` alone."""
    require_package("bentotool_picklable")
    from bentotool.errors import UnsafeError
    from bentotool.frameworks import namespace

    pickled(Layout(store), stated)
    assert main(["model", "export", "evil", str(tmp_path / "m.tar")]) == 0
    status, document = ask("model", "import-archive", tmp_path / "m.tar")
    assert status == (0 if stated == "data" else 6), document
    if stated == "data":
        monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "other"))
        with pytest.raises(UnsafeError):
            namespace("picklable").load_model("evil:1")
