"""``sign``, ``attest``, ``verify`` and ``key`` as people type them: in a store, in a registry, and on the way."""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bentotool.cli.main import main
from bentotool.models.store import StoredModel
from bentotool.oci.attached import MADE_HERE, Attachment, attach, keep_index, referrer_bytes, referrers
from bentotool.oci.descriptor import EMPTY, EMPTY_JSON, INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.layout import Layout
from bentotool.oci.referrers import referrer_descriptor
from bentotool.oci.refs import Ref
from bentotool.trust.bundle import BUNDLE
from bentotool.trust.keys import load_public_key

Run = Callable[..., tuple[int, Any]]
SPDX = "application/spdx+json"


@pytest.fixture(autouse=True)
def _password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_KEY_PASSWORD", "secret")
    for name in ("COSIGN_PASSWORD", "BENTOTOOL_SIGNING_KEY", "SIGSTORE_ID_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command: its status, and its document or error."""

    def call(*words: object) -> tuple[int, Any]:
        capsys.readouterr()
        status = main([*map(str, words), "--json"])
        printed = capsys.readouterr()
        return status, json.loads(printed.out or printed.err.splitlines()[-1])

    return call


@pytest.fixture
def key(tmp_path: Path, run: Run) -> Path:
    status, made = run("key", "new", tmp_path / "release.key")
    assert (status, made["type"], made["encrypted"]) == (0, "ecdsa-p256", True)
    return Path(made["path"])


@pytest.fixture
def bento(store: Path, make_model: Any, make_bento: Any) -> Ref:
    layout = Layout(store)
    ref: Ref = make_bento(layout, [make_model(layout)])
    return ref


def kinds(document: Any) -> list[str]:
    return [each["kind"] for each in document["objects"]]


def test_a_bento_of_the_store(run: Run, key: Path, bento: Ref) -> None:
    status, document = run("sign", "svc", "--key", key)
    assert status == 0
    assert (document["tag"], document["digest"]) == ("svc:7", bento.digest)
    assert document["signer"] == f"key {load_public_key(key.with_suffix('.pub')).fingerprint}"
    assert [each["kind"] for each in document["signed"]] == ["index", "bento", "model", "model"]
    assert all(each["new"] for each in document["signed"])
    assert not any(each["new"] for each in run("sign", "svc", "--key", key)[1]["signed"])
    status, document = run("verify", "svc", "--key", key.with_suffix(".pub"))
    assert (status, document["verified"], kinds(document)) == (0, True, ["index", "bento", "model"])
    assert run("verify", "iris", "--key", key.with_suffix(".pub"))[1]["tag"] == "iris:1"


def test_whose_signatures_count_has_to_be_said(run: Run, key: Path, bento: Ref, tmp_path: Path) -> None:
    assert run("sign", "svc", "--key", key)[0] == 0
    status, document = run("verify", "svc")
    assert (status, document["error"]["code"]) == (2, "usage")
    assert "anybody can sign" in document["error"]["message"]
    assert run("verify", "svc", "--identity", "ada@example.com")[0] == 2
    assert run("verify", "svc", "--issuer", "https://issuer.example")[0] == 2
    assert run("key", "new", tmp_path / "other.key", "--type", "ed25519")[0] == 0
    status, document = run("verify", "svc", "--key", tmp_path / "other.pub")
    assert (status, document["error"]["code"], document["error"]["verified"]) == (4, "verification_failed", False)
    assert "with another key than those given" in document["error"]["message"]
    assert [each["signed"] for each in document["error"]["objects"]] == [False, False, False]


def test_nothing_signed(run: Run, key: Path, bento: Ref) -> None:
    status, document = run("verify", "svc", "--key", key.with_suffix(".pub"))
    assert status == 4
    assert "nothing is attached to it" in document["error"]["message"]


def test_people_are_told_who_signed_what(key: Path, bento: Ref, capsys: pytest.CaptureFixture[str]) -> None:
    public, fingerprint = key.with_suffix(".pub"), load_public_key(key.with_suffix(".pub")).fingerprint
    assert main(["sign", "svc", "--key", str(key), "-a", "stage=prod"]) == 0
    assert f"signed svc:7 with key {fingerprint}" in capsys.readouterr().out
    assert main(["verify", "svc", "--key", str(public)]) == 0
    shown = capsys.readouterr().out
    assert f"bento svc:7 {bento.digest}: ok\n  signature by key {fingerprint} stage=prod" in shown
    assert f"model files by key {fingerprint}" in shown
    assert shown.endswith("svc:7 is verified\n")
    assert main(["verify", "svc", "--key", str(public), "-a", "stage=test"]) == 4
    assert "NOT SIGNED" in capsys.readouterr().out


def test_bytes_that_are_not_what_was_signed(run: Run, key: Path, bento: Ref, store: Path) -> None:
    assert run("sign", "svc", "--key", key)[0] == 0
    layout = Layout(store)
    weights = max(layout.blobs.iterdir(), key=lambda path: path.stat().st_size)
    weights.chmod(0o600)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    status, document = run("verify", "svc", "--key", key.with_suffix(".pub"))
    assert (status, document["error"]["code"]) == (4, "verification_failed")
    assert "is signed, and damaged in the store" in document["error"]["message"]
    assert run("verify", "svc", "--key", key.with_suffix(".pub"), "--no-content")[0] == 0


def test_signatures_travel(run: Run, key: Path, bento: Ref, real_registry: Any, tmp_path: Path) -> None:
    remote, public = f"{real_registry.host}/travel:7", key.with_suffix(".pub")
    status, document = run("push", "svc", remote, "--sign", "--key", key)
    assert (status, document["referrers"], len(document["signed"])) == (0, 4, 4)
    status, document = run("verify", remote, "--key", public)
    assert (status, kinds(document), document["reference"]) == (0, ["index", "bento", "model"], remote)
    other = ("--store", tmp_path / "other")
    assert run("pull", remote, *other)[0] == 0
    status, document = run("verify", "svc", "--key", public, *other)
    assert (status, document["verified"]) == (0, True)


def test_a_registry_is_signed_without_a_pull(
    run: Run, key: Path, bento: Ref, real_registry: Any, tmp_path: Path
) -> None:
    remote, public = f"{real_registry.host}/remote:7", key.with_suffix(".pub")
    assert run("push", "svc", remote)[0] == 0
    assert run("verify", remote, "--key", public)[0] == 4
    status, document = run("sign", remote, "--key", key, "--legacy-sig")
    assert (status, document["reference"]) == (0, remote)
    assert [each["kind"] for each in document["signed"]] == ["index", "bento", "model", "model"]
    assert all(tag.startswith("sha256-") and tag.endswith(".sig") for tag in document["legacy_tags"])
    assert run("sign", remote, "--key", key, "--legacy-sig")[1]["legacy_tags"] == document["legacy_tags"]
    assert run("verify", remote, "--key", public)[0] == 0
    (tmp_path / "scan.json").write_text('{"passed": true}')
    words = ("attest", remote, "--key", key, "--type", "https://example.com/scan/v1", "--predicate")
    assert run("verify", remote, "--key", public, "--type", "https://example.com/scan/v1")[0] == 4
    assert [each["kind"] for each in run(*words, tmp_path / "scan.json")[1]["signed"]] == ["index", "bento"]
    assert run("verify", remote, "--key", public, "--type", "https://example.com/scan/v1")[0] == 0
    assert run("pull", remote, "--store", tmp_path / "other")[1]["referrers"] == 6


def test_the_old_signature_is_what_cosign_reads(run: Run, key: Path, bento: Ref, real_registry: Any) -> None:
    from bentotool.oci.registry import Registry

    remote = f"{real_registry.host}/legacy:1"
    assert run("push", "svc", remote)[0] == 0
    tags = run("sign", remote, "--key", key, "--legacy-sig", "--no-documents", "-a", "a=b")[1]["legacy_tags"]
    with Registry(real_registry.host) as registry:
        manifest = json.loads(registry.get_manifest("legacy", tags[0]).data)
        (layer,) = manifest["layers"]
        payload = registry.read_blob("legacy", Descriptor.from_dict(layer))
        config = json.loads(registry.read_blob("legacy", Descriptor.from_dict(manifest["config"])))
        found = registry.get_manifest("legacy", "1").descriptor.digest
    assert layer["mediaType"] == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    assert json.loads(payload) == {
        "critical": {
            "identity": {"docker-reference": f"{real_registry.host}/legacy"},
            "image": {"docker-manifest-digest": found},
            "type": "cosign container image signature",
        },
        "optional": {"a": "b"},
    }
    signature = base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"])
    assert load_public_key(key.with_suffix(".pub")).verify(payload, signature)


def test_a_tag_that_was_moved(
    run: Run, key: Path, bento: Ref, store: Path, real_registry: Any, make_bento: Any, make_model: Any
) -> None:
    remote, public = f"{real_registry.host}/moved:7", key.with_suffix(".pub")
    assert run("push", "svc", remote, "--sign", "--key", key)[0] == 0
    layout = Layout(store)
    make_bento(layout, [make_model(layout)], version="8")
    assert run("push", "svc:8", remote)[0] == 0
    status, document = run("verify", remote, "--key", public)
    assert (status, document["error"]["objects"][0]["reason"]) == (4, "nothing is attached to it")
    # the model is in both, and its signature is as good as before
    assert [each["signed"] for each in document["error"]["objects"]] == [False, False, True]


def test_a_tag_that_names_another_version_is_pointed_out(
    key: Path, bento: Ref, real_registry: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    remote = f"{real_registry.host}/misnamed:8"
    assert main(["push", "svc", remote, "--sign", "--key", str(key)]) == 0
    verify = ["verify", remote, "--key", str(key.with_suffix(".pub"))]
    assert main(verify) == 4
    assert "svc:7" in capsys.readouterr().err
    assert main([*verify, "--alias"]) == 0


def test_a_flood_of_bundles_hides_nothing_and_costs_little(run: Run, key: Path, bento: Ref, real_registry: Any) -> None:
    """Lists of referrers are anybody's: after the first 64 nothing is looked at, and that is said."""
    from bentotool.oci.registry import Registry

    remote, public = f"{real_registry.host}/flood:7", key.with_suffix(".pub")
    assert run("push", "svc", remote, "--sign", "--key", key)[0] == 0
    with Registry(real_registry.host, push=True) as registry:
        subject = registry.get_manifest("flood", "7").descriptor
        blobs = [Attachment(b"junk", BUNDLE), Attachment(EMPTY_JSON, EMPTY)]
        for blob in blobs:
            registry.upload_blob("flood", blob.descriptor, partial(io.BytesIO, blob.data))
        junk = [referrer_bytes(subject, BUNDLE, blobs[:1], {"n": str(number)}) for number in range(70)]
        entries = tuple(registry_entry(registry, data) for data in junk)
        registry.upload_manifest("flood", subject.digest.replace(":", "-"), Index(entries).to_bytes(), INDEX)
    status, document = run("verify", remote, "--key", public)
    assert status == 4
    reasons = [each["reason"] for each in document["error"]["objects"][0]["rejected"]]
    assert len(reasons) == 65
    assert reasons.count("more than 64 bundles are attached: the rest was not looked at") == 1


def registry_entry(registry: Any, data: bytes) -> Descriptor:
    """Put a manifest, and describe it as a list of referrers does."""
    descriptor = referrer_descriptor(data)
    registry.upload_manifest("flood", descriptor.digest, data, MANIFEST)
    return descriptor


def test_junk_beside_a_signature(run: Run, key: Path, bento: Ref, store: Path) -> None:
    assert run("sign", "svc", "--key", key)[0] == 0
    layout = Layout(store)
    attach(layout, bento.digest, BUNDLE, [Attachment(b"\xff", BUNDLE)])
    status, document = run("verify", "svc", "--key", key.with_suffix(".pub"))
    assert status == 0
    assert "the bundle is not valid JSON" in document["objects"][1]["rejected"][0]["reason"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("sign", "svc"), 2, "no installed plugin signs without one"),
        (("sign", "svc", "--key", "none.key"), 3, "none.key does not exist"),
        (("sign", "svc", "--key", "vault:release"), 2, "no installed plugin has keys of scheme 'vault'"),
        (("sign", "svc", "--key", "KEY", "--identity-token", "x"), 2, "exclude each other"),
        (("sign", "svc", "--key", "KEY", "-a", "x"), 2, "is not KEY=VALUE"),
        (("sign", "svc", "--key", "KEY", "--legacy-sig"), 2, "a tag, which a store does not have"),
        (("sign", "nothing", "--key", "KEY"), 3, "not in the store"),
        (("sign", "svc", "--key", ""), 2, "--key is empty"),
        (("sign", "host/x", "--key", "KEY", "--model"), 2, "what lies in the store"),
        (("attest", "svc", "--key", "KEY"), 2, "needs --type and --predicate"),
        (("attest", "svc", "--key", "KEY", "--type", "scan", "--predicate", "KEY"), 2, "neither a known name nor"),
        (("verify", "svc", "--key", "KEY"), 2, "is a private key"),
        (("verify", "svc", "--identity", "a", "--issuer", "b"), 2, "no installed plugin verifies certificates"),
        (("push", "svc", "127.0.0.1:1/x", "--sign", "--no-referrers", "--key", "KEY"), 2, "leave the signatures here"),
        (("push", "svc", "127.0.0.1:1/x", "--legacy-sig", "--key", "KEY"), 2, "is for --sign"),
        (("model", "push", "iris", "127.0.0.1:1/x", "--sign", "--format", "raw"), 2, "another manifest"),
        (("key", "new", "KEY"), 1, "already exists"),
        (("key", "new", "other.key", "--type", "rsa"), 2, "'rsa' is not known"),
        (("key", "new", "other.key", "--format", "cosign", "--no-password"), 2, "always encrypted"),
    ],
)
def test_mistakes_are_one_line_with_a_next_step(
    run: Run, key: Path, bento: Ref, words: tuple[str, ...], status: int, said: str
) -> None:
    disabled = ("--disable-plugin", "sigstore")  # where it is installed, it signs without a key
    got, document = run(*(str(key) if word == "KEY" else word for word in words), *disabled)
    assert (got, document["error"]["hint"] is not None) == (status, True)
    assert said in document["error"]["message"]
    assert "\n" not in document["error"]["message"]


