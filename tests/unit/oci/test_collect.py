"""Garbage collection, checking and measuring of a store."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from bentotool.errors import ConflictError, VerificationError
from bentotool.oci import checking
from bentotool.oci import collect as collecting
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.descriptor import MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.layout import FILES_ANNOTATION, Layout
from bentotool.oci.reach import Reach
from bentotool.oci.refs import RefStore
from bentotool.oci.tar import TarEntry, tar_size
from bentotool.oci.usage import measure


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "store")


def virtual(layout: Layout, *contents: bytes) -> Descriptor:
    """A virtual layer over stored files. Its own digest is never looked at here."""
    files = [layout.put(content, "application/octet-stream") for content in contents]
    listing = [{"path": f"models/m/{n}", "size": f.size, "sha256": f.digest[7:]} for n, f in enumerate(files)]
    size = tar_size(TarEntry(str(item["path"]), int(str(item["size"]))) for item in listing)
    return Descriptor("application/x.tar", "sha256:" + "1" * 64, size, {FILES_ANNOTATION: json.dumps(listing)})


def manifest(layout: Layout, *contents: bytes, subject: Descriptor | None = None) -> Descriptor:
    config = layout.put(b"{}" + contents[0], "application/json")
    return layout.put(
        Manifest(config, (virtual(layout, *contents),), artifact_type="x/y", subject=subject).to_bytes(), MANIFEST
    )


def age(layout: Layout, seconds: float = 7200) -> None:
    for path in (*layout.blobs.iterdir(), *layout.temporary().iterdir()):
        then = time.time() - seconds
        os.utime(path, (then, then))


def names(layout: Layout) -> set[str]:
    return {f"sha256:{path.name}" for path in layout.blobs.iterdir()}


def test_collects_what_no_name_leads_to_and_keeps_shared_files(layout: Layout) -> None:
    refs = RefStore(layout)
    for tag, contents in {"1": (b"a", b"b"), "2": (b"b", b"c")}.items():
        refs.set("models", "m", tag, manifest(layout, *contents))
    before = names(layout)
    refs.delete("models", "m", "1")
    age(layout)
    planned = collect(layout, dry_run=True)
    assert names(layout) == before
    done = collect(layout)
    assert planned.blobs == done.blobs
    assert len(done.blobs) == 3  # manifest, config and the file that only it had
    assert done.size == sum(len(b) for b in (b"a", b"{}a")) + (planned.size - 4)
    assert verify_store(layout).faults == ()
    assert collect(layout).blobs == ()


def test_the_young_are_spared_and_using_a_blob_makes_it_young(layout: Layout) -> None:
    old, used = layout.put(b"old", "x/y"), layout.put(b"used", "x/y")
    age(layout)
    young = layout.put(b"young", "x/y")
    layout.put(b"used", "x/y")
    done = collect(layout)
    assert done.blobs == (old.digest,)
    assert done.young == 2
    assert names(layout) == {used.digest, young.digest}
    assert set(collect(layout, grace=0).blobs) == {used.digest, young.digest}


def test_committing_what_is_there_already_makes_it_young(layout: Layout) -> None:
    layout.put(b"data", "x/y")
    age(layout)
    with layout.writer() as writer:
        writer.write(b"data")
        writer.commit()
    assert collect(layout).blobs == ()


def test_naming_renews_everything_below(layout: Layout) -> None:
    main = manifest(layout, b"a", b"b")
    age(layout)
    refs = RefStore(layout)
    refs.set("models", "m", "1", main)
    refs.delete("models", "m", "1")
    assert collect(layout).blobs == ()


def test_a_signature_of_what_is_kept_is_kept(layout: Layout) -> None:
    main = manifest(layout, b"model")
    signature = manifest(layout, b"signature", subject=main)
    of_signature = manifest(layout, b"stamp", subject=signature)
    stray = manifest(layout, b"stray", subject=Descriptor(MANIFEST, "sha256:" + "0" * 64, 2))
    RefStore(layout).set("models", "m", "1", main)
    age(layout)
    gone = collect(layout).blobs
    assert stray.digest in gone
    assert len(gone) == 3
    assert {main.digest, signature.digest, of_signature.digest} <= names(layout)


def test_the_models_that_a_bento_names_are_kept(layout: Layout) -> None:
    model = manifest(layout, b"weights")
    config = layout.put(
        json.dumps({"models": [{"digest": model.digest}]}).encode(), "application/vnd.bentotool.bento.config.v1+json"
    )
    bento = layout.put(Manifest(config, (layout.put(b"code", "x/y"),)).to_bytes(), MANIFEST)
    RefStore(layout).set("bentos", "b", "1", bento)
    age(layout)
    assert collect(layout).blobs == ()
    assert measure(layout).unreferenced == 0


def test_what_an_index_lists_is_kept(layout: Layout) -> None:
    first, absent = manifest(layout, b"one"), Descriptor(MANIFEST, "sha256:" + "0" * 64, 2)
    index = layout.put(Index((first, absent)).to_bytes(), "application/vnd.oci.image.index.v1+json")
    RefStore(layout).set("bentos", "b", "1", index)
    age(layout)
    assert collect(layout).blobs == ()


def test_nothing_is_removed_while_a_name_is_damaged(layout: Layout) -> None:
    RefStore(layout).set("models", "m", "1", manifest(layout, b"a"))
    stray = layout.put(b"stray", "x/y")
    age(layout)
    path = layout.root / "refs" / "models" / "m" / "1.json"
    path.write_text("{")
    with pytest.raises(VerificationError, match=r"1\.json"):
        collect(layout)
    assert layout.has(stray.digest)
    report = verify_store(layout, repair=True)
    assert [fault.kind for fault in report.faults] == ["reference"]
    assert not path.exists()
    assert len(collect(layout).blobs) == 4


def test_nothing_is_removed_while_a_manifest_is_missing(layout: Layout) -> None:
    main = manifest(layout, b"a")
    RefStore(layout).set("models", "m", "1", main)
    age(layout)
    before = names(layout) - {main.digest}
    layout.blob_path(main.digest).unlink()
    with pytest.raises(VerificationError, match="m:1"):
        collect(layout)
    assert names(layout) == before


def test_leftovers_and_views_of_gone_manifests_go(layout: Layout) -> None:
    main = manifest(layout, b"a")
    RefStore(layout).set("models", "m", "1", main)
    kept, gone = (layout.root / "views" / "models" / name for name in (main.digest[7:], "f" * 64))
    draft = layout.temporary() / "draft"
    for folder in (kept, gone, draft / "sub"):
        folder.mkdir(parents=True)
    writer = layout.writer()
    writer.write(b"half")
    stale = layout.root / "refs" / "models" / "m" / ".1.json.0.tmp"
    stale.write_bytes(b"")
    assert collect(layout).leftovers == ()
    done = collect(layout, grace=0)
    assert len(done.leftovers) == 3
    assert done.views == ("sha256:" + "f" * 64,)
    assert kept.is_dir()
    assert not gone.exists()
    assert not list(layout.temporary().iterdir())
    assert not stale.exists()
    writer.__exit__(None, None, None)


def test_a_name_given_while_blobs_are_aside_brings_them_back(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The race that matters: named after the first look, collected before the second."""
    main = manifest(layout, b"a")
    age(layout)
    marks = iter([lambda: None, lambda: _name_quietly(layout, main)])
    real = collecting.mark

    def mark_after(*arguments: object) -> object:
        next(marks)()
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(collecting, "mark", mark_after)
    assert collect(layout).blobs == ()
    RefStore(layout).write_index()
    assert verify_store(layout).faults == ()


