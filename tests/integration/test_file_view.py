"""The original files of a model, got by other tools from the store's own folder."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.models.manifest import ModelDetails, ModelFile
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.layout import Layout
from bentotool.oci.usage import measure

FILES = {
    "w.bin": b"weights" * 5000,
    "same.bin": b"weights" * 5000,
    "empty.bin": b"",
    "config.json": b"{}",
    "sub/dir/t.bin": b"t",
}
DETAILS = ModelDetails("test", "raw", "data", "w.bin", {"inputs": [], "outputs": []}, (), {"team": "a"}, {})


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "own")


def index_of(layout: Layout) -> dict[str, dict[str, Any]]:
    document = json.loads((layout.root / "index.json").read_bytes())
    return {each["annotations"]["org.opencontainers.image.ref.name"]: each for each in document["manifests"]}


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def blobs(layout: Layout) -> set[str]:
    return {path.name for path in layout.blobs.iterdir()}


def test_oras_pulls_the_original_files_from_the_store(
    layout: Layout, make_model: Callable[..., StoredModel], require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    oras = require_tool("oras")
    make_model(layout, "iris", "1", FILES)
    make_model(layout, "other", "2.0-x_y", {"o.bin": b"other"})
    out = tmp_path / "out"
    for name in ("iris/1", f"@{index_of(layout)['iris/1']['digest']}"):
        source = f"{layout.root}{name}" if name.startswith("@") else f"{layout.root}:{name}"
        done = subprocess.run([oras, "pull", "--oci-layout", source, "-o", str(out / name[:3])], capture_output=True)
        assert done.returncode == 0, done.stderr
        assert tree(out / name[:3]) == FILES
    subprocess.run(
        [oras, "pull", "--oci-layout", f"{layout.root}:other/2.0-x_y", "-o", str(out / "o")],
        capture_output=True,
        check=True,
    )
    assert tree(out / "o") == {"o.bin": b"other"}


def test_skopeo_reads_the_store(
    layout: Layout, make_model: Callable[..., StoredModel], require_tool: Callable[[str], str], tmp_path: Path
) -> None:
    skopeo = require_tool("skopeo")
    model = make_model(layout, "iris", "1", FILES)
    for name, digest in (("models/iris:1", model.digest), ("iris/1", index_of(layout)["iris/1"]["digest"])):
        source = f"oci:{layout.root}:{name}"
        done = subprocess.run([skopeo, "inspect", "--raw", source], capture_output=True, check=True)
        assert done.stdout == layout.read(digest)
    copy = [skopeo, "--insecure-policy", "copy", "--preserve-digests", source, f"oci:{tmp_path / 'copy'}:x"]
    subprocess.run(copy, capture_output=True, check=True)
    assert (tmp_path / "copy" / "blobs" / "sha256" / digest[7:]).read_bytes() == layout.read(digest)


def test_the_view_is_a_modelpack_of_raw_files(layout: Layout, make_model: Callable[..., StoredModel]) -> None:
    model = make_model(layout, "iris", "1", FILES)
    index = index_of(layout)
    assert index["models/iris:1"]["digest"] == model.digest
    view = json.loads(layout.read(index["iris/1"]["digest"]))
    assert view["annotations"]["io.bentotool.files-of"] == model.digest
    assert view["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert {layer["annotations"]["org.opencontainers.image.title"] for layer in view["layers"]} == set(FILES)
    assert all(layer["mediaType"].endswith(".v1.raw") for layer in view["layers"])
    config = json.loads(layout.read(view["config"]["digest"]))
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in view["layers"]]
    assert set(config) == {"descriptor", "config", "modelfs"}


def test_the_view_is_the_same_everywhere(tmp_path: Path, make_model: Callable[..., StoredModel]) -> None:
    digests = set()
    for name in ("a", "b"):
        layout = Layout(tmp_path / name)
        make_model(layout, "iris", "1", FILES)
        digests.add(index_of(layout)["iris/1"]["digest"])
    assert len(digests) == 1


def test_a_view_lives_as_long_as_its_model(layout: Layout, make_model: Callable[..., StoredModel]) -> None:
    make_model(layout, "iris", "1", FILES)
    other = make_model(layout, "other", "1", {"o.bin": b"other"})
    kept = {index_of(layout)[name]["digest"] for name in ("iris/1", "other/1")}
    assert not collect(layout, grace=0).blobs
    assert not verify_store(layout).faults
    usage = measure(layout)
    assert usage.unreferenced == 0
    assert kept <= {f"sha256:{name}" for name in blobs(layout)}
    ModelStore(layout).refs.delete("models", "iris", "1")
    assert "iris/1" not in index_of(layout)
    collect(layout, grace=0)
    assert index_of(layout).keys() == {"models/other:1", "other/1"}
    assert len(blobs(layout)) == len(other.files) + 4  # manifest and config, of the model and of its view


def test_a_view_that_is_gone_or_forgotten_comes_back(layout: Layout, make_model: Callable[..., StoredModel]) -> None:
    make_model(layout, "iris", "1", FILES)
    before = index_of(layout)["iris/1"]
    layout.blob_path(before["digest"]).unlink()
    make_model(layout, "other", "1", {"o.bin": b"other"})
    assert layout.read(before["digest"])
    (layout.root / "refs" / ".views.json").write_bytes(b"[damaged")
    make_model(layout, "third", "1", {"o.bin": b"other"})
    assert index_of(layout)["iris/1"] == before


def test_one_more_tag_has_a_view_too(layout: Layout, make_model: Callable[..., StoredModel]) -> None:
    make_model(layout, "iris", "1", FILES)
    ModelStore(layout).tag("iris:1", "stable")
    index = index_of(layout)
    assert index["iris/stable"]["digest"] == index["iris/1"]["digest"]


def test_more_files_than_a_manifest_lists_have_no_view(layout: Layout) -> None:
    digest = layout.put(b"x", "application/octet-stream").digest
    files = [ModelFile(f"f{number}", 1, digest) for number in range(1001)]
    ModelStore(layout).add("many", "1", files, DETAILS)
    assert index_of(layout).keys() == {"models/many:1"}


def test_a_damaged_model_leaves_the_others_their_views(layout: Layout, make_model: Callable[..., StoredModel]) -> None:
    model = make_model(layout, "iris", "1", FILES)
    layout.blob_path(model.digest).unlink()
    (layout.root / "refs" / ".views.json").unlink()
    make_model(layout, "other", "1", {"o.bin": b"other"})
    assert index_of(layout).keys() == {"models/iris:1", "models/other:1", "other/1"}
