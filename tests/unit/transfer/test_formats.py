"""The documents around a Bento in a registry: golden digests, and damage that is refused."""

from __future__ import annotations

import json

import pytest

from bentotool.errors import BentotoolError, VerificationError
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest
from bentotool.oci.digest import sha256_bytes
from bentotool.transfer.formats import BentoConfig, NeededModel, bento_index, identity, volume_view

DIGEST = "sha256:" + "a" * 64
BENTO = Descriptor(MANIFEST, "sha256:" + "b" * 64, 100)
MODEL = Descriptor(MANIFEST, DIGEST, 200)
NEEDED = NeededModel("iris", "1", DIGEST)


def manifest(**annotations: str) -> Manifest:
    layer = Descriptor("application/vnd.cncf.model.weight.v1.tar", "sha256:" + "c" * 64, 5000)
    return Manifest(Descriptor("application/x", "sha256:" + "d" * 64, 2), (layer,), annotations=annotations)


def test_the_index_is_a_function_of_the_bento() -> None:
    index = bento_index(BENTO, BentoConfig("svc", "7", (NEEDED,)), [(NEEDED, MODEL)])
    document = json.loads(index.to_bytes())
    assert document["artifactType"] == "application/vnd.bentotool.bento.index.v1"
    assert [entry["annotations"] for entry in document["manifests"]] == [
        {"io.bentotool.kind": "bento"},
        {"io.bentotool.kind": "model", "io.bentotool.model": "iris:1"},
    ]
    assert all(entry["platform"] == {"architecture": "unknown", "os": "unknown"} for entry in document["manifests"])
    assert not any("artifactType" in entry for entry in document["manifests"])
    assert sha256_bytes(index.to_bytes()) == "sha256:754ac6dce86f8ae4d07b00bb7be83c2a9646cd0ecbbb874397f3368be4dc3bbc"


def test_the_volume_view_is_a_plain_image_over_the_same_layers() -> None:
    view = volume_view(MODEL, manifest())
    document, config = json.loads(view.manifest), json.loads(view.config)
    assert config["rootfs"] == {"type": "layers", "diff_ids": ["sha256:" + "c" * 64]}
    assert document["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert document["config"]["digest"] == view.config_descriptor.digest == sha256_bytes(view.config)
    assert [layer["mediaType"] for layer in document["layers"]] == ["application/vnd.oci.image.layer.v1.tar"]
    assert document["subject"] == {"mediaType": MANIFEST, "digest": DIGEST, "size": 200}
    assert "artifactType" not in document
    assert sha256_bytes(view.manifest) == "sha256:87935d78ec2a4cfd314c3f8ef3ab6b0766c5213bdfc3bcbf8f9e463d31d81a5f"


def test_a_compressed_layer_has_no_volume_view() -> None:
    zipped = Descriptor("application/vnd.cncf.model.weight.v1.tar+gzip", DIGEST, 1)
    with pytest.raises(BentotoolError, match="uncompressed"):
        volume_view(MODEL, Manifest(MODEL, (zipped,)))


def config(**changes: object) -> bytes:
    entry = {"alias": "iris:latest", "name": "iris", "version": "1", "digest": DIGEST, "repository": "r.example/iris"}
    return json.dumps({"schema": 1, "name": "svc", "version": "7", "models": [entry, entry], **changes}).encode()


def test_a_bento_config() -> None:
    found = BentoConfig.from_bytes(config())
    assert found == BentoConfig("svc", "7", (NeededModel("iris", "1", DIGEST, "r.example/iris"),))
    assert found.models[0].tag == "iris:1"


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"schema": "\x1b[2J"},
        {"name": None},
        {"name": "../evil"},
        {"name": "a/b"},
        {"version": "latest"},
        {"version": "../1"},
        {"version": 7},
        {"models": {}},
        {"models": ["iris"]},
        {"models": [{"name": "iris", "version": "1", "digest": "sha256:../../x"}]},
        {"models": [{"name": "iris", "version": "1"}]},
        {"models": [{"name": "..", "version": "1", "digest": DIGEST}]},
    ],
)
def test_a_damaged_bento_config_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(VerificationError):
        BentoConfig.from_bytes(config(**changes))


def test_identity_comes_from_annotations_and_is_checked() -> None:
    notes = {"io.bentotool.name": "iris", "org.opencontainers.image.version": "1"}
    assert identity(manifest(**notes)) == ("iris", "1")
    assert identity(manifest(), ("a", "b")) == ("a", "b")
    for damage in ({"io.bentotool.name": "../x"}, {"org.opencontainers.image.version": "a/b"}):
        with pytest.raises(VerificationError):
            identity(manifest(**{**notes, **damage}), ("a", "b"))
    with pytest.raises(VerificationError, match="no name"):
        identity(manifest())
