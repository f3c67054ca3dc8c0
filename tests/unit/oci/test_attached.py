"""What is attached to artifacts in a store: found from the subject, and kept as long as it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from bentotool.errors import ConflictError, NotFoundError, VerificationError
from bentotool.models.archives import check_attached, keep_attached
from bentotool.oci import attached
from bentotool.oci.archive import archive_root, with_attached, write_archive
from bentotool.oci.attached import (
    Attachment,
    attach,
    indexes,
    keep_index,
    keep_referrer,
    notes_of,
    referrer_bytes,
    referrers,
    referrers_below,
)
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.descriptor import EMPTY, INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layers import FILES_ANNOTATION
from bentotool.oci.layout import Layout
from bentotool.oci.refs import RefStore
from bentotool.oci.unarchive import open_archive
from bentotool.oci.usage import measure

NOTE = "application/vnd.test.note"
KIND = "io.bentotool.kind"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


@pytest.fixture
def model(layout: Layout) -> Descriptor:
    config = layout.put(b"{}", "application/json")
    layer = layout.put(b"weights", "application/x")
    stored = layout.put(Manifest(config, (layer,), artifact_type="x/y").to_bytes(), MANIFEST)
    RefStore(layout).set("models", "m", "1", stored)
    return stored


def note(text: bytes) -> Attachment:
    return Attachment(text, NOTE)


def bento_index(*entries: tuple[Descriptor, str]) -> bytes:
    listed = tuple(Descriptor(MANIFEST, each.digest, each.size, {KIND: kind}) for each, kind in entries)
    return Index(listed, annotations={KIND: "bento"}).to_bytes()


def test_a_referrer_is_found_from_its_subject(layout: Layout, model: Descriptor) -> None:
    one = attach(layout, model.digest, NOTE, [note(b"one")], {"by": "ada"})
    two = attach(layout, model.digest, "x/sbom", [note(b"two")])
    assert attach(layout, model.digest, NOTE, [note(b"one")], {"by": "ada"}) == one
    assert {each.digest for each in referrers(layout, model.digest)} == {one.digest, two.digest}
    (found,) = referrers(layout, model.digest, NOTE)
    assert (found.descriptor, found.subject) == (one, model.digest)
    assert (one.artifact_type, one.annotations) == (NOTE, {"by": "ada"})
    assert [layout.read(each.digest) for each in found.blobs] == [b"one", b"{}"]
    assert referrers(layout, one.digest) == []


def test_equal_arguments_give_equal_bytes(model: Descriptor) -> None:
    noisy = Descriptor(model.media_type, model.digest, model.size, {"a": "b"}, "t", {"os": "linux"})
    data = referrer_bytes(model, NOTE, [note(b"x")], {"b": "1", "a": "2"})
    assert referrer_bytes(noisy, NOTE, [note(b"x")], {"a": "2", "b": "1"}) == data
    document = json.loads(data)
    assert document["config"]["mediaType"] == EMPTY
    assert document["config"]["digest"] == "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert document["subject"] == {"mediaType": MANIFEST, "digest": model.digest, "size": model.size}
    assert [each["mediaType"] for each in json.loads(referrer_bytes(model, NOTE, []))["layers"]] == [EMPTY]


def test_what_is_no_referrer_is_refused(layout: Layout, model: Descriptor) -> None:
    with pytest.raises(NotFoundError):
        attach(layout, "sha256:" + "0" * 64, NOTE, [note(b"x")])
    with pytest.raises(VerificationError, match="no subject"):
        keep_referrer(layout, layout.read(model.digest))
    config = layout.put(b"{}", "application/json")
    files = json.dumps([{"path": "a", "size": 0, "sha256": sha256_bytes(b"")[7:]}])
    odd = Manifest(config, (Descriptor("x", "sha256:" + "1" * 64, 1536, {FILES_ANNOTATION: files}),), subject=model)
    with pytest.raises(VerificationError, match="cannot be attached"):
        keep_referrer(layout, odd.to_bytes())
    with pytest.raises(VerificationError, match="no Bento"):
        keep_index(layout, Index(()).to_bytes())


def test_content_that_is_missing_is_said(layout: Layout, model: Descriptor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "_PAUSES", (0.0,))
    with pytest.raises(ConflictError, match="missing"):
        keep_referrer(layout, referrer_bytes(model, NOTE, [note(b"absent")]))
    assert referrers(layout, model.digest) == []
    layout.put(b"absent", NOTE)
    keep_referrer(layout, referrer_bytes(model, NOTE, [note(b"absent")]))
    assert len(referrers(layout, model.digest)) == 1


def age(layout: Layout) -> None:
    then = time.time() - 7200
    for path in (*layout.blobs.iterdir(), *(layout.root / "refs").rglob("*")):
        if path.is_file():
            os.utime(path, (then, then))


def test_a_referrer_stays_exactly_as_long_as_its_subject(layout: Layout, model: Descriptor) -> None:
    signature = attach(layout, model.digest, NOTE, [note(b"signed")])
    attach(layout, signature.digest, NOTE, [note(b"countersigned")])
    age(layout)
    assert collect(layout).blobs == ()
    assert len(referrers_below(layout, [model.digest])) == 2
    RefStore(layout).delete("models", "m", "1")
    gone = collect(layout).blobs
    assert signature.digest in gone
    assert list(layout.blobs.iterdir()) == []
    assert list((layout.root / "refs" / "referrers").iterdir()) == []


def test_a_bento_keeps_its_indexes_and_what_refers_to_them(layout: Layout, model: Descriptor) -> None:
    image = layout.put(Manifest(layout.put(b"{} ", "c"), (layout.put(b"layer", "l"),)).to_bytes(), MANIFEST)
    absent = Descriptor(MANIFEST, "sha256:" + "3" * 64, 10)
    index = keep_index(layout, bento_index((image, ""), (absent, ""), (model, "bento")))
    assert index.media_type == INDEX
    signature = attach(layout, index.digest, NOTE, [note(b"signed")])
    on_image = attach(layout, image.digest, NOTE, [note(b"of the image")])
    age(layout)
    assert collect(layout).blobs == ()
    assert indexes(layout, model.digest) == [index]
    assert verify_store(layout).faults == ()
    usage = measure(layout)
    assert (usage.unreferenced, usage.names[0].total) == (0, usage.stored)
    found = notes_of(layout, [model.digest, index.digest, image.digest])
    assert {each["digest"] for each in found} == {signature.digest, on_image.digest}
    RefStore(layout).delete("models", "m", "1")
    collect(layout)
    assert list(layout.blobs.iterdir()) == []
    assert indexes(layout, model.digest) == []


def test_an_image_may_list_the_layers_of_a_model(layout: Layout) -> None:
    """They are made from the files of the model, and need not be stored again."""
    data = layout.put(b"weights", "application/octet-stream")
    files = json.dumps([{"path": "models/m/w", "size": 7, "sha256": data.digest[7:]}])
    layer = Descriptor("x.tar", "sha256:" + "1" * 64, 2048, {FILES_ANNOTATION: files})
    bento = layout.put(Manifest(layout.put(b"{}", "c"), (layer,)).to_bytes(), MANIFEST)
    RefStore(layout).set("bentos", "b", "1", bento)
    plain = Descriptor("y.tar", layer.digest, layer.size)
    image = layout.put(Manifest(layout.put(b"{} ", "c"), (plain,)).to_bytes(), MANIFEST)
    keep_index(layout, bento_index((image, ""), (bento, "bento")))
    assert verify_store(layout).faults == ()


def test_verify_names_what_a_referrer_lacks(layout: Layout, model: Descriptor) -> None:
    attach(layout, model.digest, NOTE, [note(b"signed")])
    layout.blob_path(sha256_bytes(b"signed")).unlink()
    (fault,) = verify_store(layout).faults
    assert (fault.kind, fault.what, fault.touches) == ("missing", sha256_bytes(b"signed"), ("models/m:1",))
    verify_store(layout, repair=True)
    assert verify_store(layout).faults == ()
    assert referrers(layout, model.digest) == []
    attach(layout, model.digest, NOTE, [note(b"signed")])
    assert len(referrers(layout, model.digest)) == 1


def test_damage_and_lies_in_the_folder_mislead_nobody(layout: Layout, model: Descriptor) -> None:
    signature = attach(layout, model.digest, NOTE, [note(b"signed")])
    folder = layout.root / "refs" / "referrers" / model.digest[7:]
    other = attach(layout, signature.digest, NOTE, [note(b"other")])
    (folder / other.digest[7:]).touch()  # which has another subject
    (folder / "odd").touch()
    (folder / ("4" * 64)).mkdir()
    assert [each.digest for each in referrers(layout, model.digest)] == [signature.digest]
    path = layout.blob_path(signature.digest)
    path.chmod(0o600)
    path.write_bytes(b"{}")
    assert referrers(layout, model.digest) == []
    assert referrers(layout, "sha256:" + "9" * 64) == []


def test_an_archive_carries_what_is_attached(layout: Layout, model: Descriptor, tmp_path: Path) -> None:
    roots = [archive_root(model, "model", "m:1")]
    write_archive(layout, with_attached(layout, roots), tmp_path / "bare.tar")
    plain = keep_index(layout, bento_index((model, "bento")))
    keep_index(layout, bento_index((Descriptor(MANIFEST, "sha256:" + "3" * 64, 10), ""), (model, "bento")))
    assert with_attached(layout, roots) == roots
    signature = attach(layout, model.digest, NOTE, [note(b"signed")])
    above = attach(layout, signature.digest, NOTE, [note(b"countersigned")])
    on_index = attach(layout, plain.digest, NOTE, [note(b"signed")])
    expected = [model.digest, plain.digest, *sorted(each.digest for each in (signature, above, on_index))]
    # "image.index" comes before "image.manifest"
    assert [each.digest for each in with_attached(layout, roots)] == expected
    digest, _ = write_archive(layout, with_attached(layout, roots), tmp_path / "a.tar")
    other = Layout(tmp_path / "other")
    with open_archive(tmp_path / "a.tar", other) as archive:
        check_attached(archive)
        archive.take(other)
        assert keep_attached(archive, other) == 3
    assert [each.digest for each in referrers_below(other, [model.digest])] == [signature.digest, above.digest]
    assert [each.digest for each in referrers(other, indexes(other, model.digest)[0].digest)] == [on_index.digest]
    assert write_archive(other, with_attached(other, roots), tmp_path / "b.tar")[0] == digest


def test_an_archive_with_a_stray_referrer_is_refused(layout: Layout, model: Descriptor, tmp_path: Path) -> None:
    signature = attach(layout, model.digest, NOTE, [note(b"signed")])
    above = attach(layout, signature.digest, NOTE, [note(b"countersigned")])
    stray = Descriptor(MANIFEST, above.digest, above.size, {KIND: "referrer"})
    write_archive(layout, [archive_root(model, "model", "m:1"), stray], tmp_path / "a.tar")
    with open_archive(tmp_path / "a.tar", layout) as archive, pytest.raises(VerificationError, match="refers to"):
        check_attached(archive)