def test_a_password_is_missing_or_wrong(run: Run, key: Path, bento: Ref, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOTOOL_KEY_PASSWORD", "another")
    assert "is wrong" in run("sign", "svc", "--key", key)[1]["error"]["message"]
    monkeypatch.delenv("BENTOTOOL_KEY_PASSWORD")
    status, document = run("sign", "svc", "--key", key)
    assert (status, document["error"]["hint"]) == (2, "set BENTOTOOL_KEY_PASSWORD")
    assert run("key", "new", key.with_name("second.key"))[0] == 2
    assert run("key", "new", key.with_name("second.key"), "--no-password")[1]["encrypted"] is False
    monkeypatch.setenv("BENTOTOOL_SIGNING_KEY", str(key.with_name("second.key")))
    assert run("sign", "svc")[0] == 0
    pem = run("key", "public", key.with_name("second.key"))[1]["pem"]
    assert run("key", "public", key.with_name("second.pub"))[1]["pem"] == pem == key.with_name("second.pub").read_text()


def listed_image(layout: Layout, bento: Ref, model: StoredModel) -> str:
    """Store an index of the Bento with one image of it; the image's digest."""
    layer, config = "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.config.v1+json"
    base = layout.put(b"base" * 100, layer)
    image = Manifest(layout.put(b'{"rootfs":{}}', config), (base,))
    stored = layout.put(image.to_bytes(), MANIFEST)
    system, nowhere = {"os": "linux", "architecture": "amd64"}, {"os": "unknown", "architecture": "unknown"}
    entries = (
        Descriptor(MANIFEST, stored.digest, stored.size, platform=system),
        Descriptor(MANIFEST, bento.digest, bento.descriptor.size, {"io.bentotool.kind": "bento"}, platform=nowhere),
        Descriptor(MANIFEST, model.digest, model.descriptor.size, {"io.bentotool.kind": "model"}, platform=nowhere),
    )
    keep_index(layout, Index(entries, annotations={"io.bentotool.kind": "bento"}).to_bytes())
    attach(layout, stored.digest, SPDX, [Attachment(b'{"spdxVersion":"SPDX-2.3"}', SPDX)])
    return stored.digest


def test_images_and_their_documents_are_signed(
    run: Run, key: Path, store: Path, make_model: Any, make_bento: Any, real_registry: Any
) -> None:
    layout = Layout(store)
    model = make_model(layout)
    bento, public = make_bento(layout, [model]), key.with_suffix(".pub")
    assert run("sign", "svc", "--key", key)[0] == 0
    image = listed_image(layout, bento, model)
    # the index is another one now, and the image is new: neither was signed
    status, document = run("verify", "svc", "--key", public)
    assert status == 4
    assert [each["signed"] for each in document["error"]["objects"]] == [False, True, False, True]
    # a document is signed where it was made here, or somebody vouches for it
    assert [each["kind"] for each in run("sign", "svc", "--key", key, "--no-documents")[1]["signed"]][2] == "image"
    assert len(run("sign", "svc", "--key", key)[1]["signed"]) == 5
    signed = run("sign", "svc", "--key", key, "--documents")[1]["signed"]
    assert [each["new"] for each in signed] == [False] * 5 + [True]
    assert (signed[2]["digest"], signed[5]["predicate_type"]) == (image, "https://spdx.dev/Document")
    layout.remark(referrers(layout, image, SPDX)[0].digest, MADE_HERE)
    assert len(run("sign", "svc", "--key", key)[1]["signed"]) == 6
    remote = f"{real_registry.host}/imaged:7"
    assert run("push", "svc", remote)[0] == 0
    status, document = run("verify", remote, "--key", public)
    assert (status, kinds(document)) == (0, ["index", "bento", "image", "model"])
    assert run("verify", f"{remote.rpartition(':')[0]}@{image}", "--key", public)[0] == 0


def test_the_signature_of_a_model_as_a_file(run: Run, key: Path, bento: Ref, tmp_path: Path) -> None:
    path = tmp_path / "model.sig"
    assert run("sign", "iris", "--key", key, "--model-sig", path)[0] == 0
    bundle = json.loads(path.read_bytes())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    assert statement["predicateType"] == "https://model_signing/signature/v1.0"
    assert statement["predicate"]["serialization"]["hash_type"] == "sha256"
    before = path.read_bytes()
    assert run("sign", "svc", "--key", key, "--model-sig", path)[0] == 0
    assert path.read_bytes() == before
    assert run("sign", "svc", "--key", key, "--model-sig", tmp_path)[0] == 2


VAULT = """
from pathlib import Path
from bentotool.hookspecs import hookimpl
from bentotool.signspec import SignerDecl
from bentotool.trust.privatekeys import load_private_key

class Vault:
    def signer(self, request):
        return load_private_key(Path(request.key.partition(":")[2]))

    def verifier(self, request):
        raise NotImplementedError

@hookimpl
def bentotool_signers():
    yield SignerDecl("vault", __name__ + ":Vault", "Keys of the vault", schemes=("vault",))

@hookimpl
def bentotool_signing_identity(artifact):
    return f"vault:{Path(__file__).with_name('release.key')}" if artifact.name == "svc" else None
"""


def test_a_key_of_a_plugin(run: Run, key: Path, bento: Ref, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by a person, and by the plugin itself."""
    (tmp_path / "signing_vault.py").write_text(VAULT)
    info = tmp_path / "vault-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vault\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bentotool]\nvault = signing_vault\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        status, document = run("sign", "svc")
        fingerprint = load_public_key(key.with_suffix(".pub")).fingerprint
        assert (status, document["signer"]) == (0, f"key {fingerprint}")
        assert run("verify", "svc", "--key", f"vault:{key}")[0] == 0
        assert run("key", "public", f"vault:{key}")[1]["fingerprint"] == fingerprint
        assert not any(each["new"] for each in run("sign", "svc", "--key", f"vault:{key}")[1]["signed"])
    finally:
        sys.modules.pop("signing_vault", None)
