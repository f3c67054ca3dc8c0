"""The real cosign accepts what we sign, and we what it signs: with keys, and with identities of a stand-in's Sigstore.

Debian's cosign is 2.5: it takes attached bundles for attestations, and knows Rekor 1 alone. What version 3 does by
itself (``cosign verify``), it does with ``verify-attestation --new-bundle-format --type …``. For bundles it wants a
trusted root, even with a key, or else fetches that of the public instance.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bentotool.oci.layout import Layout
from bentotool.oci.reference import RemoteReference
from bentotool.oci.registry import Registry
from bentotool.trust.readers import RegistryReader
from bentotool.trust.statements import COSIGN_SIGN

pytestmark = pytest.mark.timeout(180)

SLSA = "https://slsa.dev/provenance/v1"
PREDICATE = {"buildDefinition": {"buildType": "https://example.com/build", "externalParameters": {}}, "runDetails": {}}


@dataclass(frozen=True)
class Cosign:
    """The program, in a home of its own and without a network.

    Args:
        roots: options with which it fetches none.
    """

    program: str
    environment: dict[str, str]
    folder: Path
    roots: tuple[str, ...]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.program, *arguments],
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
            env={**os.environ, **self.environment},
            cwd=self.folder,
        )

    def does(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, f"{arguments}\n{done.stderr}"
        return done.stdout

    def refuses(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode != 0, done.stdout
        return done.stderr


@pytest.fixture
def cosign(require_tool: Callable[[str], str], tmp_path: Path, instance: Any) -> Cosign:
    folder = tmp_path / "cosign"
    folder.mkdir()
    home = str(folder)
    variables = {"COSIGN_PASSWORD": "s3cret", "HOME": home, "TUF_ROOT": home, "COSIGN_YES": "1"}
    return Cosign(
        require_tool("cosign"), variables, folder, ("--trusted-root", str(instance.file("trusted_root.json")))
    )


@pytest.fixture
def keyless(cosign: Cosign, instance: Any, require_package: Callable[[str], None]) -> Any:
    """cosign, and what it has to know of the instance."""
    require_package("bentotool_sigstore")
    cosign.environment.update(
        SIGSTORE_ROOT_FILE=str(instance.file("fulcio.pem")),
        SIGSTORE_CT_LOG_PUBLIC_KEY_FILE=str(instance.file("ctfe.pub")),
        SIGSTORE_REKOR_PUBLIC_KEY=str(instance.file("rekor.pub")),
    )
    return cosign


@pytest.fixture
def published(
    host: str,
    tmp_path: Path,
    make_model: Callable[..., Any],
    make_bento: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    scenes: Any,
    request: pytest.FixtureRequest,
) -> Iterator[Any]:
    """A Bento in a registry, not signed."""
    layout = Layout(tmp_path / "author")
    make_bento(layout, [make_model(layout)])
    with contextlib.ExitStack() as opened:
        registry = opened.enter_context(Registry(host, push=True))
        made = scenes(layout, registry, f"{host}/c{abs(hash(request.node.nodeid)):x}/svc:7", capsys)
        made.publish()
        yield made


def references(scene: Any) -> list[str]:
    """Index, Bento and model, by digest."""
    repository = scene.remote.rpartition(":")[0]
    return [f"{repository}@{each.digest}" for each in scene.objects.values()]


def bundles(scene: Any, kind: str) -> list[bytes]:
    reader = RegistryReader(scene.registry, RemoteReference.parse(scene.remote).repository)
    return [each.data for each in reader.bundles(scene.objects[kind].digest) if hasattr(each, "data")]


BY_BUNDLE = ("verify-attestation", "--new-bundle-format", "--type", COSIGN_SIGN)
NO_LOG = "--insecure-ignore-tlog"


# --- ours, by cosign --------------------------------------------------------------------------------------------------


def test_our_signatures_by_key(cosign: Cosign, published: Any, by_key: Any) -> None:
    published.done("sign", published.remote, *by_key.signs)
    for reference in (published.remote, *references(published)):
        said = json.loads(cosign.does(*BY_BUNDLE, *cosign.roots, *by_key.counts, NO_LOG, reference))
        assert said["payloadType"] == "application/vnd.in-toto+json"
    cosign.refuses(*BY_BUNDLE, *cosign.roots, *by_key.others["key"], NO_LOG, published.remote)


def test_our_signatures_without_a_key(keyless: Cosign, published: Any, instance: Any) -> None:
    trust = ("--trust-config", str(instance.file("trust_config.json")))
    published.done("sign", published.remote, "--identity-token", instance.token(), *trust)
    issuer = ("--certificate-oidc-issuer", instance.url)
    for reference in (published.remote, *references(published)):
        keyless.does(*BY_BUNDLE, *keyless.roots, "--certificate-identity", "dev@example.com", *issuer, reference)
    said = keyless.refuses(
        *BY_BUNDLE, *keyless.roots, "--certificate-identity", "eve@example.com", *issuer, published.remote
    )
    assert "eve@example.com" in said


def test_our_older_form(cosign: Cosign, published: Any, by_key: Any) -> None:
    """``cosign verify`` of version 2, and admission controllers like it."""
    published.done("sign", published.remote, *by_key.signs, "--legacy-sig")
    for reference in (published.remote, *references(published)):
        (said,) = json.loads(cosign.does("verify", *by_key.counts, NO_LOG, reference))[:1]
        assert said["critical"]["type"] == "cosign container image signature"
    cosign.refuses("verify", *by_key.others["key"], NO_LOG, published.remote)


def test_our_attestations(cosign: Cosign, published: Any, by_key: Any, tmp_path: Path) -> None:
    file = tmp_path / "predicate.json"
    file.write_text(json.dumps(PREDICATE))
    published.done("attest", published.remote, "--type", SLSA, "--predicate", str(file), *by_key.signs)
    for kind in ("slsaprovenance1", SLSA):
        said = cosign.does(
            "verify-attestation",
            "--new-bundle-format",
            "--type",
            kind,
            *cosign.roots,
            *by_key.counts,
            NO_LOG,
            published.remote,
        )
        assert json.loads(said)["payload"]


def test_our_bundles_as_files(cosign: Cosign, published: Any, by_key: Any, tmp_path: Path) -> None:
    """``verify-blob-attestation`` and ``verify-blob`` of the manifest's bytes."""
    published.done("sign", published.remote, *by_key.signs)
    bundle, manifest, other = tmp_path / "bundle.json", tmp_path / "manifest.json", tmp_path / "other.json"
    bundle.write_bytes(bundles(published, "bento")[0])
    manifest.write_bytes(published.place.manifest(published.objects["bento"].digest))
    other.write_bytes(manifest.read_bytes() + b" ")
    attested = ("verify-blob-attestation", "--new-bundle-format", "--bundle", str(bundle), "--type", COSIGN_SIGN)
    cosign.does(*attested, *cosign.roots, *by_key.counts, NO_LOG, str(manifest))
    cosign.refuses(*attested, *cosign.roots, *by_key.counts, NO_LOG, str(other))
    signed = ("verify-blob", "--new-bundle-format", "--bundle", str(bundle))
    cosign.does(*signed, *cosign.roots, *by_key.counts, NO_LOG, str(manifest))
    cosign.refuses(*signed, *cosign.roots, *by_key.counts, NO_LOG, str(other))


