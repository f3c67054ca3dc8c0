"""The store on real file systems: what an import takes of the disk, and what happens when the disk is full.

Each test makes a file system in a file and mounts it, which needs Linux, root and loop devices.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bentotool.interfaces import SourceFile
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.sources import fetch
from bentotool.models.store import ModelStore
from bentotool.oci.archive import archive_root, write_archive
from bentotool.oci.blobs import DiskFullError
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.registry import Registry
from bentotool.oci.unarchive import read_archive
from bentotool.plugins import load_plugins
from bentotool.transfer import pull, push_model

MIB = 1 << 20
DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})
Disk = Callable[[str], Path]


def run(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(word) for word in command], capture_output=True, timeout=50, check=False)


@pytest.fixture
def disk(tmp_path: Path, require_tool: Callable[[str], str]) -> Iterator[Disk]:
    """``disk("btrfs")`` makes a file system of 400 MiB and gives its folder."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs Linux and root, to mount a file system")
    mounted: list[Path] = []

    def make(kind: str) -> Path:
        image, folder = tmp_path / f"{kind}.img", tmp_path / kind
        with image.open("wb") as file:
            file.truncate(400 * MIB)
        made = run(require_tool(f"mkfs.{kind}"), "-q", image)
        assert made.returncode == 0, made.stderr.decode()
        folder.mkdir()
        if run("mount", "-o", "loop", image, folder).returncode != 0:
            pytest.skip(f"needs the right to mount {kind} from a file")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        assert run("umount", folder).returncode == 0


def used(folder: Path) -> int:
    """Bytes taken on a file system, once all of it is written out."""
    assert run("sync", "-f", folder).returncode == 0
    facts = os.statvfs(folder)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize


def room(folder: Path) -> int:
    """Bytes that root may still write."""
    facts = os.statvfs(folder)
    return facts.f_bfree * facts.f_frsize


@dataclass
class Import:
    """An import, and how much two folders for temporary files held at most while it ran, in bytes."""

    layout: Layout
    temporary: Path
    most: int = 0

    def __call__(self, *sources: Path, link: bool = False, name: str = "m") -> None:
        files = [SourceFile(path, path.name) for path in sources]
        taken = take_files(self.layout, name, files, self._watch, link=link)
        ModelStore(self.layout).add(name, "1", taken.files, DETAILS, layers=taken.layers)

    def _watch(self, amount: int) -> None:
        self.most = max(self.most, sum(path.stat().st_size for path in self.temporary.rglob("*") if path.is_file()))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


@pytest.mark.parametrize(
    ("kind", "link", "most"),
    [
        ("btrfs", False, MIB),
        ("xfs", False, MIB),
        ("ext4", False, 49 * MIB),
        ("btrfs", True, MIB),
        ("xfs", True, MIB),
        ("ext4", True, MIB),
    ],
)
def test_what_an_import_takes_of_the_disk(disk: Disk, temporary: Path, kind: str, link: bool, most: int) -> None:
    """Nothing by reflink or by link, the content itself by copy; a temporary folder never anything."""
    folder = disk(kind)
    source = folder / "w.bin"
    content = os.urandom(48 * MIB)
    source.write_bytes(content)
    take_in = Import(Layout(folder / "store"), temporary)
    take_in.layout.prepare()
    before = used(folder)
    take_in(source, link=link)
    assert used(folder) - before <= most
    assert take_in.most == 0
    store = ModelStore(take_in.layout)
    model = store.get("m:1")
    view = store.materialise(model)
    assert used(folder) - before <= most
    assert (view / "w.bin").read_bytes() == content
    if not link:
        with source.open("r+b") as file:  # the store has its own copy, although the blocks were shared
            file.write(b"changed" * MIB)
        assert verify_store(take_in.layout).faults == ()
        assert (view / "w.bin").read_bytes() == content
    assert collect(take_in.layout, grace=0).blobs == ()
    store.refs.delete("models", "m", "1")
    collect(take_in.layout, grace=0)
    assert used(folder) - before <= 8 * MIB


def test_the_same_bytes_under_two_names_lie_there_once(disk: Disk, temporary: Path) -> None:
    """And of four shards only the one that differs is added."""
    folder = disk("ext4")
    shards = [folder / f"shard-{number}.bin" for number in range(5)]
    for shard in shards:
        shard.write_bytes(os.urandom(8 * MIB))
    take_in = Import(Layout(folder / "store"), temporary)
    take_in.layout.prepare()
    before = used(folder)
    take_in(*shards[:4], name="first")
    take_in(*shards[:4], name="again")
    assert 32 * MIB <= used(folder) - before <= 33 * MIB
    take_in(*shards[:3], shards[4], name="other")
    assert 40 * MIB <= used(folder) - before <= 41 * MIB
    sizes = sorted(path.stat().st_size for path in take_in.layout.blobs.iterdir())
    assert sizes[-5:] == [8 * MIB] * 5
    assert sum(sizes[:-5]) < MIB


