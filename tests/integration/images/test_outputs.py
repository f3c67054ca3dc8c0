"""Images as files: read back by skopeo, and by Docker's own loader where an engine is there."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.build.bentos import StoredBento
from bentotool.errors import VerificationError
from bentotool.images.outputs import Images, write_archive, write_folder
from bentotool.imagespec import BuiltImage
from bentotool.models.store import ModelStore
from bentotool.oci.descriptor import MANIFEST, Descriptor
from bentotool.oci.layout import Layout

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def make(cli: Callable[..., Any], bento: StoredBento, base: str, wheels: Path) -> Callable[..., Any]:
    common = ("containerize", bento.tag, "--offline", "--find-links", str(wheels), "--base", base)
    return lambda *arguments: cli(*common, *arguments)


def skopeo(require_tool: Callable[[str], str], *arguments: str) -> str:
    done = subprocess.run([require_tool("skopeo"), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_file_that_skopeo_reads_both_ways(
    make: Callable[..., Any], tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    target = tmp_path / "image.tar"
    done = make("-t", "example.com/team/double:1", "-t", "double", "--output", str(target))
    name = "oci-archive:" + f"{target}:1"
    assert json.loads(skopeo(require_tool, "inspect", name))["Digest"] == done["digest"]
    loaded = json.loads(skopeo(require_tool, "inspect", f"docker-archive:{target}:example.com/team/double:1"))
    assert loaded["Architecture"] == "amd64"
    skopeo(require_tool, "copy", "-q", f"docker-archive:{target}", f"dir:{tmp_path / 'copied'}")
    with tarfile.open(target) as archive:
        names = archive.getnames()
        (entry,) = json.load(archive.extractfile("manifest.json"))
    assert names[:3] == ["oci-layout", "index.json", "manifest.json"]
    assert entry["RepoTags"] == ["example.com/team/double:1", "double:latest"]
    first = target.read_bytes()
    make("-t", "example.com/team/double:1", "-t", "double", "--output", str(target))
    assert target.read_bytes() == first


def test_a_folder_that_holds_several(
    make: Callable[..., Any], tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    folder = tmp_path / "layout"
    one = make("-t", "a.example/x:one", "--output", f"oci:{folder}")
    both = make("-t", "a.example/x:both", "--platform", "linux/amd64,linux/arm64", "--output", f"oci:{folder}")
    make("-t", "a.example/x:one", "--output", f"oci:{folder}")
    assert json.loads(skopeo(require_tool, "inspect", f"oci:{folder}:one"))["Digest"] == one["digest"]
    inspect = ("inspect", "--override-arch", "arm64", f"oci:{folder}:both")
    assert json.loads(skopeo(require_tool, *inspect))["Architecture"] == "arm64"
    skopeo(require_tool, "copy", "-q", "--all", f"oci:{folder}:both", f"oci:{tmp_path / 'again'}:both")
    listed = json.loads((folder / "index.json").read_bytes())["manifests"]
    assert sorted(each["digest"] for each in listed) == sorted([one["digest"], both["digest"]])
    for path in (folder / "blobs" / "sha256").iterdir():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def test_a_tag_in_a_folder_is_one_image(
    make: Callable[..., Any], cli: Callable[..., Any], bento: StoredBento, wheels: Path, tmp_path: Path
) -> None:
    """Other tools go by the tag alone, and take the first of several."""
    folder = tmp_path / "layout"
    first = make("-t", "a:1", "--output", f"oci:{folder}")
    make("-t", "a:2", "--output", f"oci:{folder}")
    later = make("-t", "b:1", "--output", f"oci:{folder}", "--no-compress")
    assert first["digest"] != later["digest"]
    listed = json.loads((folder / "index.json").read_bytes())["manifests"]
    tags = {each["annotations"]["org.opencontainers.image.ref.name"]: each["digest"] for each in listed}
    assert (len(listed), tags) == (2, {"1": later["digest"], "2": first["digest"]})
    words = ("containerize", bento.tag, "--offline", "--find-links", str(wheels), "--base", f"oci:{folder}:1")
    assert cli(*words)["images"][0]["base_digest"] == later["digest"]
    index = json.loads((folder / "index.json").read_bytes())  # as another tool may have written it
    twice = {**index["manifests"][0], "annotations": {"org.opencontainers.image.ref.name": "1"}}
    (folder / "index.json").write_text(json.dumps({**index, "manifests": [*index["manifests"], twice]}))
    assert "the tag does not say which" in cli(*words, status=3)["hint"]


def test_nothing_is_left_where_a_blob_is_damaged(make: Callable[..., Any], layout: Layout, tmp_path: Path) -> None:
    done = make()
    (found,) = done["images"]
    blob = layout.blob_path(found["layers"][1]["digest"])
    size = blob.stat().st_size
    blob.unlink()
    blob.write_bytes(bytes(size))
    descriptor = Descriptor(MANIFEST, found["digest"], len(layout.read(found["digest"])))
    image = BuiltImage(found["platform"], descriptor, found["base"], found["base_digest"], found["size"], ())
    images = Images(layout, [image], [("iris", ModelStore(layout).get("iris:1").digest)], ["x:1"])
    with pytest.raises(VerificationError, match="damaged"):
        write_archive(images, tmp_path / "x.tar")
    with pytest.raises(VerificationError, match="damaged"):
        write_folder(images, tmp_path / "folder")
    assert not list(tmp_path.glob("*x.tar*"))
    assert not (tmp_path / "folder" / "index.json").exists()


def test_docker_loads_it(make: Callable[..., Any], tmp_path: Path, engine: Callable[..., str]) -> None:
    target = tmp_path / "image.tar"
    make("-t", "bentotool-test/double:1", "--output", str(target))
    assert "bentotool-test/double:1" in engine("load", "-i", str(target))
    config = json.loads(engine("image", "inspect", "bentotool-test/double:1"))[0]["Config"]
    engine("image", "rm", "bentotool-test/double:1")
    assert config["Entrypoint"][0] == "/opt/bentotool/env/bin/python"
    assert config["Healthcheck"]["Retries"] == 3
