"""Who fetches what a user names, and what becomes of what a source says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from bentotool.errors import NotFoundError, PluginError, UnsafeError, UsageError, VerificationError
from bentotool.interfaces import SourceDecl, SourceFile, SourceModel, SourceRequest
from bentotool.models import sources
from bentotool.models.sources import fetch, import_fetched
from bentotool.models.store import ModelStore
from bentotool.oci.blobs import DiskFullError
from bentotool.oci.layout import Layout


class Parcel:
    """A source of one file, with things to say about it."""

    answer: Any = None

    def fetch(self, request: SourceRequest) -> Any:
        path = request.folder / "model.txt"
        path.write_text(request.uri, encoding="utf-8")
        return self.answer or SourceModel((SourceFile(path, path.name),), "From Afar", "7", labels={"a": "1", "b": "1"})


class OnlyParcels:
    """What :func:`fetch` asks of the plugins."""

    def __init__(self) -> None:
        self.parcel = Parcel()

    def sources(self) -> dict[str, SourceDecl]:
        return {"parcel": SourceDecl("parcel", "x:Y", "A parcel", schemes=("parcel",), suffixes=(".parcel",))}

    def source(self, decl: SourceDecl) -> Parcel:
        return self.parcel

    def frameworks(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def plugins() -> Any:
    return OnlyParcels()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.mark.parametrize("uri", ["parcel://x/y", "parcel:x", "PARCEL:x"])
def test_a_scheme_goes_to_its_source(uri: str, layout: Layout, plugins: Any) -> None:
    with fetch(uri, layout, plugins) as found:
        assert found.owned
        assert found.model.files[0].path.read_text(encoding="utf-8") == uri
        assert found.size == len(uri)
    assert not any("fetch" in path.name for path in layout.temporary().iterdir())


def test_a_local_package_goes_to_the_source_of_its_suffix(tmp_path: Path, layout: Layout, plugins: Any) -> None:
    package = tmp_path / "one.parcel"
    package.write_text("x")
    with fetch(str(package), layout, plugins) as found:
        assert found.owned
        assert found.model.files[0].path.read_text(encoding="utf-8") == str(package)


def test_a_path_that_looks_like_a_scheme_is_a_path(
    tmp_path: Path, layout: Layout, plugins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.txt").write_text("x")
    for text in ("model.txt", str(tmp_path / "model.txt")):
        with fetch(text, layout, plugins) as found:
            assert not found.owned
    with pytest.raises(NotFoundError), fetch("other:thing", layout, plugins):
        pass
    with pytest.raises(NotFoundError), fetch("c:model.txt", layout, plugins):  # a drive, not a scheme
        pass


def test_a_local_file_must_have_the_checksum(tmp_path: Path, layout: Layout, plugins: Any) -> None:
    file = tmp_path / "model.txt"
    file.write_bytes(b"x")
    with fetch(str(file), layout, plugins, checksum="sha256:" + hashlib.sha256(b"x").hexdigest()) as found:
        assert found.size == 1
    with pytest.raises(VerificationError), fetch(str(file), layout, plugins, checksum="sha256:" + "0" * 64):
        pass
    with (
        pytest.raises(UsageError, match="folder"),
        fetch(str(tmp_path), layout, plugins, checksum="sha256:" + "0" * 64),
    ):
        pass
    with pytest.raises(NotFoundError), fetch(str(tmp_path / "no"), layout, plugins, checksum="sha256:" + "0" * 64):
        pass


def test_a_local_file_that_cannot_be_read_is_said(
    tmp_path: Path, layout: Layout, plugins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(sources, "hash_file", refuse)  # permissions bind neither root nor Windows
    (tmp_path / "m.txt").write_bytes(b"x")
    with (
        pytest.raises(UsageError, match="cannot be read"),
        fetch(str(tmp_path / "m.txt"), layout, plugins, checksum="sha256:" + "0" * 64),
    ):
        pass


def test_a_limit_holds_for_local_files_too(tmp_path: Path, layout: Layout, plugins: Any) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "in" / name).write_bytes(b"xx")
    with fetch(str(tmp_path / "in"), layout, plugins, max_bytes=4) as found:
        assert found.size == 4
    with pytest.raises(UnsafeError, match="larger"), fetch(str(tmp_path / "in"), layout, plugins, max_bytes=3):
        pass


def test_an_unknown_scheme_names_the_known(layout: Layout, plugins: Any) -> None:
    with pytest.raises(UsageError, match="nothing here fetches zz") as failure, fetch("zz://x", layout, plugins):
        pass
    assert "https, oci, parcel" in str(failure.value.hint)


def test_a_password_in_an_address_is_refused(layout: Layout, plugins: Any) -> None:
    with pytest.raises(UsageError, match="password") as failure, fetch("parcel://me:secret@x", layout, plugins):
        pass
    assert "secret" not in str(failure.value)


def test_an_answer_of_another_kind_is_the_plugins_fault(layout: Layout, plugins: Any) -> None:
    plugins.parcel.answer = ["model.txt"]
    with pytest.raises(PluginError, match="not a SourceModel"), fetch("parcel:x", layout, plugins):
        pass


def test_the_users_words_come_before_the_sources(layout: Layout, plugins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool.interfaces import ModelInfo
    from bentotool.models import importing

    info = ModelInfo("text", "text", main_file="model.txt")
    monkeypatch.setattr(importing, "describe_model", lambda *_, **__: info)
    store = ModelStore(layout)
    with fetch("parcel:x", layout, plugins) as found:
        plain = import_fetched(store, found, plugins=plugins)
    assert (plain.tag, plain.details.labels) == ("from-afar:7", {"a": "1", "b": "1"})
    with fetch("parcel:x", layout, plugins) as found:
        mine = import_fetched(store, found, plugins=plugins, name="mine", version="8", labels={"b": "2"})
    assert (mine.tag, mine.details.labels) == ("mine:8", {"a": "1", "b": "2"})


class Flood:
    """A source that says how much there is, and then finds the disk full."""

    def fetch(self, request: SourceRequest) -> Any:
        (request.folder / "model.txt.part").write_bytes(bytes(300))
        request.expect(1000)
        request.advance(300)
        raise DiskFullError("no space left on the disk that holds a deep folder", hint="free some")


def test_a_full_disk_leaves_nothing_and_says_how_much_is_missing(
    layout: Layout, plugins: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "parcel", Flood())
    said = r"holds \S*store: 700 of 1000 bytes of the model found no room$"
    with pytest.raises(DiskFullError, match=said) as caught, fetch("parcel:x", layout, plugins):
        pass
    assert caught.value.details == {"missing": 700, "total": 1000}
    assert not list(layout.temporary().iterdir())
