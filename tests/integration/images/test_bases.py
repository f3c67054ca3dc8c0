"""Base images: where they are taken from, which one of an index, and what a base has to have."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bentotool.errors import BentotoolError, BuildError, NotFoundError, VerificationError
from bentotool.images.basefiles import find_python
from bentotool.images.baseimage import BaseImage, find_base
from bentotool.images.config import image_config
from bentotool.imagespec import ImagePlan
from bentotool.oci.layout import Layout
from bentotool.oci.registry import Registry
from bentotool.transfer.places import KnownPlaces
from bentotool.transfer.result import no_progress

pytestmark = pytest.mark.timeout(120)
PYTHON = "usr/local/bin/python3.12"


def find(layout: Layout, text: str, platform: str = "linux/amd64", *, offline: bool = False) -> BaseImage:
    return find_base(text, platform, layout, Registry, offline=offline, progress=no_progress)


@pytest.mark.parametrize(("platform", "architecture"), [("linux/amd64", "amd64"), ("linux/arm64", "arm64")])
def test_the_right_one_of_an_index(layout: Layout, base: str, platform: str, architecture: str) -> None:
    found = find(layout, base, platform)
    assert found.config["architecture"] == architecture
    assert all(layout.has_sized(layer.digest, layer.size) for layer in found.layers)
    assert found.env["LANG"] == "C.UTF-8"


def test_a_platform_that_a_base_lacks(layout: Layout, make_base: Any) -> None:
    both = make_base("both", platforms=("linux/s390x", "linux/arm64"))
    with pytest.raises(NotFoundError, match="no image for linux/amd64") as caught:
        find(layout, f"oci:{both}")
    assert caught.value.hint == "it has: linux/arm64, linux/s390x; name another with --base"
    with pytest.raises(NotFoundError, match="is for linux/arm64, not for linux/amd64"):
        find(layout, f"oci:{make_base('one', platforms=('linux/arm64',))}")


def test_a_path_that_was_taken_for_a_name(
    layout: Layout, base: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").symlink_to(base[4:], target_is_directory=True)
    (tmp_path / "file.gz").write_bytes(b"\x1f\x8b")
    for text, kind in (("here", "oci"), ("./here", "oci"), ("file.gz", "oci-archive")):
        with pytest.raises(BentotoolError) as caught:
            find(layout, text, offline=True)
        assert str(caught.value.hint).endswith(f"--base {kind}:{text}")
    with pytest.raises(VerificationError, match="no archive") as caught:
        find(layout, "oci-archive:file.gz")
    assert "plain tar" in str(caught.value.hint)


def test_dockers_own_format(layout: Layout, make_base: Any) -> None:
    found = find(layout, f"oci:{make_base(docker=True)}")
    assert [layer.media_type for layer in found.layers] == ["application/vnd.oci.image.layer.v1.tar+gzip"]
    assert find_python(layout, found, "3.12") == f"/{PYTHON}"


def test_an_archive_of_a_layout(layout: Layout, base: str, tmp_path: Path, require_tool: Callable[[str], str]) -> None:
    target = tmp_path / "base.tar"
    copy = [require_tool("skopeo"), "copy", "-q", "--override-arch", "amd64", base, f"oci-archive:{target}:it"]
    subprocess.run(copy, check=True, timeout=60)
    for text in (f"oci-archive:{target}", f"oci-archive:{target}:it", f"oci:{target}"):
        assert find(layout, text).diff_ids == find(layout, base).diff_ids
    with pytest.raises(NotFoundError, match="0 images named 'other'"):
        find(layout, f"oci-archive:{target}:other")


def test_an_archive_of_dockers_own_format(
    layout: Layout, make_base: Any, tmp_path: Path, require_tool: Callable[[str], str]
) -> None:
    base, target = f"oci:{make_base()}", tmp_path / "base.tar"
    copy = [require_tool("skopeo"), "copy", "-q", "--additional-tag", "us/base:10", base, f"docker-archive:{target}"]
    subprocess.run([*copy[:-1], f"{copy[-1]}:us/base:9"], check=True, timeout=60)
    with tarfile.open(target) as archive:
        assert "index.json" not in archive.getnames()
    for text in (f"oci-archive:{target}", f"oci-archive:{target}:9", f"oci:{target}:10"):
        found = find(layout, text)
        assert found.diff_ids == find(layout, base).diff_ids
        assert find_python(layout, found, "3.12") == f"/{PYTHON}"
    with pytest.raises(NotFoundError, match="0 images named '8'") as caught:
        find(layout, f"oci-archive:{target}:8")
    assert str(caught.value.hint).endswith(": 10, 9")


@pytest.mark.parametrize(
    "image",
    [
        None,
        {},
        {"Config": "none", "Layers": []},
        {"Config": "config", "Layers": []},
        {"Config": "config", "Layers": ["none"]},
        {"Config": "config", "Layers": [[]]},
        {"Config": "link", "Layers": ["config"]},
        {"Config": "config", "Layers": ["config"], "RepoTags": 5},
        {"Config": "config", "Layers": ["config"]},
    ],
)
def test_archives_that_contradict_themselves(layout: Layout, tmp_path: Path, image: Any) -> None:
    config = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": ["sha256:" + "0" * 64]}}
    files = {"manifest.json": json.dumps([image]).encode(), "config": json.dumps(config).encode()}
    with tarfile.open(tmp_path / "base.tar", "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(VerificationError):
        find(layout, f"oci-archive:{tmp_path / 'base.tar'}")
    assert not list(layout.blobs.glob("0" * 64))


def test_a_base_from_a_registry_is_kept_for_offline_work(
    layout: Layout, base: str, real_registry: Any, require_tool: Callable[[str], str]
) -> None:
    reference = f"{real_registry.host}/library/python:3.12-slim"
    copy = [require_tool("skopeo"), "copy", "-q", "--all", "--dest-tls-verify=false", base, f"docker://{reference}"]
    subprocess.run(copy, check=True, timeout=60)
    with pytest.raises(NotFoundError, match="not in the store"):
        find(layout, reference, offline=True)
    online = find(layout, reference, "linux/arm64")
    assert online.digest == find(layout, base, "linux/arm64").digest
    assert find(layout, reference, "linux/arm64", offline=True) == online
    assert online.public_name == reference
    assert KnownPlaces(layout).find(real_registry.host, online.digest) == ("library/python",)
    pinned = f"{real_registry.host}/library/python@{online.digest}"
    assert find(layout, pinned, "linux/arm64").digest == online.digest
    with pytest.raises(NotFoundError, match="no base image"):
        find(layout, f"{real_registry.host}/library/python:none")


def test_a_registry_with_dockers_own_format(
    layout: Layout, make_base: Any, real_registry: Any, require_tool: Callable[[str], str]
) -> None:
    source, reference = make_base(), f"{real_registry.host}/old/python:1"
    command = [require_tool("skopeo"), "copy", "-q", "--format", "v2s2", "--dest-tls-verify=false"]
    subprocess.run([*command, f"oci:{source}", f"docker://{reference}"], check=True, timeout=60)
    assert find_python(layout, find(layout, reference), "3.11") == "/usr/bin/python3.11"


@pytest.mark.parametrize("compress", ["gzip", "none"])
def test_the_python_of_a_base(layout: Layout, make_base: Any, compress: str) -> None:
    layers = (("usr/bin/python3.12", PYTHON, "bin/python3.9"), ("usr/bin/.wh.python3.12", "usr/bin/python3.10"))
    found = find(layout, f"oci:{make_base(layers=layers, compress=compress)}")
    assert find_python(layout, found, "3.12") == f"/{PYTHON}"
    assert find_python(layout, found, "3.9") == "/bin/python3.9"
    with pytest.raises(BuildError, match="has Python 3.10, 3.12, 3.9, and the Bento needs 3.13"):
        find_python(layout, found, "3.13")


@pytest.mark.parametrize("removed", ["usr/local/bin/.wh.python3.12", "usr/local/.wh.bin", "usr/local/bin/.wh..wh..opq"])
def test_a_python_that_a_later_layer_removes(layout: Layout, make_base: Any, removed: str) -> None:
    found = find(layout, f"oci:{make_base(layers=((PYTHON,), (removed,)))}")
    with pytest.raises(BuildError, match="has no Python"):
        find_python(layout, found, "3.12")


def test_a_base_with_musl(layout: Layout, make_base: Any) -> None:
    found = find(layout, f"oci:{make_base(layers=((PYTHON, 'lib/ld-musl-x86_64.so.1'),))}")
    with pytest.raises(BuildError, match="musl"):
        find_python(layout, found, "3.12")


def damage(where: Path, change: Callable[[dict[str, Any]], None], make_base: Any) -> str:
    """A layout whose one manifest was changed and listed anew, so that only its content is wrong."""
    document = json.loads((where / "index.json").read_bytes())
    entry = document["manifests"][0]
    manifest = json.loads((where / "blobs" / "sha256" / entry["digest"][7:]).read_bytes())
    change(manifest)
    data = json.dumps(manifest).encode()
    make_base.write(where.name, [{**entry, "digest": make_base.blob(where, data), "size": len(data)}])
    return f"oci:{where}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body["layers"][0].update(mediaType="text/plain"), "a layer of type 'text/plain'"),
        (lambda body: body.update(layers=[]), "no layers"),
        (lambda body: body["layers"].append(body["layers"][0]), "does not list its layers"),
        (lambda body: body.update(manifests=[]), "both"),
        (lambda body: body["config"].update(digest="sha256:../x"), "not a sha256 digest"),
        (lambda body: body["layers"][0].update(size=3), "3"),
    ],
)
def test_bases_that_contradict_themselves(
    layout: Layout, make_base: Any, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    with pytest.raises(VerificationError, match=words):
        find(layout, damage(make_base(), change, make_base))


def test_damaged_blobs(layout: Layout, make_base: Any) -> None:
    where = make_base()
    for path in sorted((where / "blobs" / "sha256").iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(VerificationError):
            find(layout, f"oci:{where}")
        path.write_bytes(data)
    for path in sorted((where / "blobs" / "sha256").iterdir()):
        path.rename(path.with_suffix(".gone"))
        with pytest.raises(BentotoolError):
            find(Layout(layout.root.with_name("other")), f"oci:{where}")
        path.with_suffix(".gone").rename(path)


@pytest.mark.parametrize(
    ("key", "value", "sound"),
    [
        ("rootfs", "x", False),
        ("rootfs", {"diff_ids": [7]}, False),
        ("rootfs", {"diff_ids": ["sha256:zz"]}, False),
        ("os", ["linux"], False),
        ("architecture", None, False),
        ("config", [1], True),
        ("config", {"Env": 5, "Labels": [1]}, True),
        ("config", {"Env": [None, "A", "=b", "C=d"], "Labels": {"a": 1}}, True),
        ("history", {"a": 1}, True),
        ("history", [None, 3], True),
        ("variant", 8, True),
    ],
)
def test_odd_configs(layout: Layout, make_base: Any, key: str, value: Any, sound: bool) -> None:
    where = make_base()

    def change(body: dict[str, Any]) -> None:
        config = json.loads((where / "blobs" / "sha256" / body["config"]["digest"][7:]).read_bytes()) | {key: value}
        data = json.dumps(config).encode()
        body["config"] |= {"digest": make_base.blob(where, data), "size": len(data)}

    text = damage(where, change, make_base)
    if not sound:
        with pytest.raises(BentotoolError):
            find(layout, text)
        return
    found = find(layout, text)
    plan = ImagePlan("n", "1", "d", "s", "linux/amd64", "3.12", "linux/amd64", "b", "option", "/opt/e", {}, "1:1",
                     "/", (), (), 1, {}, ())  # fmt: skip
    made = image_config(plan, found, [("code", found.diff_ids[0])], 0)
    assert len(made["rootfs"]["diff_ids"]) == sum(not each.get("empty_layer") for each in made["history"]) == 2
    assert all("=" in each and not each.startswith("=") for each in made["config"]["Env"])
    assert json.loads(json.dumps(made)) == made


def hostile_tar(kind: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("../../usr/local/bin/python3.12" if kind == "climbs" else PYTHON)
        member.type, member.linkname = (tarfile.SYMTYPE, "/etc/shadow") if kind == "link" else (tarfile.REGTYPE, "")
        archive.addfile(member)
    data = buffer.getvalue()
    return data[:300] if kind == "cut" else b"\xff" * 2048 if kind == "noise" else data


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("link", nullcontext()),
        ("climbs", pytest.raises(BuildError, match="no Python")),
        ("cut", pytest.raises(BentotoolError)),
        ("noise", pytest.raises(VerificationError, match="damaged")),
    ],
)
def test_layers_are_looked_at_and_not_unpacked(layout: Layout, make_base: Any, kind: str, outcome: Any) -> None:
    where = make_base()
    data = gzip.compress(hostile_tar(kind))
    digest = make_base.blob(where, data)
    text = damage(where, lambda body: body["layers"][0].update(digest=digest, size=len(data)), make_base)
    with outcome:
        find_python(layout, find(layout, text), "3.12")