def _name_quietly(layout: Layout, main: Descriptor) -> None:
    path = layout.root / "refs" / "models" / "m" / "1.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"descriptor": main.to_dict(), "created": "2026-01-01T00:00:00+00:00", "size": 1}))
    for aside in layout.temporary().iterdir():
        assert aside.name.startswith("collected-")
        if main.digest[7:] in aside.name:
            os.replace(aside, layout.blob_path(main.digest))  # so that the walk sees the manifest


def test_a_blob_renewed_after_the_look_is_put_back(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = layout.put(b"data", "x/y").digest
    age(layout)
    replace = os.replace

    def renewed_first(source: object, target: object) -> None:
        if "collected-" in str(target):
            layout.renew(digest)
        replace(source, target)  # type: ignore[call-overload]

    monkeypatch.setattr(collecting.os, "replace", renewed_first)
    assert collect(layout).blobs == ()
    assert layout.has(digest)


def test_content_that_vanishes_while_it_is_named_is_reported(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    main = manifest(layout, b"a")
    refs = RefStore(layout)
    monkeypatch.setattr("time.sleep", lambda seconds: layout.blob_path(main.digest).unlink(missing_ok=True))
    with pytest.raises(ConflictError, match="collected"):
        refs.set("models", "m", "1", main)
    assert refs.list("models") == []


def test_what_a_killed_collection_set_aside_comes_back(layout: Layout) -> None:
    main = manifest(layout, b"a")
    RefStore(layout).set("models", "m", "1", main)
    os.replace(layout.blob_path(main.digest), layout.temporary() / f"collected-{main.digest[7:]}-0a")
    assert verify_store(layout).faults == ()
    assert layout.has(main.digest)


def test_verify_names_what_damage_touches_and_repair_lets_it_be_added_again(layout: Layout) -> None:
    refs = RefStore(layout)
    for tag, contents in {"1": (b"a", b"shared"), "2": (b"b", b"shared"), "3": (b"c",)}.items():
        refs.set("models", "m", tag, manifest(layout, *contents))
    digest = layout.put(b"shared", "x/y").digest
    layout.blob_path(digest).chmod(0o644)
    layout.blob_path(digest).write_bytes(b"Shared")
    seen: list[int] = []
    (fault,) = verify_store(layout, advance=seen.append).faults
    assert (fault.kind, fault.what, set(fault.touches)) == ("damaged", digest, {"models/m:1", "models/m:2"})
    assert sum(seen) == sum(path.stat().st_size for path in layout.blobs.iterdir())
    (repaired,) = verify_store(layout, repair=True).faults
    assert Path(str(repaired.quarantined)).read_bytes() == b"Shared"
    (missing,) = verify_store(layout).faults
    assert (missing.kind, missing.what) == ("missing", digest)
    layout.put(b"shared", "x/y")
    assert verify_store(layout).faults == ()


def test_usage_counts_shared_bytes_once(layout: Layout) -> None:
    refs = RefStore(layout)
    shared, alone = b"s" * 1000, b"a" * 500
    first = manifest(layout, alone, shared)
    refs.set("models", "m", "1", first)
    refs.set("models", "m", "alias", first)
    refs.set("models", "n", "1", manifest(layout, b"other", shared))
    layout.put(b"u" * 77, "x/y")
    usage = measure(layout)
    assert usage.unreferenced == 77
    assert usage.stored == sum(path.stat().st_size for path in layout.blobs.iterdir())
    by_name = {each.ref.ref: each for each in usage.names}
    assert by_name["m:1"].total == by_name["m:alias"].total
    assert by_name["m:1"].total - by_name["m:1"].alone == usage.shared == 1000


def test_another_users_blob_is_renewed_beside_it(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a store that a group shares, only the owner of a file may set its time."""
    digest = layout.put(b"theirs", "x/y").digest
    age(layout)

    def refuse(path: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr("bentotool.oci.layout.os.utime", refuse)
        assert layout.renew(digest)
    assert collect(layout).blobs == ()
    assert collect(layout, grace=0).blobs == (digest,)
    assert not list((layout.root / "used").iterdir())


def test_committing_again_heals_a_blob_of_the_wrong_size(layout: Layout) -> None:
    digest = layout.put(b"data", "x/y").digest
    layout.blob_path(digest).chmod(0o644)
    layout.blob_path(digest).write_bytes(b"da")
    with layout.writer() as writer:
        writer.write(b"data")
        writer.commit()
    assert layout.read(digest) == b"data"


def test_a_clone_is_used_where_the_disk_has_them(tmp_path: Path) -> None:
    from bentotool.oci.copying import clone_file

    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"x" * 100_000)
    target.write_bytes(b"")
    if clone_file(source, target):
        assert target.read_bytes() == source.read_bytes()
        source.write_bytes(b"changed")
        assert target.stat().st_size == 100_000
    else:
        assert target.read_bytes() == b""
    assert not clone_file(tmp_path / "absent", target)


def test_a_name_never_leads_to_what_is_not_there(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    refs = RefStore(layout)
    whole = manifest(layout, b"whole")
    refs.set("models", "m", "1", whole)
    broken = manifest(layout, b"broken")
    layout.blob_path(layout.put(b"broken", "x/y").digest).unlink()
    with pytest.raises(ConflictError, match="missing"):
        refs.set("models", "m", "1", broken)
    assert refs.get("models", "m:1").digest == whole.digest
    layout.blob_path(whole.digest).unlink()
    with pytest.raises(ConflictError, match="missing"):
        refs.alias("models", "m:1", "2")
    assert [ref.tag for ref in refs.list("models")] == ["1"]


def test_a_check_beside_a_collection_keeps_what_was_set_aside(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collection has moved a manifest away for a moment; that is no damage, and repair must not take it away."""
    main = manifest(layout, b"a")
    RefStore(layout).set("models", "m", "1", main)
    path = layout.blob_path(main.digest)
    away = path.with_name("away")

    def set_aside(*arguments: object, **options: object) -> dict[str, tuple[str, str]]:
        os.replace(path, away)
        return {}

    monkeypatch.setattr(checking, "_damaged", set_aside)
    monkeypatch.setattr("time.sleep", lambda seconds: seconds and away.exists() and os.replace(away, path))
    assert verify_store(layout, repair=True).faults == ()
    assert layout.has(main.digest)


@pytest.mark.parametrize("again", [True, False])
def test_what_is_deleted_while_it_is_followed_stops_no_collection(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    refs = RefStore(layout)
    kept, gone = manifest(layout, b"kept"), manifest(layout, b"gone")
    refs.set("models", "kept", "1", kept)
    refs.set("models", "gone", "1", gone)
    if again:
        refs.set("models", "twice", "1", gone)
    age(layout)
    real = collecting.reach

    def walk(where: Layout, digest: str, found: Reach) -> Reach:
        if digest == gone.digest and (layout.root / "refs" / "models" / "gone").exists():
            layout.blob_path(gone.digest).unlink()
            refs.delete("models", "gone", "1")
        return real(where, digest, found)

    monkeypatch.setattr(collecting, "reach", walk)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if again:  # a second name leads to what is missing: nobody knows what else that needs
        with pytest.raises(VerificationError, match="twice"):
            collect(layout)
        assert layout.has(layout.put(b"gone", "x/y").digest)
    else:
        assert len(collect(layout).blobs) == 2
    assert layout.has(kept.digest)


def test_a_lost_config_is_the_fault_and_not_its_manifest(layout: Layout) -> None:
    config = layout.put(b'{"models": []}', "application/vnd.bentotool.bento.config.v1+json")
    bento = layout.put(Manifest(config, (layout.put(b"code", "x/y"),)).to_bytes(), MANIFEST)
    RefStore(layout).set("bentos", "b", "1", bento)
    layout.blob_path(config.digest).unlink()
    (fault,) = verify_store(layout, repair=True).faults
    assert (fault.kind, fault.what, fault.touches) == ("missing", config.digest, ("bentos/b:1",))
    assert layout.has(bento.digest)
    with pytest.raises(VerificationError, match="b:1"):
        collect(layout)


def test_repair_leaves_what_another_import_would_bring_again(layout: Layout) -> None:
    """Bytes that have their digest and are no manifest: to move them away would mend nothing."""
    odd = layout.put(b"not a manifest", MANIFEST)
    RefStore(layout).set("models", "m", "1", odd)
    (fault,) = verify_store(layout, repair=True).faults
    assert (fault.kind, fault.what, fault.quarantined) == ("damaged", odd.digest, None)
    assert layout.has(odd.digest)


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes and links with names")
def test_what_does_not_belong_into_a_store_is_named_and_breaks_nothing(layout: Layout) -> None:
    """And nothing waits for a pipe that nobody writes to."""
    refs = RefStore(layout)
    refs.set("models", "m", "1", manifest(layout, b"a"))
    names_folder = layout.root / "refs" / "models"
    os.mkfifo(names_folder / "m" / "pipe.json")
    (names_folder / "m" / "folder.json").mkdir()
    (names_folder / "m" / "nowhere.json").symlink_to("gone")
    (names_folder / "loop").symlink_to("loop")
    (names_folder / "file").write_text("")
    (names_folder / "m" / "note.txt").write_text("")
    os.mkfifo(layout.blobs / ("a" * 64))
    (layout.blobs / ("b" * 64)).mkdir()
    (layout.blobs / ("c" * 64)).symlink_to("gone")
    (layout.blobs / "README").write_text("")
    assert [ref.ref for ref in refs.list("models")] == ["m:1"]
    odd = {names_folder / "m" / "pipe.json", names_folder / "m" / "folder.json", names_folder / "loop"}
    assert set(refs.damaged) == odd
    assert measure(layout).unreferenced == 0
    report = verify_store(layout, repair=True)
    wanted = {str(path) for path in odd} | {"sha256:" + letter * 64 for letter in "abc"}
    assert {fault.what for fault in report.faults} == wanted
    assert all(fault.quarantined for fault in report.faults)
    assert verify_store(layout).faults == ()
    assert collect(layout, grace=0).blobs == ()
    assert [ref.ref for ref in refs.list("models")] == ["m:1"]


def test_an_interrupt_ends_a_check_at_once(layout: Layout) -> None:
    """Of many blobs no more are read than were being read."""
    for number in range(200):
        layout.put(b"%d" % number * (1 << 16), "text/plain")
    read: list[int] = []

    def interrupt(amount: int) -> None:
        read.append(amount)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_store(layout, advance=interrupt, jobs=2)
    assert len(read) <= 2


def test_a_check_tells_every_byte(layout: Layout) -> None:
    sizes = [layout.put(b"x" * size, "text/plain").size for size in (10, 3 << 20)]
    told: list[int] = []
    assert verify_store(layout, advance=told.append).size == sum(sizes) == sum(told)
    assert max(told) <= 1 << 20


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
@pytest.mark.parametrize("kind", ["pipe", "link"])
@pytest.mark.parametrize("which", ["manifest", "file"])
def test_what_is_no_file_is_neither_waited_for_nor_served(
    layout: Layout, tmp_path: Path, kind: str, which: str
) -> None:
    made = manifest(layout, b"weights")
    refs = RefStore(layout)
    refs.set("models", "m", "1", made)
    digest = (
        made.digest if which == "manifest" else next(each for each in names(layout) if layout.read(each) == b"weights")
    )
    path = layout.blob_path(digest)
    outside = tmp_path / "outside"
    path.rename(outside)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(outside)  # its bytes are right now, and another's to change
    assert not layout.has(digest)
    with pytest.raises(VerificationError, match="not a file"):
        layout.read(digest)
    if which == "manifest":
        with pytest.raises(VerificationError):
            collect(layout, grace=0)
    assert [fault.what for fault in verify_store(layout).faults if fault.kind == "damaged"] == [digest]
    repaired = [fault for fault in verify_store(layout, repair=True).faults if fault.what == digest]
    assert [bool(fault.quarantined) for fault in repaired] == [True]
    assert not os.path.lexists(path)
    assert outside.read_bytes()
    assert layout.put(outside.read_bytes(), MANIFEST).digest == digest
    assert verify_store(layout).faults == ()


def test_the_bytes_of_what_is_unfinished_are_counted(layout: Layout) -> None:
    main = manifest(layout, b"a")
    RefStore(layout).set("models", "m", "1", main)
    fetched = layout.temporary() / "fetch-x" / "sub"
    fetched.mkdir(parents=True)
    (fetched / "w.bin").write_bytes(b"w" * 1000)
    (layout.temporary() / "part").write_bytes(b"p" * 500)
    draft = layout.temporary() / "draft"
    draft.mkdir()
    os.link(layout.blob_path(main.digest), draft / "shared")  # no bytes of its own
    (layout.root / "quarantine").mkdir()
    (layout.root / "quarantine" / "x").write_bytes(b"q" * 70)
    usage = measure(layout)
    assert (usage.unfinished, usage.quarantine) == (1500, 70)
    assert collect(layout, grace=0, dry_run=True).size == 1500
    assert collect(layout, grace=0).size == 1500
    usage = measure(layout)
    assert (usage.unfinished, usage.quarantine) == (0, 70)
