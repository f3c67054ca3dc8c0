"""A blob that the disk damaged: who is told what, and what mends it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
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
