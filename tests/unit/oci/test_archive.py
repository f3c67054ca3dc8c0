"""Archives: reproducible, readable by others, and read back with suspicion."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bentotool.errors import NotFoundError, UnsafeError, VerificationError
from bentotool.interfaces import SourceFile
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore
from bentotool.oci.archive import archive_size, write_archive
from bentotool.oci.checking import verify_store
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.layout import Layout
from bentotool.oci.reach import reach
from bentotool.oci.tar import TarEntry, tar_header
from bentotool.oci.unarchive import read_archive

DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {}, {})
FILES = {"w.bin": b"weights" * 3000, "config.json": b"{}", "README.md": b"# hi"}


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.fixture
def root(layout: Layout, tmp_path: Path) -> Descriptor:
    sources = []
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
        sources.append(SourceFile(tmp_path / name, name))
    taken = take_files(layout, "m", sources, lambda amount: None)
    return ModelStore(layout).add("m", "1", taken.files, DETAILS, layers=taken.layers).descriptor


@pytest.fixture
def archive(layout: Layout, root: Descriptor, tmp_path: Path) -> Path:
    write_archive(layout, [root], tmp_path / "a.tar")
    return tmp_path / "a.tar"


def test_equal_content_gives_equal_bytes(layout: Layout, root: Descriptor, archive: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    digest, size = write_archive(layout, [root], tmp_path / "b.tar", seen.append)
    assert (tmp_path / "b.tar").read_bytes() == archive.read_bytes()
    assert size == sum(seen) == archive.stat().st_size == archive_size(layout, [root])
    assert digest == f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}"
    # never changes: a new digest here means that archives of the same model differ between releases
    assert digest == "sha256:4b1620fbbd19f580da92c3384f09794a88838e7ac242fc61d0655ec1053fa0b6"


def test_what_the_store_has_is_not_written_again(
    layout: Layout, root: Descriptor, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def total(seen: list[int]) -> int:
        read_archive(layout, archive, seen.append)
        return sum(seen)

    blob = next(path for path in layout.blobs.iterdir() if path.read_bytes() == FILES["w.bin"])
    once = total([])
    blob.chmod(0o644)
    blob.write_bytes(bytes(len(FILES["w.bin"])))  # damaged, so it is replaced
    assert total([]) == once
    assert blob.read_bytes() == FILES["w.bin"]
    monkeypatch.setattr(Layout, "writer", lambda *arguments: pytest.fail("written again"))
    assert total([]) == once


def test_it_is_a_whole_layout_that_tarfile_reads(archive: Path, root: Descriptor) -> None:
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        content = {member.name: opened.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert [member.name for member in members[:2]] == ["oci-layout", "index.json"]
    assert [member.name for member in members[2:]] == sorted(member.name for member in members[2:])
    for name, data in content.items():
        if name.startswith("blobs/"):
            assert name.endswith(hashlib.sha256(data).hexdigest())
    manifest = json.loads(content[f"blobs/sha256/{root.digest[7:]}"])
    for part in (manifest["config"], *manifest["layers"]):
        assert len(content[f"blobs/sha256/{part['digest'][7:]}"]) == part["size"]


def test_skopeo_reads_it(require_tool: Callable[[str], str], archive: Path, layout: Layout, root: Descriptor) -> None:
    command = [require_tool("skopeo"), "inspect", "--raw", f"oci-archive:{archive}"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert done.stdout == layout.read(root.digest)


def test_oras_reads_it_unpacked(
    require_tool: Callable[[str], str], archive: Path, layout: Layout, root: Descriptor, tmp_path: Path
) -> None:
    program = require_tool("oras")
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            target = tmp_path / "unpacked" / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(opened.extractfile(member).read())  # type: ignore[union-attr]
    command = [program, "manifest", "fetch", "--oci-layout", f"{tmp_path / 'unpacked'}@{root.digest}"]
    done = subprocess.run(command, capture_output=True, timeout=30, check=True)
    assert done.stdout == layout.read(root.digest)


def test_round_trip_stores_the_same_blobs(archive: Path, layout: Layout, root: Descriptor, tmp_path: Path) -> None:
    other = Layout(tmp_path / "other")
    assert [each.digest for each in read_archive(other, archive)] == [root.digest]
    assert {f"sha256:{path.name}" for path in other.blobs.iterdir()} == set(reach(layout, root.digest).blobs)
    model = ModelStore(other).adopt("m", "1", root.digest)
    ModelStore(other).verify(model)
    assert not list(other.temporary().iterdir())
    assert verify_store(other).faults == ()


@pytest.mark.parametrize("position", range(0, 40_000, 1117))
def test_any_changed_byte_is_refused(archive: Path, tmp_path: Path, position: int) -> None:
    data = bytearray(archive.read_bytes())
    data[position % len(data)] ^= 1
    archive.write_bytes(data)
    with pytest.raises((VerificationError, UnsafeError)):
        read_archive(Layout(tmp_path / "other"), archive)
    assert verify_store(Layout(tmp_path / "other")).faults == ()
    assert not list(Layout(tmp_path / "other").temporary().iterdir())


@pytest.mark.parametrize("cut", [0, 1, 511, 512, 1000, 1024, 5000, -1, -512, -1024])
def test_a_short_archive_is_refused(archive: Path, tmp_path: Path, cut: int) -> None:
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(VerificationError):
        read_archive(Layout(tmp_path / "other"), archive)


def foreign(name: str, data: bytes = b"", kind: bytes = b"0", link: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as opened:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, len(data)
        opened.addfile(info, io.BytesIO(data))
    return stream.getvalue()[: 512 + (len(data) + 511) // 512 * 512]


HEX = "0" * 64


@pytest.mark.parametrize(
    "entry",
    [
        foreign("../../canary", b"x"),
        foreign("/tmp/canary", b"x"),
        foreign("blobs/sha256/../../canary", b"x"),
        foreign("blobs/sha256/" + HEX, kind=tarfile.SYMTYPE, link="/etc/passwd"),
        foreign("blobs/sha256/" + HEX, kind=tarfile.LNKTYPE, link="oci-layout"),
        foreign("blobs/sha256/" + HEX, kind=tarfile.FIFOTYPE),
        foreign("blobs/sha256/" + HEX, kind=tarfile.CHRTYPE),
        foreign("blobs/sha256/" + HEX, kind=tarfile.GNUTYPE_SPARSE),
        foreign("blobs", kind=tarfile.DIRTYPE),
        foreign("blobs/sha256/" + "A" * 64, b"x"),
        foreign("blobs/sha512/" + HEX, b"x"),
        foreign("manifest.json", b"x"),
        foreign("é" * 80, b"x"),
        tar_header(TarEntry("blobs/sha256/" + HEX, 0)),  # in form, but nothing names it
        tar_header(TarEntry("blobs/sha256/" + HEX, 9 << 30)),  # states more than there is
        tar_header(TarEntry("oci-layout", 0)),  # twice
        b"\xff" * 512,
    ],
)
def test_anything_but_the_expected_files_is_refused(archive: Path, tmp_path: Path, entry: bytes) -> None:
    archive.write_bytes(archive.read_bytes()[:-1024] + entry + bytes(1024))
    other = Layout(tmp_path / "deep" / "other")
    with pytest.raises((VerificationError, UnsafeError)):
        read_archive(other, archive)
    assert not list(tmp_path.rglob("*canary*"))


def test_a_size_beyond_ustar_is_read_as_it_is_written() -> None:
    from bentotool.oci.unarchive import _header

    entry = TarEntry("blobs/sha256/" + HEX, 20 << 30)
    assert _header(io.BytesIO(tar_header(entry)), "x") == entry


def test_missing_things_are_named(layout: Layout, root: Descriptor, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="absent"):
        read_archive(layout, tmp_path / "absent.tar")
    next(path for path in layout.blobs.iterdir() if path.stat().st_size == len(FILES["w.bin"])).unlink()
    with pytest.raises(NotFoundError, match="not in the store"):
        write_archive(layout, [root], tmp_path / "x.tar")
    assert not list(tmp_path.glob("*x.tar*"))


@pytest.mark.parametrize("damage", [b"short", b"Weights" * 3000])
def test_damaged_content_never_becomes_an_archive(
    layout: Layout, root: Descriptor, tmp_path: Path, damage: bytes
) -> None:
    blob = next(path for path in layout.blobs.iterdir() if path.stat().st_size == len(FILES["w.bin"]))
    blob.chmod(0o644)
    blob.write_bytes(damage)
    with pytest.raises((NotFoundError, VerificationError)):
        write_archive(layout, [root], tmp_path / "x.tar")
    assert not list(tmp_path.glob("*x.tar*"))
