"""The image layout: what is visible, what is verified, what a virtual layer is."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from bentotool.errors import ConflictError, NotFoundError, UnsafeError, UsageError, VerificationError
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.layout import FILES_ANNOTATION, Layout
from bentotool.oci.refs import RefStore, check_name, check_version
from bentotool.oci.tar import TarEntry, VirtualTar, tar_header, untar

FILES = {"models/m/empty": b"", "models/m/a.bin": b"x" * 5000, "models/m/" + "long" * 40 + ".bin": b"y" * 512}


def layer(files: dict[str, bytes]) -> tuple[Descriptor, bytes]:
    entries = [TarEntry(name, len(data)) for name, data in files.items()]
    data = VirtualTar(entries, lambda entry: io.BytesIO(files[entry.name])).readall()
    listing = [{"path": n, "size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()]
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    return Descriptor("application/x.tar", digest, len(data), {FILES_ANNOTATION: json.dumps(listing)}), data


def receive(layout: Layout, descriptor: Descriptor, data: bytes, step: int = 700) -> None:
    with layout.layer_sink(descriptor) as sink:
        for start in range(0, len(data), step):
            sink.write(data[start : start + step])
        sink.commit()


@pytest.mark.parametrize("step", [1, 511, 512, 513, 100_000])
def test_virtual_layer_round_trip_stores_raw_files_only(tmp_path: Path, step: int) -> None:
    layout = Layout(tmp_path / "store")
    descriptor, data = layer(FILES)
    receive(layout, descriptor, data, step)
    assert not layout.has(descriptor.digest)
    assert layout.has_layer(descriptor)
    assert sorted(path.stat().st_size for path in layout.blobs.iterdir()) == [0, 512, 5000]
    with layout.open_layer(descriptor) as stream:
        assert stream.read() == data  # readall: a raw stream may return less from read(n)
        stream.seek(4000)
        assert stream.read(10) == data[4000:4010]
    assert not list(layout.temporary().iterdir())


@pytest.mark.parametrize("position", [0, 100, 156, 512, 1024, 3000, -1])
def test_any_changed_byte_is_refused_and_leaves_nothing_wrong(tmp_path: Path, position: int) -> None:
    layout = Layout(tmp_path)
    descriptor, data = layer(FILES)
    damaged = bytearray(data)
    damaged[position] ^= 1
    with pytest.raises(VerificationError):
        receive(layout, descriptor, bytes(damaged))
    assert all(layout.verify_blob(f"sha256:{path.name}") for path in layout.blobs.iterdir())
    assert not list(layout.temporary().iterdir())


@pytest.mark.parametrize("change", [-1, 1])
def test_wrong_length_is_refused(tmp_path: Path, change: int) -> None:
    descriptor, data = layer(FILES)
    wrong = data[:-1] if change < 0 else data + b"\0"
    with pytest.raises(VerificationError):
        receive(Layout(tmp_path), descriptor, wrong)


def test_layer_is_a_plain_tar_that_tarfile_reads() -> None:
    _, data = layer(FILES)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = archive.getmembers()
        assert {m.name: archive.extractfile(m).read() for m in members} == FILES  # type: ignore[union-attr]
        assert {(m.mode, m.uid, m.gid, m.mtime, m.uname) for m in members} == {(0o644, 0, 0, 0, "")}


def test_golden_digests_never_change() -> None:
    descriptor, _ = layer(FILES)
    assert descriptor.digest == "sha256:78971853a55b622ebc49dda2b4cb7dace90f4925f702177ef58260dbe2891bba"
    assert (
        hashlib.sha256(tar_header(TarEntry("models/big/weights.bin", 9 << 30))).hexdigest()
        == "9da9494224e5c1dc65e9d46799530129c07eb021c52180bba03d6814a1488640"
    )
    assert (
        hashlib.sha256(tar_header(TarEntry("models/é/x", 1))).hexdigest()
        == "2f484b5fe329ee16a1a21004896d2002cc146635192ad15a11b730264109103c"
    )


def drain(data: bytes) -> None:
    for _, content in untar(io.BytesIO(data)):
        for _ in content:
            pass


def foreign(kind: bytes = b"0", name: str = "x", link: str = "") -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, link
        archive.addfile(info)
    return stream.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        foreign(tarfile.SYMTYPE, link="/etc/passwd"),
        foreign(tarfile.LNKTYPE, link="../x"),
        foreign(tarfile.DIRTYPE),
        foreign(tarfile.CHRTYPE),
        foreign(tarfile.FIFOTYPE),
        foreign(name="../x"),
        foreign(name="/abs"),
        foreign(name="a\\..\\b"),
        foreign(name="C:/x"),
        foreign(name="a/.wh.b"),
        foreign(name="x" * 5000),
        b"",
        b"\0" * 511,
        b"\0" * 1024 + b"more",
        b"not a tar at all" * 100,
    ],
)
def test_untar_refuses_everything_but_its_own_form(data: bytes) -> None:
    with pytest.raises((VerificationError, UnsafeError)):
        drain(data)


@pytest.mark.parametrize(
    "names", [["a", "a"], ["a", "A"], ["a", "a/b"], ["straße", "STRASSE"], ["con"], ["a/aux.txt"], ["e\u0301"]]
)
def test_names_that_clash_or_are_not_portable_are_refused(names: list[str]) -> None:
    data = b"".join(tar_header(TarEntry(name, 0)) for name in names) + bytes(1024)
    with pytest.raises(UnsafeError):
        list(untar(io.BytesIO(data)))


def test_blob_appears_only_when_committed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with layout.writer() as writer:
        writer.write(b"half")
    assert not list(layout.blobs.iterdir())
    with layout.writer() as writer:
        writer.write(b"bytes")
        with pytest.raises(VerificationError):
            writer.commit("sha256:" + "0" * 64)
    assert not list(layout.blobs.iterdir())


def test_damaged_blob_is_named(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    digest = layout.put(b"data", "text/plain").digest
    layout.blob_path(digest).chmod(0o644)
    layout.blob_path(digest).write_bytes(b"Data")
    with pytest.raises(VerificationError, match="damaged"):
        layout.read(digest)


@pytest.mark.parametrize(
    "digest", ["sha256:abc", "../x", "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n", "md5:" + "0" * 32, 5]
)
def test_digest_is_checked_before_it_is_a_path(tmp_path: Path, digest: object) -> None:
    with pytest.raises(VerificationError):
        Layout(tmp_path).blob_path(digest)  # type: ignore[arg-type]


class TestRefs:
    @pytest.fixture
    def refs(self, tmp_path: Path) -> RefStore:
        layout = Layout(tmp_path)
        store = RefStore(layout)
        for number, tag in enumerate(["abc1", "abd2", "prod"]):
            descriptor = layout.put(f"m{number}".encode(), "application/json")
            store.set("models", "iris", tag, descriptor, created=f"2026-01-0{number + 1}T00:00:00+00:00", size=2)
        return store

    def test_forms_of_reference(self, refs: RefStore) -> None:
        digest = refs.get("models", "iris:abc1").digest
        assert refs.get("models", "iris").tag == refs.get("models", "iris:latest").tag == "prod"
        assert refs.get("models", "iris:abd").tag == "abd2"
        assert refs.get("models", f"iris@{digest}").tag == "abc1"
        assert refs.get("models", "IRIS:abc1").tag == "abc1"

    def test_ambiguous_prefix_and_misses(self, refs: RefStore) -> None:
        with pytest.raises(UsageError, match="fits 2 versions"):
            refs.get("models", "iris:ab")
        with pytest.raises(NotFoundError) as caught:
            refs.get("models", "iriss")
        assert "iris" in (caught.value.hint or "")
        with pytest.raises(NotFoundError):
            refs.get("bentos", "iris")

    def test_index_json_lists_every_reference(self, refs: RefStore, tmp_path: Path) -> None:
        index = json.loads((tmp_path / "index.json").read_text())
        names = [m["annotations"]["org.opencontainers.image.ref.name"] for m in index["manifests"]]
        assert names == ["models/iris:abc1", "models/iris:abd2", "models/iris:prod"]

    def test_one_damaged_entry_does_not_break_the_list(self, refs: RefStore, tmp_path: Path) -> None:
        (tmp_path / "refs/models/iris/abc1.json").write_text("{")
        assert [ref.tag for ref in refs.list("models")] == ["prod", "abd2"]
        assert [path.name for path in refs.damaged] == ["abc1.json"]

    def test_a_version_keeps_its_content_unless_replaced(self, refs: RefStore, tmp_path: Path) -> None:
        other = Layout(tmp_path).put(b"other", "application/json")
        with pytest.raises(ConflictError):
            refs.set("models", "iris", "prod", other, replace=False)
        same = refs.get("models", "iris:prod")
        assert refs.set("models", "iris", "prod", same.descriptor, replace=False) == same
        assert refs.set("models", "iris", "prod", other).digest == other.digest

    def test_delete(self, refs: RefStore) -> None:
        refs.delete("models", "iris", "prod")
        assert refs.get("models", "iris").tag == "abd2"
        with pytest.raises(NotFoundError):
            refs.delete("models", "iris", "prod")


@pytest.mark.parametrize("name", ["", "-a", "a/b", "../x", "a" * 64, "a b", "ä", "a\n", "con"])
def test_bad_names(name: str) -> None:
    with pytest.raises(UsageError):
        check_name(name)


@pytest.mark.parametrize("version", ["", "latest", ".x", "a/b", "a:b", "x" * 129, "a\n", "nul"])
def test_bad_versions(version: str) -> None:
    with pytest.raises(UsageError):
        check_version(version)
