"""A pickle comes into the store by no door without ``--trust``: archives and registries, models and Bentos."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
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


@pytest.mark.parametrize("stated", ["data", "program", "harmless", ""])
def test_an_archive_that_calls_a_pickle_otherwise_is_refused(
    ask: Callable[..., tuple[int, Any]], tmp_path: Path, store: Path, stated: str
) -> None:
    pickled(Layout(store), stated)
    assert main(["model", "export", "evil", str(tmp_path / "m.tar")]) == 0
    status, document = ask("model", "import-archive", tmp_path / "m.tar")
    assert (status, document["error"]["code"]) == (6, "unsafe")
    assert "pickle" in document["error"]["message"]
    assert ask("model", "list") == (0, [])


@pytest.mark.parametrize("way", ["model", "raw", "bento", "archive", "bento-archive"])
@pytest.mark.parametrize("framework", ["picklable", "onnx", "unheard-of"])
def test_a_lie_about_the_class_is_found_in_the_bytes(
    ask: Callable[..., tuple[int, Any]],
    tmp_path: Path,
    store: Path,
    make_bento: Any,
    real_registry: Any,
    require_package: Callable[[str], None],
    way: str,
    framework: str,
) -> None:
    require_package("bentotool_picklable")
    layout = Layout(store)
    data = b"\x80\x02cos\nsystem\n(Vtrue\ntR."
    file = ModelFile("w.pkl", len(data), layout.put(data, "application/octet-stream").digest)
    details = ModelDetails(framework, "tables", "data", "w.pkl", {"inputs": [], "outputs": []}, (), {}, {})
    make_bento(layout, [ModelStore(layout).add("evil", "1", [file], details)])
    remote, archive = f"{real_registry.host}/lie-{way}-{framework}:1", tmp_path / "lie.tar"
    send, take = {
        "model": (["model", "push", "evil", remote], ["model", "pull", remote]),
        "raw": (["model", "push", "evil", remote, "--format", "raw"], ["model", "pull", remote]),
        "bento": (["push", "svc", remote], ["pull", remote]),
        "archive": (["model", "export", "evil", str(archive)], ["model", "import-archive", str(archive)]),
        "bento-archive": (["export", "svc", str(archive)], ["import", str(archive)]),
    }[way]
    assert main(send) == 0
    status, document = ask(*take)
    assert (status, document["error"]["code"]) == (6, "unsafe"), document
    assert "'data'" in document["error"]["message"]
    assert "'pickle'" in document["error"]["message"]
    assert ask("model", "list") == (0, [])
    status, document = ask(*take, "--trust")
    assert status == 0
    (note,) = document["notes"]
    assert "said to be of class 'data', but its files are of class 'pickle'" in note
    assert "recorded as 'pickle'" in note
    assert [item["safety"] for item in ask("model", "list")[1]] == ["pickle"]
    assert ask("model", "show", "evil")[1]["safety"] == "pickle"


def test_the_record_of_the_true_class_goes_with_the_model(
    ask: Callable[..., tuple[int, Any]], tmp_path: Path, store: Path
) -> None:
    pickled(Layout(store), "data")
    assert main(["model", "export", "evil", str(tmp_path / "m.tar")]) == 0
    assert ask("model", "import-archive", tmp_path / "m.tar", "--trust")[0] == 0
    assert list(tmp_path.glob("other/remarks/*"))
    assert ask("model", "delete", "evil", "--yes")[0] == 0
    assert ask("store", "gc", "--grace", "0s")[0] == 0
    assert not list(tmp_path.glob("other/remarks/*"))


@pytest.mark.parametrize("way", ["archive", "pull"])
def test_the_refusal_names_what_needs_trust(
    ask: Callable[..., tuple[int, Any]], tmp_path: Path, store: Path, real_registry: Any, way: str
) -> None:
    layout = Layout(store)
    file = ModelFile("m.skops", 3, layout.put(b"PK.", "application/octet-stream").digest)
    facts = {"needs_trust": ["it holds the type os.system"], "instead": "write it again"}
    details = ModelDetails("sklearn", "skops", "pickle", "m.skops", {"inputs": [], "outputs": []}, (), {}, facts)
    ModelStore(layout).add("evil", "1", [file], details)
    target = str(tmp_path / "m.tar") if way == "archive" else f"{real_registry.host}/reasons:1"
    assert main(["model", *(["export", "evil", target] if way == "archive" else ["push", "evil", target])]) == 0
    status, document = ask("model", *(["import-archive", target] if way == "archive" else ["pull", target]))
    assert (status, document["error"]["code"]) == (6, "unsafe")
    assert document["error"]["message"].endswith("evil:1 runs code when it is loaded: it holds the type os.system")
    assert document["error"]["hint"].endswith("write it again")


@pytest.mark.parametrize("inner", ["bare", "gz", "zip", "npy"])
def test_a_pickle_that_no_plugin_knows_is_found(
    ask: Callable[..., tuple[int, Any]],
    tmp_path: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    inner: str,
) -> None:
    monkeypatch.setenv("BENTOTOOL_DISABLE_PLUGINS", "picklable,sklearn,torch,keras,tensorflow")
    bare, layout = b"\x80\x04cos\nsystem\n(Vtrue\ntR.", Layout(store)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("archive/data.pkl", bare)
    array = (
        b"\x93NUMPY\x01\x00"
        + (60).to_bytes(2, "little")
        + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}".ljust(60)
    )
    data = {"bare": bare, "gz": gzip.compress(bare), "zip": packed.getvalue(), "npy": array + bare}[inner]
    file = ModelFile("w.bin", len(data), layout.put(data, "application/octet-stream").digest)
    details = ModelDetails("unheard-of", "tables", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})
    ModelStore(layout).add("evil", "1", [file], details)
    assert main(["model", "export", "evil", str(tmp_path / "m.tar")]) == 0
    status, document = ask("model", "import-archive", tmp_path / "m.tar")
    assert (status, document["error"]["code"]) == (6, "unsafe")
    assert "'w.bin': it " in document["error"]["message"]
    assert "pickle" in document["error"]["message"]
    assert ask("model", "list") == (0, [])


def test_trust_in_a_lie_loads_nothing(
    ask: Callable[..., tuple[int, Any]],
    tmp_path: Path,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
    require_package: Callable[[str], None],
) -> None:
    """The loader goes by its own ``trust`` alone."""
    require_package("bentotool_picklable")
    from bentotool.errors import UnsafeError
    from bentotool.frameworks import namespace

    pickled(Layout(store), "data")
    assert main(["model", "export", "evil", str(tmp_path / "m.tar")]) == 0
    assert ask("model", "import-archive", tmp_path / "m.tar", "--trust")[0] == 0
    monkeypatch.setenv("BENTOTOOL_STORE", str(tmp_path / "other"))
    with pytest.raises(UnsafeError):
        namespace("picklable").load_model("evil:1")
