"""The images of a Bento under its index: pushed with it, and pulled for the platforms that are wanted."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool import transfer
from bentotool.cli.main import main
from bentotool.errors import NotFoundError, UsageError, VerificationError
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.attached import Attachment, attach, indexes, keep_index, referrers
from bentotool.oci.checking import verify_store
from bentotool.oci.collect import collect
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest, canonical_json
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.refs import Ref, RefStore
from bentotool.oci.registry import Registry

CONFIG, LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"
NOTE, KIND = "application/vnd.test.note", "io.bentotool.kind"
NOWHERE = {"os": "unknown", "architecture": "unknown"}


@pytest.fixture
def here(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "a")


@pytest.fixture
def model(here: Layout, make_model: Callable[..., StoredModel]) -> StoredModel:
    return make_model(here)


@pytest.fixture
def bento(here: Layout, model: StoredModel, make_bento: Callable[..., Ref]) -> Ref:
    return make_bento(here, [model])


def remote(host: str, name: str) -> RemoteReference:
    return RemoteReference.parse(f"{host}/{name}")


def image(layout: Layout, model: StoredModel, platform: str) -> Descriptor:
    """An image with a layer of its own and the layers of the model; as an index lists it."""
    os_name, architecture, *variant = platform.split("/")
    base = layout.put(f"base of {platform}".encode() * 100, LAYER)
    layers = [base, *(Descriptor(LAYER, layer.digest, layer.size) for layer in model.manifest.layers)]
    system = {"os": os_name, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
    rootfs = {"type": "layers", "diff_ids": [layer.digest for layer in layers]}
    config = layout.put(canonical_json({**system, "rootfs": rootfs}), CONFIG)
    stored = layout.put(Manifest(config, tuple(layers)).to_bytes(), MANIFEST)
    return Descriptor(MANIFEST, stored.digest, stored.size, platform=system)


def with_images(layout: Layout, bento: Ref, model: StoredModel, *platforms: str) -> Descriptor:
    """Store an index of the Bento with images, and attach something to it and to the first of them."""
    images = [image(layout, model, each) for each in platforms]
    listed = (
        Descriptor(MANIFEST, bento.digest, bento.descriptor.size, {KIND: "bento"}, platform=NOWHERE),
        Descriptor(MANIFEST, model.digest, model.descriptor.size, {KIND: "model"}, platform=NOWHERE),
    )
    index = keep_index(layout, Index((*images, *listed), annotations={KIND: "bento"}).to_bytes())
    for subject in (index, images[0]):
        attach(layout, subject.digest, NOTE, [Attachment(b"signed", NOTE)])
    return index


@pytest.fixture
def index(here: Layout, bento: Ref, model: StoredModel) -> Descriptor:
    return with_images(here, bento, model, "linux/amd64", "linux/arm64/v8")


def push(host: str, here: Layout, bento: Ref, name: str) -> transfer.Transferred:
    with Registry(host, push=True) as registry:
        return transfer.push_bento(here, bento, remote(host, name), registry)


def test_images_go_out_and_come_back(
    real_registry: Any, here: Layout, bento: Ref, index: Descriptor, tmp_path: Path
) -> None:
    pushed = push(real_registry.host, here, bento, "images/all:1")
    assert (pushed.index, pushed.images, pushed.referrers) == (index.digest, ("linux/amd64", "linux/arm64/v8"), 2)
    there = Layout(tmp_path / "b")
    with Registry(real_registry.host, push=True) as registry:
        pulled = transfer.pull(there, remote(real_registry.host, "images/all:1"), registry)
        again = transfer.pull(there, remote(real_registry.host, "images/all:1"), registry)
        onward = transfer.push_bento(
            there, RefStore(there).get("bentos", "svc"), remote(real_registry.host, "images/onward:1"), registry
        )
    assert (pulled.images, pulled.referrers, again.moved) == (("linux/amd64", "linux/arm64/v8"), 2, 0)
    assert (onward.index, onward.images, onward.referrers) == (index.digest, pulled.images, 2)
    # the layers of the model lie there once, as its files
    stored = ModelStore(there).get("iris:1")
    assert not any(there.has(layer.digest) for layer in stored.manifest.layers)
    assert verify_store(there).faults == ()
    assert collect(there, grace=0).blobs == ()


def test_the_index_that_is_named_goes_out(
    real_registry: Any, here: Layout, bento: Ref, model: StoredModel, index: Descriptor
) -> None:
    """Not the one with more images that another command made meanwhile."""
    one = with_images(here, bento, model, "linux/arm64")
    with Registry(real_registry.host, push=True) as registry:
        target = remote(real_registry.host, "images/named:1")
        pushed = transfer.push_bento(here, bento, target, registry, index=one.digest)
        assert (pushed.index, pushed.images) == (one.digest, ("linux/arm64",))
        images = [each for each in Index.from_bytes(here.read(one.digest)).manifests if KIND not in each.annotations]
        here.blob_path(Manifest.from_bytes(here.read(images[0].digest)).layers[0].digest).unlink()
        with pytest.raises(VerificationError, match="no longer in the store"):
            transfer.push_bento(here, bento, target, registry, index=one.digest)
        assert registry.get_manifest("images/named", "1", (INDEX,)).descriptor.digest == one.digest


@pytest.mark.parametrize(
    ("platforms", "expected"),
    [
        (["linux/amd64"], ["linux/amd64"]),
        (["linux/arm64"], ["linux/arm64/v8"]),
        (["linux/arm64/v8", "linux/amd64"], ["linux/amd64", "linux/arm64/v8"]),
        (["none"], []),
    ],
)
def test_only_the_platforms_that_are_wanted(
    real_registry: Any, here: Layout, bento: Ref, index: Descriptor, tmp_path: Path,
    platforms: list[str], expected: list[str],
) -> None:  # fmt: skip
    push(real_registry.host, here, bento, "images/some:1")
    there = Layout(tmp_path / "b")
    with Registry(real_registry.host, push=True) as registry:
        pulled = transfer.pull(there, remote(real_registry.host, "images/some:1"), registry, platforms=platforms)
        assert (list(pulled.images), pulled.models) == (expected, ("iris:1",))
        entries = Index.from_bytes(here.read(index.digest)).manifests
        assert sum(there.has(each.digest) for each in entries) == 2 + len(expected)
        assert len(referrers(there, index.digest)) == 1
        assert verify_store(there).faults == ()
        # what is not all here cannot go out again as the same index; the Bento does
        bento_there = RefStore(there).get("bentos", "svc")
        onward = transfer.push_bento(there, bento_there, remote(real_registry.host, "images/part:1"), registry)
    assert (onward.index == index.digest) == (len(expected) == 2)
    # more can be had later
    with Registry(real_registry.host) as registry:
        rest = transfer.pull(there, remote(real_registry.host, "images/some:1"), registry)
    assert len(rest.images) == 2
    assert [each.digest for each in indexes(there, bento.digest)] == [index.digest]


def test_a_platform_that_is_not_there(
    real_registry: Any, here: Layout, bento: Ref, index: Descriptor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(real_registry.host, here, bento, "images/few:1")
    target, there = f"{real_registry.host}/images/few:1", ["--store", str(tmp_path / "b"), "--json"]
    assert main(["pull", target, "--platform", "windows/amd64", *there]) == 3
    error = json.loads(capsys.readouterr().err)["error"]
    assert "windows/amd64" in error["message"]
    assert "linux/amd64, linux/arm64/v8" in error["hint"]
    assert main(["pull", target, "--platform", "amd64", *there]) == 2
    assert not (tmp_path / "b" / "refs").exists()
    capsys.readouterr()
    assert main(["pull", target, "--platform", "linux/amd64", *there]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == ["linux/amd64"]


def test_without_images_there_is_nothing_to_choose(
    real_registry: Any, here: Layout, bento: Ref, tmp_path: Path
) -> None:
    pushed = push(real_registry.host, here, bento, "images/none:1")
    assert pushed.images == ()
    host, there = real_registry.host, Layout(tmp_path / "b")
    with Registry(host, push=True) as registry:
        transfer.push_model(here, RefStore(here).get("models", "iris"), remote(host, "images/model:1"), registry)
        with pytest.raises(NotFoundError, match="no image for linux/amd64"):
            transfer.pull(there, remote(host, "images/none:1"), registry, platforms=["linux/amd64"])
        with pytest.raises(UsageError, match="no images"):
            transfer.pull(there, remote(host, "images/model:1"), registry, platforms=["linux/amd64"])


def test_what_is_listed_as_an_image_must_be_one(
    real_registry: Any, here: Layout, bento: Ref, model: StoredModel, tmp_path: Path
) -> None:
    data = Manifest(here.put(b"{}", "application/x"), ()).to_bytes()
    odd = here.put(data, MANIFEST)
    listed = Descriptor(MANIFEST, odd.digest, odd.size, platform={"os": "linux", "architecture": "amd64"})
    top = Index(
        (
            listed,
            Descriptor(MANIFEST, bento.digest, bento.descriptor.size, {KIND: "bento"}),
            Descriptor(MANIFEST, model.digest, model.descriptor.size, {KIND: "model"}),
        )
    ).to_bytes()
    push(real_registry.host, here, bento, "images/odd:1")
    with Registry(real_registry.host, push=True) as registry:
        registry.upload_blob(
            "images/odd", Descriptor("x", Manifest.from_bytes(data).config.digest, 2), lambda: io.BytesIO(b"{}")
        )
        registry.upload_manifest("images/odd", odd.digest, data, MANIFEST)
        registry.upload_manifest("images/odd", "2", top, INDEX)
        with pytest.raises(VerificationError, match="listed as an image"):
            transfer.pull(Layout(tmp_path / "b"), remote(real_registry.host, "images/odd:2"), registry)
    assert RefStore(Layout(tmp_path / "b")).list("bentos") == []


# --- with the tools of others ---------------------------------------------------------------------------------------


def command(*arguments: str) -> bytes:
    return subprocess.run(arguments, check=True, capture_output=True, timeout=120).stdout


@pytest.fixture
def second(start_registry: Any, tmp_path: Path) -> Any:
    """Another docker-registry, empty."""
    (tmp_path / "second").mkdir()
    with start_registry(tmp_path / "second") as host:
        yield host


def everything(host: str, name: str, folder: Path) -> tuple[transfer.Transferred, Layout]:
    there = Layout(folder)
    with Registry(host) as registry:
        return transfer.pull(there, remote(host, name), registry), there


def test_oras_mirrors_it_whole(
    require_tool: Callable[[str], str], real_registry: Any, second: str, here: Layout, bento: Ref, index: Descriptor,
    model: StoredModel, tmp_path: Path,
) -> None:  # fmt: skip
    for subject in (bento.digest, model.digest):
        attach(here, subject, NOTE, [Attachment(subject.encode(), NOTE)])
    pushed = push(real_registry.host, here, bento, "peers/source:1")
    plain = ["--from-plain-http", "--to-plain-http"]
    source, target = f"{real_registry.host}/peers/source:1", f"{second}/peers/oras:1"
    command(require_tool("oras"), "cp", "-r", *plain, source, target)
    pulled, there = everything(second, "peers/oras:1", tmp_path / "b")
    assert (pulled.index, pulled.digest) == (index.digest, bento.digest)
    assert (pulled.images, pulled.models) == (pushed.images, ("iris:1",))
    assert (pulled.referrers, pulled.notes) == (4, ())
    for subject in (index.digest, bento.digest, model.digest):
        assert referrers(there, subject) == referrers(here, subject)
    found = json.loads(command(require_tool("oras"), "discover", "--plain-http", "-o", "json", target))
    assert [each["artifactType"] for each in found["manifests"]] == [NOTE]


def test_skopeo_mirrors_it_but_for_referrers(
    require_tool: Callable[[str], str], real_registry: Any, second: str, here: Layout, bento: Ref, index: Descriptor,
    tmp_path: Path,
) -> None:  # fmt: skip
    push(real_registry.host, here, bento, "peers/source:2")
    source, target = f"docker://{real_registry.host}/peers/source:2", f"docker://{second}/peers/skopeo:2"
    insecure = ["--src-tls-verify=false", "--dest-tls-verify=false", "--insecure-policy"]
    command(require_tool("skopeo"), "copy", "--all", "--preserve-digests", *insecure, source, target)
    pulled, _ = everything(second, "peers/skopeo:2", tmp_path / "b")
    assert (pulled.index, pulled.digest, pulled.models) == (index.digest, bento.digest, ("iris:1",))
    assert (len(pulled.images), pulled.referrers) == (2, 0)