def test_our_bundles_without_a_key_as_files(
    keyless: Cosign, published: Any, by_key: Any, instance: Any, tmp_path: Path
) -> None:
    trust = ("--trust-config", str(instance.file("trust_config.json")))
    published.done("sign", published.remote, "--identity-token", instance.token(), *trust)
    bundle, manifest = tmp_path / "bundle.json", tmp_path / "manifest.json"
    bundle.write_bytes(bundles(published, "bento")[0])
    manifest.write_bytes(published.place.manifest(published.objects["bento"].digest))
    who = ("--certificate-identity", "dev@example.com", "--certificate-oidc-issuer", instance.url)
    form = ("--new-bundle-format", "--bundle", str(bundle))
    keyless.does("verify-blob-attestation", *form, "--type", COSIGN_SIGN, *keyless.roots, *who, str(manifest))
    keyless.does("verify-blob", *form, *keyless.roots, *who, str(manifest))


# --- cosign's, by us --------------------------------------------------------------------------------------------------


def _predicate(folder: Path) -> str:
    file = folder / "empty.json"
    file.write_text("{}")
    return str(file)


def test_signatures_of_cosign_by_key(cosign: Cosign, published: Any, by_key: Any) -> None:
    cosign.does("generate-key-pair")
    key, counts = cosign.folder / "cosign.key", ("--key", str(cosign.folder / "cosign.pub"))
    form = ("--new-bundle-format", "--type", COSIGN_SIGN, "--predicate", _predicate(cosign.folder))
    for reference in references(published):
        cosign.does("attest", *form, "--key", str(key), "--tlog-upload=false", reference)
    verified = published.done("verify", published.remote, *counts)
    assert [each["signed"] for each in verified["objects"]] == [True, True, True]
    published.refused("verify", published.remote, *by_key.counts)


