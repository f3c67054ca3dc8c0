"""A blob or a name that the disk damaged: who is told what, and what mends it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
from bentotool.cli.main import main
from bentotool.errors import NotFoundError, VerificationError
from bentotool.interfaces import SourceFile
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.registry import Registry


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize("raw", [False, True])
def test_a_push_names_the_damaged_file_and_not_the_registry(
    tmp_path: Path, make_model: Callable[..., StoredModel], real_registry: Any, raw: bool
) -> None:
    layout = Layout(tmp_path / "store")
    model = make_model(layout)
    largest = max(model.files, key=lambda file: file.size)
    damage(layout.blob_path(largest.sha256))
    remote = RemoteReference.parse(f"{real_registry.host}/damaged-{'raw' if raw else 'tar'}:1")
    ref = ModelStore(layout).refs.get("models", model.tag)
    with Registry(real_registry.host, push=True) as registry, pytest.raises(VerificationError) as caught:
        transfer.push_model(layout, ref, remote, registry, raw=raw)
    assert largest.path in caught.value.message
    assert "store verify --repair" in (caught.value.hint or "")


@pytest.mark.parametrize("whole", [False, True])
def test_an_archive_mends_a_damaged_blob_and_leaves_a_sound_one(
    tmp_path: Path, make_model: Callable[..., StoredModel], store: Path, whole: bool
) -> None:
    layout = Layout(store)
    model = make_model(layout)
    assert main(["model", "export", model.tag, str(tmp_path / "m.tar")]) == 0
    largest = layout.blob_path(max(model.files, key=lambda file: file.size).sha256)
    before = largest.stat().st_ino
    if not whole:
        damage(largest)
    with pytest.raises(VerificationError) if not whole else contextlib.nullcontext():
        ModelStore(layout).verify(model)
    assert main(["model", "import-archive", str(tmp_path / "m.tar")]) == 0
    ModelStore(layout).verify(model)
    if whole:
        assert largest.stat().st_ino == before


def _named(tmp_path: Path, *versions: str) -> ModelStore:
    store = ModelStore(Layout(tmp_path / "store"))
    for version in versions:
        weights = tmp_path / "w.bin"
        weights.write_bytes(version.encode())
        taken = take_files(store.layout, "m", [SourceFile(weights, "w.bin")], lambda amount: None)
        details = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})
        store.add("m", version, taken.files, details, layers=taken.layers)
    return store


def _damage(store: ModelStore, version: str, before: str | None = None) -> None:
    folder = store.layout.root / "refs" / "models" / "m"
    (folder / f"{version}.json").write_text("garbage")
    if before is not None:
        then = (folder / f"{before}.json").stat().st_mtime_ns - 1_000_000_000
        os.utime(folder / f"{version}.json", ns=(then, then))


def test_no_other_model_stands_in_for_a_damaged_name(tmp_path: Path) -> None:
    store = _named(tmp_path, "1", "10")
    _damage(store, "1")
    with pytest.raises(VerificationError, match=r"model m:1 is damaged in the store .*: 1\.json"):
        store.get("m:1")
    with pytest.raises(VerificationError, match="model m is damaged"):  # it may be the newest
        store.get("m")
    with pytest.raises(VerificationError, match="m:1 is damaged"):
        store.refs.matching("models", "m:1")
    assert store.get("m:10").version == "10"
    _damage(store, "1", before="10")
    assert store.get("m:latest").version == "10"
    _damage(store, "10")
    with pytest.raises(VerificationError, match="model m is damaged"):
        store.get("m")


def test_a_prefix_deletes_no_version_that_somebody_gave(tmp_path: Path) -> None:
    store = _named(tmp_path, "10", "0123456789ab")
    assert store.get("m:1").version == "10"
    for reference in ("m:1", "m:0", "m:012"):
        with pytest.raises(NotFoundError, match=f"model {reference} is not in the store"):
            store.refs.matching("models", reference)
    for reference in ("m:10", "m:0123", "m:latest"):
        assert len(store.refs.matching("models", reference)) == 1
    assert len(store.refs.matching("models", "m")) == 2