@pytest.fixture
def full(disk: Disk) -> Path:
    """A store's disk on which 20 MiB are free."""
    folder = disk("ext4")
    Layout(folder / "store").prepare()
    with (folder / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room(folder) - 20 * MIB)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Layout:
    """A store on another disk, with a model of 40 MiB."""
    source = tmp_path / "w.bin"
    source.write_bytes(os.urandom(40 * MIB))
    take_in = Import(Layout(tmp_path / "elsewhere"), tmp_path / "none")
    take_in(source)
    return take_in.layout


def check_clean(folder: Path) -> None:
    layout = Layout(folder / "store")
    assert verify_store(layout).faults == ()
    assert ModelStore(layout).list() == []
    collect(layout, grace=0)
    assert room(folder) > 19 * MIB


def test_a_full_disk_in_an_import(full: Path, tmp_path: Path, elsewhere: Layout) -> None:
    with pytest.raises(DiskFullError, match=r"\d+ of 41943040 bytes of the model found no room") as caught:
        Import(Layout(full / "store"), tmp_path / "none")(tmp_path / "w.bin")
    assert 19 * MIB <= int(str(caught.value.details["missing"])) <= 28 * MIB
    check_clean(full)


def test_a_full_disk_in_an_archive_read_or_written(full: Path, tmp_path: Path, elsewhere: Layout) -> None:
    model = ModelStore(elsewhere).get("m:1")
    roots = [archive_root(model.descriptor, "model", model.tag)]
    write_archive(elsewhere, roots, tmp_path / "m.tar")
    with pytest.raises(DiskFullError, match=r"no space left .*/store: \d+ of \d+ bytes of the archive found no room"):
        read_archive(Layout(full / "store"), tmp_path / "m.tar")
    check_clean(full)
    with pytest.raises(DiskFullError, match=r"no space left .*m\.tar: \d+ of \d+ bytes of the archive found") as caught:
        write_archive(elsewhere, roots, full / "m.tar")
    assert 19 * MIB <= int(str(caught.value.details["missing"])) <= 28 * MIB
    assert "--store" not in str(caught.value.hint)
    assert {path.name for path in full.iterdir()} <= {"store", "ballast", "lost+found"}


@pytest.mark.parametrize("form", ["archive", "layout"])
def test_a_full_disk_in_an_import_from_a_layout(full: Path, tmp_path: Path, elsewhere: Layout, form: str) -> None:
    model = ModelStore(elsewhere).get("m:1")
    source = f"oci:{elsewhere.root}@{model.digest}"
    if form == "archive":
        write_archive(elsewhere, [archive_root(model.descriptor, "model", model.tag)], tmp_path / "m.tar")
        source = f"oci:{tmp_path / 'm.tar'}"
    said = rf"^no space left on the disk that holds {full / 'store'}: \d+ of \d+ bytes of the (archive|model) found"
    layout = Layout(full / "store")
    with pytest.raises(DiskFullError, match=said), fetch(source, layout, load_plugins()):
        pass
    assert not list(layout.temporary().iterdir())
    check_clean(full)


def test_a_full_disk_in_a_pull(full: Path, elsewhere: Layout, real_registry: Any) -> None:
    remote = RemoteReference.parse(f"{real_registry.host}/full/m:1")
    with Registry(remote.registry, push=True) as registry:
        push_model(elsewhere, ModelStore(elsewhere).refs.get("models", "m:1"), remote, registry)
        with pytest.raises(DiskFullError, match="no space left"):
            pull(Layout(full / "store"), remote, registry)
    check_clean(full)


def test_a_quota_is_a_full_disk_too(
    disk: Disk, elsewhere: Layout, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    btrfs = require_tool("btrfs")
    folder = disk("btrfs")
    assert run(btrfs, "subvolume", "create", folder / "part").returncode == 0
    assert run(btrfs, "quota", "enable", folder).returncode == 0
    assert run(btrfs, "qgroup", "limit", "20M", folder / "part").returncode == 0
    with pytest.raises(DiskFullError, match="found no room"):
        Import(Layout(folder / "part" / "store"), tmp_path / "none")(tmp_path / "w.bin")
    layout = Layout(folder / "part" / "store")
    assert not list(layout.temporary().iterdir())
    assert verify_store(layout).faults == ()


def test_a_view_and_a_name_on_a_full_disk(disk: Disk, tmp_path: Path) -> None:
    """Small writes that find no room are told too, and leave what there was."""
    folder = disk("ext4")
    (tmp_path / "w.bin").write_bytes(b"weights")
    take_in = Import(Layout(folder / "store"), tmp_path / "none")
    take_in(tmp_path / "w.bin")
    shutil.copy(tmp_path / "w.bin", folder / "other.bin")
    with (folder / "ballast").open("wb", buffering=0) as file:
        for piece in (MIB, 4096, 1):
            try:
                while file.write(b"\1" * piece):
                    pass
            except OSError:
                pass
    store = ModelStore(take_in.layout)
    with pytest.raises(DiskFullError, match="no space left"):
        store.tag("m:1", "2")
    assert verify_store(take_in.layout).faults == ()
    assert [ref.ref for ref in store.list()] == ["m:1"]
    store.refs.delete("models", "m", "1")
    (folder / "ballast").unlink()
    assert store.list() == []
    assert verify_store(take_in.layout).faults == ()