def test_signatures_of_cosign_without_a_key(keyless: Cosign, published: Any, instance: Any) -> None:
    token = keyless.folder / "token"
    token.write_text(instance.token())
    services = ("--identity-token", str(token), "--fulcio-url", instance.url, "--rekor-url", instance.url)
    form = ("--new-bundle-format", "--type", COSIGN_SIGN, "--predicate", _predicate(keyless.folder))
    for reference in references(published):
        keyless.does("attest", *form, *services, reference)
    roots = ("--trust-config", str(instance.file("trusted_root.json")), "--offline", "--issuer", instance.url)
    verified = published.done("verify", published.remote, "--identity", "dev@example.com", *roots)
    assert verified["objects"][0]["evidence"][0]["signer"]["identity"] == "dev@example.com"
    assert verified["objects"][0]["evidence"][0]["signed_at"]
    published.refused("verify", published.remote, "--identity", "eve@example.com", *roots)


def test_the_older_form_of_cosign_is_no_signature(cosign: Cosign, published: Any) -> None:
    """A tag ``sha256-….sig`` beside the artifact: bundles are asked for."""
    cosign.does("generate-key-pair")
    for reference in references(published):
        cosign.does("sign", "--key", str(cosign.folder / "cosign.key"), "--tlog-upload=false", reference)
    said = published.refused("verify", published.remote, "--key", str(cosign.folder / "cosign.pub"))
    assert "nothing is attached" in said


def test_a_key_of_cosign_signs_for_us(cosign: Cosign, published: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    cosign.does("generate-key-pair")
    monkeypatch.setenv("COSIGN_PASSWORD", cosign.environment["COSIGN_PASSWORD"])
    published.done("sign", published.remote, "--key", str(cosign.folder / "cosign.key"))
    counts = ("--key", str(cosign.folder / "cosign.pub"))
    assert published.done("verify", published.remote, *counts)["verified"]
    cosign.does(*BY_BUNDLE, *cosign.roots, *counts, NO_LOG, published.remote)


def test_a_key_of_ours_signs_for_cosign(cosign: Cosign, published: Any, tmp_path: Path) -> None:
    from bentotool.trust.privatekeys import make_pair

    made = make_pair(tmp_path / "ours.key", cosign.environment["COSIGN_PASSWORD"].encode(), form="cosign")
    form = ("--new-bundle-format", "--type", COSIGN_SIGN, "--predicate", _predicate(cosign.folder))
    for reference in references(published):
        cosign.does("attest", *form, "--key", str(made.private), "--tlog-upload=false", reference)
    assert published.done("verify", published.remote, "--key", str(made.public))["verified"]
