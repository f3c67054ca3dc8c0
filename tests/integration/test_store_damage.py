"""A blob that the disk damaged: who is told what, and what mends it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
from bentotool.cli.main import main
from bentotool.errors import VerificationError
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
