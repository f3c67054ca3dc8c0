"""Taking files in: one pass, the right digests, nothing half there, links that tell when they are written through."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bentotool.errors import BentotoolError, UsageError, VerificationError
from bentotool.interfaces import SourceFile
from bentotool.models import intake
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails, build_manifest
from bentotool.models.store import ModelStore
from bentotool.oci import blobs
from bentotool.oci.blobs import DiskFullError
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.digest import CHUNK, sha256_bytes
from bentotool.oci.layout import Layout

DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})
SIZES = {"empty.bin": 0, "one.bin": 1, "block.bin": 512, "chunk.bin": CHUNK, "more.bin": 5 * CHUNK + 7, "a.json": 9}


def content(name: str, size: int) -> bytes:
    return (name.encode() * (size // len(name) + 1))[:size]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.fixture
def sources(tmp_path: Path) -> list[SourceFile]:
    (tmp_path / "in").mkdir()
    found = []
    for name, size in SIZES.items():
        path = tmp_path / "in" / name
        path.write_bytes(content(name, size))
        found.append(SourceFile(path, name))
    return found


def quiet(amount: int) -> None:
    """Nobody watches."""


def layer_digests_are_right(layout: Layout, sources: list[SourceFile], **options: bool) -> None:
    seen: list[int] = []
    taken = take_files(layout, "m", sources, seen.append, **options)  # type: ignore[arg-type]
    assert [file.path for file in taken.files] == [source.name for source in sources]
    assert all(file.sha256 == sha256_bytes(content(file.path, file.size)) for file in taken.files)
    assert sum(seen) == sum(SIZES.values())

    def read(digest: str) -> object:
        return layout.blob_path(digest).open("rb", 0)

    slow = build_manifest("m", "1", taken.files, DETAILS, read)  # type: ignore[arg-type]
    quick = build_manifest("m", "1", taken.files, DETAILS, lambda digest: pytest.fail("read again"), taken.layers)
    assert slow == quick
    assert not list(layout.temporary().iterdir())


def test_digests_of_files_and_layers_come_from_one_pass(layout: Layout, sources: list[SourceFile]) -> None:
    layer_digests_are_right(layout, sources)
    again = {path: path.stat().st_ino for path in layout.blobs.iterdir()}
    layer_digests_are_right(layout, sources)
    assert {path: path.stat().st_ino for path in layout.blobs.iterdir()} == again


def test_the_same_with_a_clone(layout: Layout, sources: list[SourceFile], monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for a file system with reflinks; the real call is tried on every import and needs such a disk."""

    def clone(source: Path, target: Path) -> bool:
        shutil.copyfile(source, target)
        return True

    monkeypatch.setattr(blobs, "clone_file", clone)
    layer_digests_are_right(layout, sources)
    assert all(path.stat().st_mode & 0o222 == 0 for path in layout.blobs.iterdir())


