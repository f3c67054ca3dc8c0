"""Class 2 on every sink that takes an archive of ours: what is not byte for byte what we write is refused.

The archives are those of ``test_unpack``, which tries them on the one extractor of foreign layers.
"""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest

from bentotool.errors import BentotoolError, UnsafeError, VerificationError
from bentotool.oci import unarchive
from bentotool.oci.archive import LAYOUT_FILE, write_archive
from bentotool.oci.checking import verify_store
from bentotool.oci.descriptor import Descriptor, canonical_json
from bentotool.oci.layout import FILES_ANNOTATION, Layout
from bentotool.oci.tar import TarEntry, tar_header, untar
from bentotool.oci.unarchive import read_archive
from bentotool.oci.zstd import MAX_RATIO, RATIO_FREE, Decompressed, compressing

END = bytes(1024)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with a canary beside it, and none inside."""
    (tmp_path / "canary").write_bytes(b"alive")
    inner = tmp_path / "place"
    inner.mkdir()
    yield inner
    assert (tmp_path / "canary").read_bytes() == b"alive"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "place"]
    assert not list(inner.rglob("*canary*"))


@pytest.fixture
def hostile(load: Callable[[str], ModuleType]) -> dict[str, bytes]:
    unpack = load("test_unpack")
    return {**{what: data + END for what, data in unpack.ARCHIVES.items()}, **unpack.UNENDED}


def entry(name: str, data: bytes) -> bytes:
    return tar_header(TarEntry(name, len(data))) + data + bytes(-len(data) % 512)


def archive(index: bytes = b'{"manifests":[],"schemaVersion":2}') -> bytes:
    return entry("oci-layout", LAYOUT_FILE) + entry("index.json", index)


def refused(action: Callable[[], object]) -> bool:
    """Whether it ends with one line that says why."""
    try:
        action()
    except (VerificationError, UnsafeError) as error:
        return "\n" not in error.message
    return False


def test_code_layers(hostile: dict[str, bytes]) -> None:
    def read(data: bytes) -> None:
        for _, pieces in untar(io.BytesIO(data)):
            for _ in pieces:
                pass

    assert [what for what, data in hostile.items() if not refused(partial(read, data))] == []


@pytest.mark.parametrize("compressed", [False, True])
def test_archives(
    hostile: dict[str, bytes], place: Path, compressed: bool, require_package: Callable[[str], None]
) -> None:
    if compressed:
        require_package("zstandard")

    def read(data: bytes) -> None:
        (place / "a.tar").write_bytes(zstd(data) if compressed else data)
        read_archive(Layout(place / "store"), place / "a.tar")

    for whole in (b"", archive()):
        assert [what for what, data in hostile.items() if not refused(partial(read, whole + data))] == []
    assert not list(place.glob("store/blobs/*/*"))


def test_virtual_layers(hostile: dict[str, bytes], place: Path) -> None:
    """The manifest lists harmless files, and other bytes arrive."""
    layout = Layout(place / "store")

    def receive(data: bytes) -> None:
        content = b"x" * max(0, len(data) - 3 * 512)
        listed = [{"path": "models/m/a", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}]
        size = len(tar_header(TarEntry("models/m/a", len(content)))) + len(content) + -len(content) % 512 + 1024
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        layer = Descriptor("x", digest, size, {FILES_ANNOTATION: canonical_json(listed).decode()})
        with layout.layer_sink(layer) as sink:
            sink.write(data)
            sink.commit()

    assert [what for what, data in hostile.items() if not refused(partial(receive, data))] == []
    assert not list(layout.temporary().iterdir())


@pytest.mark.parametrize("path", ["../canary", "/tmp/canary", "models/m/../../canary", "C:\\canary", "models/m/a\nb"])
def test_files_that_a_manifest_lists_elsewhere(place: Path, path: str) -> None:
    listed = [{"path": path, "size": 0, "sha256": hashlib.sha256(b"").hexdigest()}]
    layer = Descriptor("x", f"sha256:{'0' * 64}", 1536, {FILES_ANNOTATION: canonical_json(listed).decode()})
    with pytest.raises(UnsafeError):
        Layout(place / "store").layer_sink(layer)


def test_many_entries_end_early(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unarchive, "_MAX_ENTRIES", 100)
    names = (f"blobs/sha256/{number:064x}" for number in range(1000))
    (place / "a.tar").write_bytes(archive() + b"".join(entry(name, b"") for name in names) + END)
    with pytest.raises(VerificationError, match="more than 100 entries"):
        read_archive(Layout(place / "store"), place / "a.tar")


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_a_planted_link_is_replaced_and_not_followed(place: Path) -> None:
    """``--force`` where somebody put a link: the link goes, what it leads to stays."""
    layout = Layout(place / "store")
    target = place / "a.tar"
    target.symlink_to(place.parent / "canary")
    with pytest.raises(BentotoolError):
        write_archive(layout, [Descriptor("x", f"sha256:{'0' * 64}", 1)], target)
    from bentotool.oci.descriptor import MANIFEST, Manifest

    config = layout.put(b"{}", "application/json")
    root = layout.put(Manifest(config, ()).to_bytes(), MANIFEST)
    write_archive(layout, [root], target)
    assert not target.is_symlink()
    assert read_archive(Layout(place / "other"), target) == (root,)


# --- zstd ---------------------------------------------------------------------------------------------------------


def zstd(data: bytes) -> bytes:
    target = io.BytesIO()
    stream = compressing(target, len(data))
    stream.write(data)
    stream.close()
    return target.getvalue()


@pytest.fixture
def zstandard(require_package: Callable[[str], None]) -> ModuleType:
    require_package("zstandard")
    import zstandard

    return zstandard


def drain(stream: Decompressed) -> int:
    buffer = bytearray(1 << 20)
    while stream.readinto(buffer):
        pass
    return stream.tell()


def unzstd(data: bytes, limit: int = 1 << 40) -> int:
    return drain(Decompressed(io.BytesIO(data), "x.zst", limit))


def whole_archive(place: Path) -> tuple[Descriptor, bytes]:
    from bentotool.oci.descriptor import MANIFEST, Manifest

    layout = Layout(place / "made")
    config = layout.put(bytes(range(256)) * 20, "application/json")
    root = layout.put(Manifest(config, ()).to_bytes(), MANIFEST)
    write_archive(layout, [root], place / "made.tar.zst", compress=True)
    return root, (place / "made.tar.zst").read_bytes()


def test_every_cut_is_noticed(zstandard: ModuleType, place: Path) -> None:
    root, data = whole_archive(place)
    other = Layout(place / "store")
    for end in range(len(data)):
        (place / "cut.tar.zst").write_bytes(data[:end])
        with pytest.raises(VerificationError):
            read_archive(other, place / "cut.tar.zst")
    assert not list(place.glob("store/blobs/*/*"))
    assert read_archive(other, place / "made.tar.zst") == (root,)


def test_every_flipped_byte_is_noticed_or_harmless(zstandard: ModuleType, place: Path) -> None:
    root, data = whole_archive(place)
    for position in range(0, len(data), 3):
        changed = bytearray(data)
        changed[position] ^= 0x55
        (place / "x.tar.zst").write_bytes(changed)
        try:
            assert read_archive(Layout(place / "store"), place / "x.tar.zst") == (root,)
        except (VerificationError, UnsafeError):
            continue
    assert verify_store(Layout(place / "store")).faults == ()


@pytest.mark.parametrize("more", [b"\0", b"more", b"\x28\xb5\x2f\xfd", b"\x1f\x8b\x08\x00"])
def test_what_follows_is_refused(zstandard: ModuleType, place: Path, more: bytes) -> None:
    _, data = whole_archive(place)
    (place / "x.tar.zst").write_bytes(data + more)
    with pytest.raises(VerificationError):
        read_archive(Layout(place / "store"), place / "x.tar.zst")


def test_a_bomb_ends_early_and_in_little_memory(zstandard: ModuleType) -> None:
    """Sixteen GiB in half a MiB: refused when it has shown what it is, at the latest at the free amount."""
    repeated = (128 << 10) << 3 | 1 << 1  # a block of 128 KiB of one byte
    bomb = b"\x28\xb5\x2f\xfd\x00\x88" + (repeated.to_bytes(3, "little") + b"\0") * (16 << 30 >> 17)
    source = io.BytesIO(bomb)
    stream = Decompressed(source, "x.zst", 1 << 40)
    with pytest.raises(UnsafeError, match=f"{MAX_RATIO} times"):
        drain(stream)
    assert RATIO_FREE <= stream.tell() < RATIO_FREE * 4
    assert source.tell() < len(bomb)


def test_a_limit_and_a_window(zstandard: ModuleType) -> None:
    data = zstd(bytes(range(256)) * 100)
    assert unzstd(data, 25_600) == 25_600
    with pytest.raises(UnsafeError, match="more than 25599 bytes"):
        unzstd(data, 25_599)
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(VerificationError, match="memory"):
        unzstd(compressor.compress(b"x" * 1000) + compressor.flush())


def test_what_no_import_would_take_is_not_exported(zstandard: ModuleType, place: Path) -> None:
    from bentotool.oci.descriptor import MANIFEST, Manifest

    layout = Layout(place / "store")
    with layout.writer() as writer:
        for _ in range(80):
            writer.write(bytes(1 << 20))
        digest, size = writer.commit()
    root = layout.put(Manifest(Descriptor("x", digest, size), ()).to_bytes(), MANIFEST)
    with pytest.raises(BentotoolError, match="no import accepts"):
        write_archive(layout, [root], place / "z.tar.zst", compress=True)
    assert not list(place.glob("*z.tar.zst*"))
    write_archive(layout, [root], place / "z.tar")
    assert read_archive(Layout(place / "other"), place / "z.tar") == (root,)


def test_without_the_library_it_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bentotool.errors import MissingDependencyError

    monkeypatch.setitem(sys.modules, "zstandard", None)
    (place / "x.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    with pytest.raises(MissingDependencyError) as caught:
        read_archive(Layout(place / "store"), place / "x.tar.zst")
    assert "bentotool[zstd]" in (caught.value.hint or "")
