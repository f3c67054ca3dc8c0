"""What was done to a signed Bento, or to what proves its signature, is noticed: exit 4, and a reason.

Each way is tried in a real registry and in a store, with a key and with an identity.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bentotool.oci.attached import Attachment, referrer_bytes, referrers
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest, canonical_json
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.referrers import referrers_tag
from bentotool.oci.refs import RefStore
from bentotool.trust.bundle import BUNDLE, BUNDLE_LIMIT
from bentotool.trust.statements import COSIGN_SIGN, Statement, Subject

pytestmark = pytest.mark.timeout(180)

WEIGHTS = {"w.bin": b"weights" * 50_000, "empty.bin": b"", "config.json": b"{}"}


def _statement(digest: str, predicate_type: str = COSIGN_SIGN) -> bytes:
    return Statement((Subject("svc:7", digest.removeprefix("sha256:")),), predicate_type, {}).to_bytes()


# --- the artifact -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["weights", "model manifest", "code", "config"])
def test_something_else_under_its_name(
    what: str, scene: Any, who: Any, make_model: Callable[..., Any], make_bento: Callable[..., Any]
) -> None:
    """Somebody who may push puts another Bento in its place, as like it as may be."""
    if what == "weights":
        RefStore(scene.layout).delete("models", "iris", "1")
        files = {**WEIGHTS, "w.bin": WEIGHTS["w.bin"][:-1] + b"!"}
        make_bento(scene.layout, [make_model(scene.layout, files=files)])
    elif what == "model manifest":
        make_bento(scene.layout, [make_model(scene.layout, version="2")])
    else:
        _remade(scene, what)
    scene.publish()
    message = scene.refused("verify", scene.where, *who.counts)
    assert "nothing is attached to it" in message


def _remade(scene: Any, what: str) -> None:
    """The Bento with another byte of code, or of its configuration."""
    layout, old = scene.layout, Manifest.from_bytes(scene.layout.read(scene.bento.digest))
    config, layers = old.config, list(old.layers)
    if what == "config":
        said = {**json.loads(layout.read(config.digest)), "description": "harmless"}
        config = layout.put(canonical_json(said), config.media_type)
    else:
        code = bytearray(layout.read(layers[0].digest))
        code[600] ^= 1
        layers[0] = layout.put(bytes(code), layers[0].media_type)
    data = Manifest(config, tuple(layers), artifact_type=old.artifact_type, annotations=old.annotations).to_bytes()
    stored = layout.put(data, MANIFEST)
    descriptor = Descriptor(MANIFEST, stored.digest, stored.size, artifact_type=old.artifact_type)
    RefStore(layout).set("bentos", "svc", "7", descriptor, size=scene.bento.size)


def _of(scene: Any, what: str) -> str:
    """Digest of the blob that is meant."""
    bento = Manifest.from_bytes(scene.layout.read(scene.bento.digest))
    if what == "weights":
        model = Manifest.from_bytes(scene.layout.read(scene.objects["model"].digest))
        if scene.registry is not None:
            return max(model.layers, key=lambda each: each.size).digest
        files = [each for layer in model.layers for each in json.loads(layer.annotations["io.bentotool.files"])]
        return f"sha256:{max(files, key=lambda each: each['size'])['sha256'].removeprefix('sha256:')}"
    return {"manifest": scene.bento.digest, "config": bento.config.digest, "code": bento.layers[0].digest}[what]


@pytest.mark.parametrize("what", ["weights", "manifest", "config", "code"])
def test_a_byte_on_the_disk(what: str, scene: Any, who: Any, registry_folder: Path, tmp_path: Path) -> None:
    """Of the store, or of the registry, where whoever pulls notices."""
    digest = _of(scene, what)
    if scene.registry is None:
        file = scene.layout.root / "blobs" / "sha256" / digest[7:]
    else:
        file = registry_folder / f"data/docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
    whole = file.read_bytes()
    data = bytearray(whole)
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    try:
        if scene.registry is None or what == "manifest":
            scene.refused("verify", scene.where, *who.counts)
        else:  # of a registry, nothing but manifests is read to verify them
            scene.layout = Layout(tmp_path / "victim")
            assert "sha256" in scene.refused("pull", scene.remote)
    finally:
        file.write_bytes(whole)  # the other tests' registry has the same blobs


def test_the_tag_is_moved(scene: Any, who: Any, make_model: Callable[..., Any], make_bento: Callable[..., Any]) -> None:
    """To a Bento of another name, which nobody signed."""
    other = make_bento(scene.layout, [make_model(scene.layout, "other", files={"w.bin": b"x"})], "other", "7")
    if scene.registry is None:
        entry = scene.layout
        descriptor = Descriptor(
            MANIFEST,
            other.digest,
            len(entry.read(other.digest)),
            artifact_type="application/vnd.bentotool.bento.v1",
        )
        RefStore(entry).set("bentos", "svc", "7", descriptor, size=other.size)
    else:
        scene.done("push", "other", scene.remote)
    scene.refused("verify", scene.where, *who.counts)


# --- the signature ----------------------------------------------------------------------------------------------------


def test_the_signature_is_stripped(scene: Any, who: Any) -> None:
    scene.strip()
    assert "nothing is attached to it" in scene.refused("verify", scene.where, *who.counts)


@pytest.mark.parametrize("kind", ["index", "bento", "model"])
def test_the_signature_of_one_part_is_stripped(kind: str, scene: Any, who: Any) -> None:
    scene.strip(kind)
    assert kind in scene.refused("verify", scene.where, *who.counts)


def test_somebody_else_was_asked_for(scene: Any, who: Any) -> None:
    for options in who.others.values():
        message = scene.refused("verify", scene.where, *options)
        assert "not asked for" in message or "another key" in message


def test_a_bundle_of_another_artifact(
    scene: Any, who: Any, make_model: Callable[..., Any], make_bento: Callable[..., Any]
) -> None:
    """By the right signer, and about something else."""
    bundle = who.bundle(_statement("sha256:" + "0" * 64))
    scene.strip()
    for kind in scene.objects:
        scene.attach(kind, bundle)
    assert "another artifact" in scene.refused("verify", scene.where, *who.counts)


def test_a_signature_of_one_part_for_another(scene: Any, who: Any) -> None:
    """That of the model, attached to the Bento."""
    bundle = who.bundle(_statement(scene.objects["model"].digest))
    scene.strip("bento")
    scene.attach("bento", bundle)
    assert "another artifact" in scene.refused("verify", scene.where, *who.counts)


def test_another_type_of_payload(scene: Any, who: Any) -> None:
    digest = scene.objects["bento"].digest
    scene.strip("bento")
    scene.attach("bento", who.bundle(_statement(digest), "application/vnd.in-toto"))
    scene.refused("verify", scene.where, *who.counts)


@pytest.mark.parametrize("kind", ["https://slsa.dev/provenance/v1", "https://sigstore.dev/cosign/sign/v2"])
def test_another_type_of_predicate(kind: str, scene: Any, who: Any) -> None:
    """By the right signer, about the right thing, and no signature."""
    digest = scene.objects["bento"].digest
    scene.strip("bento")
    scene.attach("bento", who.bundle(_statement(digest, kind)))
    assert "no signature" in scene.refused("verify", scene.where, *who.counts)


def test_a_statement_that_was_changed(scene: Any, who: Any) -> None:
    digest = scene.objects["bento"].digest
    bundle = json.loads(who.bundle(_statement("sha256:" + "0" * 64)))
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(_statement(digest)).decode()
    scene.strip("bento")
    scene.attach("bento", json.dumps(bundle).encode())
    scene.refused("verify", scene.where, *who.counts)


def test_a_bundle_that_is_too_large(scene: Any, who: Any) -> None:
    digest = scene.objects["bento"].digest
    whole = who.bundle(_statement(digest))
    scene.strip("bento")
    scene.attach("bento", whole + b" " * BUNDLE_LIMIT)
    assert "more than" in scene.refused("verify", scene.where, *who.counts)


def test_a_thousand_referrers(scene: Any, who: Any, registry_folder: Path) -> None:
    """None of which proves anything: what is looked at has an end. They are put straight onto the disk."""
    about = scene.objects["bento"]
    scene.strip("bento")
    junk = who.bundle(_statement("sha256:" + "0" * 64))
    scene.attach("bento", junk)
    subject, listed = Descriptor(about.media_type, about.digest, about.size), []
    for number in range(1000):
        data = referrer_bytes(subject, BUNDLE, [Attachment(junk, BUNDLE)], {"note": str(number)})
        listed.append(Descriptor(MANIFEST, sha256_bytes(data), len(data), artifact_type=BUNDLE))
        for path, content in _files(scene, about.digest, listed[-1].digest, data, registry_folder):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if scene.registry is None:
        assert len(referrers(scene.layout, about.digest)) > 1000
    else:
        repository, tag = RemoteReference.parse(scene.remote).repository, referrers_tag(about.digest)
        scene.registry.upload_manifest(repository, tag, Index(tuple(listed)).to_bytes(), INDEX)
    assert "another artifact" in scene.refused("verify", scene.where, *who.counts)


def _files(scene: Any, subject: str, digest: str, data: bytes, registry_folder: Path) -> list[tuple[Path, bytes]]:
    """The files of which a referrer consists in a store, and in a docker-registry."""
    name = digest[7:]
    if scene.registry is None:
        root = scene.layout.root
        return [(root / "blobs" / "sha256" / name, data), (root / "refs" / "referrers" / subject[7:] / name, b"")]
    root = registry_folder / "data/docker/registry/v2"
    repository = RemoteReference.parse(scene.remote).repository
    link = root / "repositories" / repository / "_manifests" / "revisions" / "sha256" / name / "link"
    return [(root / "blobs" / "sha256" / name[:2] / name / "data", data), (link, digest.encode())]


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[" * 100_000], ids=["empty", "object", "binary", "deep"])
def test_what_is_no_bundle(data: bytes, scene: Any, who: Any) -> None:
    scene.strip("bento")
    scene.attach("bento", data)
    scene.refused("verify", scene.where, *who.counts)


def test_an_older_version_that_was_signed(
    scene: Any, who: Any, make_model: Callable[..., Any], make_bento: Callable[..., Any]
) -> None:
    """Replayed under the tag of a newer one: every signature of it holds."""
    old = scene.bento
    make_bento(scene.layout, [make_model(scene.layout, version="8")], version="8")
    scene.done("sign", "svc:8", *who.signs)
    newer = scene.remote.removesuffix(":7") + ":8"
    if scene.registry is None:
        descriptor = Descriptor(
            MANIFEST,
            old.digest,
            len(scene.layout.read(old.digest)),
            artifact_type="application/vnd.bentotool.bento.v1",
        )
        RefStore(scene.layout).set("bentos", "svc", "8", descriptor, size=old.size)
    else:
        scene.done("push", "svc:8", newer)
        assert scene.done("verify", newer, *who.counts)["verified"]
        scene.done("push", "svc:7", newer)
    where = "svc:8" if scene.registry is None else newer
    assert "signed as svc:7" in scene.refused("verify", where, *who.counts)
    assert scene.done("verify", where, "--alias", *who.counts)["verified"]


def test_junk_beside_it_hides_no_signature(scene: Any, who: Any) -> None:
    """Anybody may attach something to what they may read and push; a signature that holds still counts."""
    digest = scene.objects["bento"].digest
    other = who.bundle(_statement("sha256:" + "0" * 64))
    for data in (b"", b"{}", b"\xff" * 100, b"[" * 100_000, other, other[:-1], other + b" " * BUNDLE_LIMIT):
        scene.attach("bento", data)
    scene.place.attach(scene.objects["bento"], Attachment(b"hello", "text/plain"), "application/vnd.test.note", {})
    if scene.registry is not None:  # entries of its list that lead nowhere, or to what is no referrer
        repository, tag = RemoteReference.parse(scene.remote).repository, referrers_tag(digest)
        listed = Index.from_bytes(scene.registry.get_manifest(repository, tag).data).manifests
        for each in (scene.objects["model"], scene.objects["index"]):
            listed = (Descriptor(each.media_type, each.digest, each.size, artifact_type=BUNDLE), *listed)
        scene.registry.upload_manifest(repository, tag, Index(listed).to_bytes(), INDEX)
    verified = scene.done("verify", scene.where, *who.counts)
    assert len(next(each for each in verified["objects"] if each["kind"] == "bento")["rejected"]) >= 7
