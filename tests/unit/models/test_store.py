"""The Model Store: what an import makes of files, and what it never does."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from bentotool.errors import ConflictError, NotFoundError, UnsafeError, UsageError, VerificationError
from bentotool.models.importing import local_files, name_for
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails, ModelFile, build_manifest, plan_layers
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.layout import Layout

DETAILS = ModelDetails(
    "test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, ("numpy",), {"team": "a"}, {"n": 1}
)
FILES = {"w.bin": b"weights" * 1000, "config.json": b"{}", "README.md": b"# hi", "sub/tok.model": b"t"}


def folder(path: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def add(
    store: ModelStore, source: Path, name: str = "iris", version: str | None = None, **options: object
) -> StoredModel:
    taken = take_files(store.layout, name, local_files(source), lambda amount: None)
    return store.add(name, version, taken.files, DETAILS, layers=taken.layers, **options)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(Layout(tmp_path / "store"))


def test_manifest_is_a_modelpack_artifact_with_a_golden_digest(store: ModelStore, tmp_path: Path) -> None:
    model = add(store, folder(tmp_path / "m"))
    manifest = json.loads(store.layout.read(model.digest))
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    assert [layer["mediaType"].split(".model.")[1] for layer in manifest["layers"]] == [
        "weight.v1.tar",
        "weight.config.v1.tar",
        "doc.v1.tar",
    ]
    config = json.loads(store.layout.read(manifest["config"]["digest"]))
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in manifest["layers"]]}
    assert set(config) == {"descriptor", "config", "modelfs"}
    assert model.digest == "sha256:6056c58dafdfced8eb4c0ce6949f6bb97e6bfedf6924252060cfb40dc5a5b99d"


def test_same_content_same_version_and_one_copy_of_the_bytes(store: ModelStore, tmp_path: Path) -> None:
    first = add(store, folder(tmp_path / "a"))
    before = sorted(path.name for path in store.layout.blobs.iterdir())
    second = add(store, folder(tmp_path / "b"))
    assert (first.digest, first.tag, first.created) == (second.digest, second.tag, second.created)
    assert sorted(path.name for path in store.layout.blobs.iterdir()) == before
    other = add(store, folder(tmp_path / "c", {**FILES, "w.bin": b"other"}))
    assert other.version != first.version
    assert store.get("iris").digest == other.digest


def test_large_files_have_their_own_layer_and_layers_stay_few() -> None:
    files = [ModelFile(f"part-{n:04}.bin", 65 << 20, "sha256:" + "0" * 64) for n in range(300)]
    assert len(plan_layers(files[:100])) == 100
    grouped = plan_layers(files)
    assert len(grouped) <= 100
    assert [file.path for _, bundle in grouped for file in bundle] == [file.path for file in files]


def test_materialised_folder_has_the_files_and_no_second_copy(store: ModelStore, tmp_path: Path) -> None:
    model = add(store, folder(tmp_path / "m"))
    path = store.materialise(model)
    assert {str(p.relative_to(path).as_posix()): p.read_bytes() for p in path.rglob("*") if p.is_file()} == FILES
    blob = store.layout.blob_path(next(f.sha256 for f in model.files if f.path == "w.bin"))
    assert os.path.samefile(path / "w.bin", blob)
    assert (path / "w.bin").stat().st_mode & 0o222 == 0
    assert store.materialise(model) == path
    if sys.platform != "win32":
        assert [each for each in (path, *path.rglob("*")) if each.stat().st_mode & 0o222] == []


def test_explicit_version_is_kept_unless_replaced(store: ModelStore, tmp_path: Path) -> None:
    first = add(store, folder(tmp_path / "a"), version="1")
    assert add(store, folder(tmp_path / "a"), version="1").digest == first.digest
    changed = folder(tmp_path / "b", {"w.bin": b"new"})
    with pytest.raises(ConflictError):
        add(store, changed, version="1")
    assert store.get("iris:1").digest == first.digest
    assert add(store, changed, version="1", replace=True).digest != first.digest


def test_tag_and_delete(store: ModelStore, tmp_path: Path) -> None:
    old = add(store, folder(tmp_path / "a"))
    new = add(store, folder(tmp_path / "b", {"w.bin": b"new"}))
    assert store.tag(f"iris:{old.version}", "prod").digest == old.digest
    assert store.get("iris").digest == new.digest  # an alias of an older model is not the newest
    assert store.tag("iris:prod", "flower:1").tag == "flower:1"
    assert store.tag("iris:prod", "flower:1").digest == old.digest  # the same content once more is no conflict
    with pytest.raises(ConflictError) as caught:
        store.tag(f"iris:{new.version}", "prod")
    assert "--replace" in (caught.value.hint or "")
    assert store.get("iris:prod").digest == old.digest
    assert store.tag(f"iris:{new.version}", "prod", replace=True).digest == new.digest
    assert store.tag(f"iris:{old.version}", "prod", replace=True).digest == old.digest
    assert [ref.tag for ref in store.refs.matching("models", "iris:prod")] == ["prod"]
    assert {ref.tag for ref in store.refs.matching("models", "iris")} == {old.version, new.version, "prod"}
    for ref in store.refs.matching("models", "iris"):
        store.refs.delete("models", ref.name, ref.tag)
    with pytest.raises(NotFoundError):
        store.get("iris")


def test_damage_is_found_and_named(store: ModelStore, tmp_path: Path) -> None:
    model = add(store, folder(tmp_path / "m"))
    blob = store.layout.blob_path(next(f.sha256 for f in model.files if f.path == "w.bin"))
    blob.chmod(0o644)
    blob.write_bytes(b"X" + blob.read_bytes()[1:])
    with pytest.raises(VerificationError, match=r"w\.bin"):
        store.verify(model)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "missing", "loop"])
def test_links_out_of_the_folder_are_refused(tmp_path: Path, target: str) -> None:
    source = folder(tmp_path / "m")
    (tmp_path / "outside").write_text("secret")
    (source / "loop").symlink_to(target)
    with pytest.raises(UnsafeError):
        local_files(source)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege on Windows")
def test_links_inside_the_folder_are_followed(tmp_path: Path) -> None:
    source = folder(tmp_path / "m")
    (source / "alias.bin").symlink_to("w.bin")
    assert [f.name for f in local_files(source)] == ["README.md", "alias.bin", "config.json", "sub/tok.model", "w.bin"]


def test_nothing_to_import(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        local_files(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        local_files(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "expected"), [("Iris Model.onnx", "iris-model"), ("__x__.bin", "x"), ("ü.onnx", "model")]
)
def testname_for(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert name_for(tmp_path / name) == expected


def test_a_manifest_that_names_files_outside_the_model_is_refused(store: ModelStore, tmp_path: Path) -> None:
    model = add(store, folder(tmp_path / "m"))
    _, manifest, config = build_manifest(
        "other", "1", model.files, DETAILS, lambda d: store.layout.blob_path(d).open("rb", 0)
    )
    store.layout.put(config, "application/json")
    moved = {**manifest.annotations, "io.bentotool.model.prefix": "models/elsewhere"}
    from dataclasses import replace

    descriptor = store.layout.put(replace(manifest, annotations=moved).to_bytes(), "application/json")
    store.refs.set("models", "other", "1", descriptor)
    with pytest.raises(VerificationError, match="outside"):
        store.get("other:1")


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_a_link_in_place_of_a_file_is_not_served(store: ModelStore, tmp_path: Path) -> None:
    model = add(store, folder(tmp_path / "m"))
    blob = store.layout.blob_path(model.files[0].sha256)
    blob.rename(tmp_path / "outside")
    blob.symlink_to(tmp_path / "outside")
    with pytest.raises(VerificationError, match="not whole"):
        store.materialise(model)


def test_a_read_only_store_without_the_folder_says_what_to_do(
    store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = add(store, folder(tmp_path / "m"))

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Layout, "temporary", refuse)
        with pytest.raises(UsageError, match="read-only") as caught:
            store.materialise(model)
    assert "model export" in (caught.value.hint or "")
    made = store.materialise(model)
    monkeypatch.setattr(Layout, "temporary", refuse)
    assert store.materialise(model) == made
