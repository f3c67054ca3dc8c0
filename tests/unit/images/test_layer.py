"""Layers of images: their bytes, and what other readers see in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from bentotool.errors import BuildError
from bentotool.images.layer import LayerEntry, write_layer
from bentotool.oci.layout import Layout

ENTRIES = [
    LayerEntry("opt/b/bin/run", b"#!/bin/x\n", program=True),
    LayerEntry("opt/b/bin/python", link="/usr/local/bin/python3.12"),
    LayerEntry("opt/b/" + "n" * 120 + "/é.txt", b"text"),
    LayerEntry("opt/a/empty"),
]
GOLDEN = "sha256:9ff1b78d56131d2f943c4c7258151ae27e6856aef31511ef25723193740c406d"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


def content(layout: Layout, digest: str) -> bytes:
    return layout.blob_path(digest).read_bytes()


def test_other_readers_see_files_modes_and_links(layout: Layout) -> None:
    written = write_layer(layout, ENTRIES)
    with tarfile.open(fileobj=io.BytesIO(content(layout, written.descriptor.digest))) as archive:
        found = {member.name: member for member in archive}
    assert list(found) == sorted(entry.name for entry in ENTRIES)
    assert found["opt/b/bin/run"].mode == 0o755
    assert found["opt/a/empty"].mode == 0o644
    assert (found["opt/b/bin/python"].issym(), found["opt/b/bin/python"].linkname) == (
        True,
        "/usr/local/bin/python3.12",
    )
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in found.values()} == {(0, 0, "", 0)}


def test_the_bytes_are_always_the_same(layout: Layout, tmp_path: Path) -> None:
    file = tmp_path / "run"
    file.write_bytes(b"#!/bin/x\n")
    file.chmod(0o600)
    one = write_layer(layout, ENTRIES)
    other = write_layer(layout, [*reversed(ENTRIES[1:]), LayerEntry("opt/b/bin/run", file, program=True)])
    assert one == other
    assert one.diff_id == one.descriptor.digest == GOLDEN


def test_a_compressed_layer_is_the_same_archive(layout: Layout) -> None:
    plain, small = write_layer(layout, ENTRIES), write_layer(layout, ENTRIES, compress=True)
    data = content(layout, small.descriptor.digest)
    assert gzip.decompress(data) == content(layout, plain.descriptor.digest)
    assert data[4:10] == bytes(5) + b"\xff"  # no time, no system
    assert (small.diff_id, small.unpacked) == (plain.diff_id, plain.unpacked)
    assert small.descriptor.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert small.descriptor.media_type.endswith("+gzip")


def test_large_layers_are_compressed_in_pieces(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"{number} bottles of beer\n" for number in range(200_000)).encode()
    entries = [LayerEntry("a", text), LayerEntry("b", text[: 1 << 20]), LayerEntry("c", bytes(3 << 20))]
    found = write_layer(layout, entries, compress=True)
    data = content(layout, found.descriptor.digest)
    assert hashlib.sha256(gzip.decompress(data)).hexdigest() == found.diff_id[7:]
    assert len(data) < len(text) / 3
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert write_layer(layout, entries, compress=True) == found


@pytest.mark.parametrize("name", ["../up", "/root", "a//b", "a/.wh.b", "a\nb", "a/./b", ""])
def test_names_that_no_layer_may_have(layout: Layout, name: str) -> None:
    with pytest.raises(BuildError):
        write_layer(layout, [LayerEntry(name)])


def test_two_files_of_one_name(layout: Layout) -> None:
    with pytest.raises(BuildError, match="cannot be a file"):
        write_layer(layout, [LayerEntry("a", b"1"), LayerEntry("a", b"2")])


def test_a_file_that_shrinks(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"1234")
    monkeypatch.setattr(LayerEntry, "size", property(lambda entry: 9))
    with pytest.raises(BuildError, match="changed"):
        write_layer(layout, [LayerEntry("f", file)])