def test_layers_are_taken_in_at_once(
    layout: Layout, sources: list[SourceFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = threading.Barrier(2, timeout=20)
    real = intake._take_layer

    def meet(*arguments: object) -> object:
        together.wait()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(intake, "_take_layer", meet)
    layer_digests_are_right(layout, sources)


def test_three_of_four_shards_shared_lie_there_once(layout: Layout, tmp_path: Path) -> None:
    def shards(*seeds: str) -> list[SourceFile]:
        found = []
        for number, seed in enumerate(seeds):
            path = tmp_path / f"{seed}.bin"
            path.write_bytes(content(seed, 100_000))
            found.append(SourceFile(path, f"shard-{number}.bin"))
        return found

    store = ModelStore(layout)
    for name, seeds in {"one": "abcd", "two": "abce", "three": "abcd"}.items():
        taken = take_files(layout, name, shards(*seeds), quiet)
        store.add(name, "1", taken.files, DETAILS, layers=taken.layers)
    large = [path for path in layout.blobs.iterdir() if path.stat().st_size == 100_000]
    assert len(large) == 5


def test_a_file_that_changes_meanwhile_is_refused(layout: Layout, sources: list[SourceFile]) -> None:
    victim = next(source.path for source in sources if source.name == "more.bin")

    def append(amount: int) -> None:
        with victim.open("ab") as file:
            file.write(b"x")

    with pytest.raises(BentotoolError, match="changed while"):
        take_files(layout, "m", sources, append)
    assert not list(layout.temporary().iterdir())
    assert verify_store(layout).faults == ()


def test_one_bad_file_stops_the_others(layout: Layout, sources: list[SourceFile], tmp_path: Path) -> None:
    (tmp_path / "in" / "a.json").unlink()
    with pytest.raises(UsageError, match=r"a\.json"):
        take_files(layout, "m", sources, quiet)
    assert not layout.root.exists() or not list(layout.temporary().iterdir())


class TestLink:
    @pytest.fixture
    def model(self, layout: Layout, sources: list[SourceFile]) -> Iterator[tuple[ModelStore, str]]:
        store = ModelStore(layout)
        taken = take_files(layout, "m", sources, quiet, link=True)
        yield store, store.add("m", "1", taken.files, DETAILS, layers=taken.layers).tag
        for source in sources:
            source.path.chmod(0o644)

    def test_no_bytes_are_copied_and_the_source_is_read_only(
        self, layout: Layout, sources: list[SourceFile], model: object
    ) -> None:
        for source in sources:
            blob = layout.blob_path(sha256_bytes(source.path.read_bytes()))
            assert os.path.samefile(blob, source.path)
            assert source.path.stat().st_mode & 0o222 == 0
        assert verify_store(layout).faults == ()

    def test_digests_are_the_same(self, layout: Layout, sources: list[SourceFile]) -> None:
        layer_digests_are_right(layout, sources, link=True)

    @pytest.mark.parametrize("keep_size", [True, False])
    def test_a_changed_file_is_noticed_by_push_serve_and_verify(
        self, layout: Layout, sources: list[SourceFile], model: tuple[ModelStore, str], keep_size: bool
    ) -> None:
        store, tag = model
        victim = next(source.path for source in sources if source.name == "more.bin")
        digest = sha256_bytes(victim.read_bytes())
        store.materialise(store.get(tag))
        victim.chmod(0o644)
        with victim.open("r+b") as file:
            file.seek(0, os.SEEK_SET if keep_size else os.SEEK_END)
            file.write(b"!")
        os.utime(victim, ns=(1, 1))
        found = store.get(tag)
        layer = next(part for part in found.manifest.layers if "more.bin" in str(part.annotations))
        with pytest.raises(VerificationError, match=r"more\.bin"):
            store.materialise(found)
        with pytest.raises(VerificationError, match=r"more\.bin"), layout.open_layer(layer) as stream:
            stream.read()
        (fault,) = verify_store(layout, repair=True).faults
        assert (fault.kind, fault.what, fault.touches) == ("changed", digest, ("models/m:1",))
        victim.write_bytes(content("more.bin", SIZES["more.bin"]))
        take_files(layout, "m", sources, quiet)
        assert verify_store(layout).faults == ()
        assert store.materialise(store.get(tag)).is_dir()

    def test_an_old_file_is_as_young_as_its_import(self, layout: Layout, tmp_path: Path) -> None:
        path = tmp_path / "old.bin"
        path.write_bytes(b"old")
        os.utime(path, (1_000_000_000, 1_000_000_000))
        take_files(layout, "m", [SourceFile(path, "old.bin")], quiet, link=True)
        assert collect(layout).blobs == ()
        assert len(collect(layout, grace=0).blobs) == 1
        assert not list(layout.linked.folder.iterdir())
        assert path.read_bytes() == b"old"
        path.chmod(0o644)

    def test_what_the_store_has_is_left_alone(self, layout: Layout, tmp_path: Path) -> None:
        path = tmp_path / "w.bin"
        path.write_bytes(b"bytes")
        mode = path.stat().st_mode
        for link in (False, True):
            (file,) = take_files(layout, "m", [SourceFile(path, "w.bin")], quiet, link=link).files
        assert path.stat().st_mode == mode
        assert not os.path.samefile(path, layout.blob_path(file.sha256))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if sys.platform != "linux" or mount is None or os.geteuid() != 0:
        pytest.skip("needs Linux and the right to mount a tmpfs")
    command = [mount, "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, timeout=20, check=False).returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], timeout=20, check=True)


def test_a_full_disk_leaves_the_store_clean_and_says_how_much_is_missing(small_disk: Path, tmp_path: Path) -> None:
    layout = Layout(small_disk / "store")
    fits, too_large = tmp_path / "fits.bin", tmp_path / "large.bin"
    fits.write_bytes(os.urandom(3 << 20))
    too_large.write_bytes(os.urandom(12 << 20))
    store = ModelStore(layout)
    taken = take_files(layout, "m", [SourceFile(fits, "w.bin")], quiet)
    store.add("m", "1", taken.files, DETAILS, layers=taken.layers)
    with pytest.raises(DiskFullError, match="no space left") as caught:
        take_files(layout, "m", [SourceFile(too_large, "w.bin")], quiet)
    # 12 MiB are needed and less than 5 are free; the piece that did not fit counts as missing
    assert 7 << 20 <= int(str(caught.value.details["missing"])) <= 9 << 20
    assert not list(layout.temporary().iterdir())
    assert verify_store(layout).faults == ()
    assert shutil.disk_usage(small_disk).free > 4 << 20
    assert [ref.ref for ref in store.list()] == ["m:1"]


def fill(folder: Path) -> None:
    with (folder / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_what_the_store_has_needs_no_room(small_disk: Path, tmp_path: Path) -> None:
    layout, store = Layout(small_disk / "store"), ModelStore(Layout(small_disk / "store"))
    files = []
    for name, size in (("w.bin", 3 << 20), ("config.json", 900)):
        (tmp_path / name).write_bytes(os.urandom(size))
        files.append(SourceFile(tmp_path / name, name))
    seen: list[int] = []
    for _ in range(2):
        seen.clear()
        taken = take_files(layout, "m", files, seen.append)
        assert sum(seen) == (3 << 20) + 900
        assert store.add("m", "1", taken.files, DETAILS, layers=taken.layers).tag == "m:1"
        fill(small_disk)
        assert shutil.disk_usage(small_disk).free == 0
    assert not list(layout.temporary().iterdir())


def test_a_file_like_a_blob_is_written_when_it_is_another(layout: Layout, tmp_path: Path) -> None:
    first = random.Random(1).randbytes(3 * CHUNK)
    other, sparse = b"x" + first[1:], first[: CHUNK + 70_000] + b"x" + first[CHUNK + 70_001 :]
    for number, data in enumerate((first, other, sparse)):  # the third has the same bytes wherever one looks
        path = tmp_path / f"{number}.bin"
        path.write_bytes(data)
        seen: list[int] = []
        taken = take_files(layout, "m", [SourceFile(path, "w.bin")], seen.append)
        assert taken.files[0].sha256 == sha256_bytes(data)
        assert any(amount < 0 for amount in seen) == (number == 2)
        assert sum(seen) == len(data)
        ModelStore(layout).add("m", str(number), taken.files, DETAILS, layers=taken.layers)
        plain = build_manifest("m", str(number), taken.files, DETAILS, lambda d: layout.blob_path(d).open("rb", 0))
        assert plain[1].to_bytes() == ModelStore(layout).get(f"m:{number}").manifest.to_bytes()
    assert verify_store(layout).faults == ()


@pytest.mark.parametrize("link", [False, True])
def test_a_damaged_blob_is_replaced_by_an_import(layout: Layout, tmp_path: Path, link: bool) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(random.Random(1).randbytes(2 * CHUNK))
    (file,) = take_files(layout, "m", [SourceFile(path, "w.bin")], quiet).files
    blob = layout.blob_path(file.sha256)
    blob.chmod(0o644)
    blob.write_bytes(bytes(file.size))
    take_files(layout, "m", [SourceFile(path, "w.bin")], quiet, link=link)
    assert layout.verify_blob(file.sha256)
    assert os.path.samefile(path, blob) == link
    assert not list(layout.temporary().iterdir())
    path.chmod(0o644)
