"""Signing without a key: by a token, by that of a CI, after a browser; and what comes of it."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import requests
from bentotool_sigstore.signers import Sigstore

from bentotool.errors import AuthenticationError, ConfigError, UsageError
from bentotool.signspec import BundleSigner, CertificateVerifier, Signers, SigningRequest, VerifierRequest
from bentotool.testing import check_plugin

IN_TOTO = "application/vnd.in-toto+json"
PAYLOAD = (
    b'{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"fraud","digest":{"sha256":"'
    + b"b" * 64
    + b'"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}'
)
WORKFLOW = {
    "job_workflow_ref": "acme/fraud/.github/workflows/release.yml@refs/heads/main",
    "workflow_ref": "acme/fraud/.github/workflows/release.yml@refs/heads/main",
    "repository": "acme/fraud",
    "repository_owner": "acme",
    "ref": "refs/heads/main",
    "sha": "0" * 40,
    "event_name": "push",
    "runner_environment": "github-hosted",
    "workflow": "Release",
}


def test_the_contract(instance: Any) -> None:
    assert check_plugin("sigstore").hooks == ("bentotool_signers",)
    assert isinstance(Sigstore(), Signers)
    request = SigningRequest(identity_token=instance.token(), trust_config=instance.file("trust_config.json"))
    assert isinstance(Sigstore().signer(request), BundleSigner)
    assert isinstance(Sigstore().verifier(VerifierRequest(request.trust_config)), CertificateVerifier)


def test_the_library_is_imported_when_it_is_used() -> None:
    code = "import sys, bentotool_sigstore.hooks, bentotool_sigstore.signers as s; s.Sigstore(); "
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            code + "print([n for n in ('sigstore', 'requests', 'cryptography') if n in sys.modules])",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert loaded.stdout.strip() == "[]"


def test_what_was_signed_comes_back(sign: Any, verify: Any, instance: Any, version: str) -> None:
    found = verify(sign(PAYLOAD, version))
    assert (found.payload_type, found.payload) == (IN_TOTO, PAYLOAD)
    assert found.signer.to_dict() == {"identity": "dev@example.com", "issuer": instance.url}
    assert abs(datetime.now(timezone.utc) - found.signed_at) < timedelta(minutes=5)


def test_a_workflow_is_named_with_what_is_known_of_it(sign: Any, verify: Any, instance: Any, version: str) -> None:
    signer = verify(sign(version=version, token=instance.token("repo:acme/fraud", **WORKFLOW))).signer
    assert signer.identity == f"https://github.com/{WORKFLOW['job_workflow_ref']}"
    assert signer.extensions["sourceRepositoryURI"] == "https://github.com/acme/fraud"
    assert signer.extensions["sourceRepositoryRef"] == "refs/heads/main"
    assert signer.extensions["buildTrigger"] == signer.extensions["githubWorkflowTrigger"] == "push"
    assert signer.extensions["githubWorkflowName"] == "Release"


def test_one_certificate_signs_all(instance: Any, verify: Any, version: str) -> None:
    request = SigningRequest(identity_token=instance.token(), trust_config=instance.file(f"trust_config{version}.json"))
    before = len(instance.seen)
    signer: Any = Sigstore().signer(request)
    bundles = [signer.sign_dsse(PAYLOAD, IN_TOTO) for _ in range(3)]
    asked = instance.seen[before:]
    assert signer.identity == "dev@example.com"
    assert asked.count("POST /api/v2/signingCert") == 1
    assert len([each for each in asked if each.endswith("/log/entries")]) == 3
    assert {verify(each).signer.identity for each in bundles} == {"dev@example.com"}
    assert len(set(bundles)) == 3


def test_a_bundle_is_of_the_format_and_keeps_the_statement(sign: Any, version: str) -> None:
    from bentotool.trust.bundle import Bundle

    data = sign(PAYLOAD, version)
    read = Bundle.from_bytes(data)
    assert (read.certified, read.logged, read.envelope.payload) == (True, True, PAYLOAD)
    material = json.loads(data)["verificationMaterial"]
    assert len(material["tlogEntries"]) == len(material["timestampVerificationData"]["rfc3161Timestamps"]) == 1


def test_other_payloads_are_refused(instance: Any) -> None:
    request = SigningRequest(identity_token=instance.token(), trust_config=instance.file("trust_config.json"))
    signer: Any = Sigstore().signer(request)
    from bentotool.errors import VerificationError

    with pytest.raises(VerificationError, match="text/plain"):
        signer.sign_dsse(b"hi", "text/plain")
    with pytest.raises(VerificationError, match="statement"):
        signer.sign_dsse(b"{}", IN_TOTO)


# --- who signs --------------------------------------------------------------------------------------------------------


def _request(instance: Any, **options: Any) -> SigningRequest:
    return SigningRequest(trust_config=instance.file("trust_config.json"), **options)


def test_the_identity_of_github_actions(instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{instance.url}/actions/token?version=1")
    signer: Any = Sigstore().signer(_request(instance))
    assert signer.identity.startswith("https://github.com/stand-in/")


def test_github_actions_without_permission(instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    with pytest.raises(AuthenticationError, match="permissions") as caught:
        Sigstore().signer(_request(instance, interactive=True))
    assert "id-token: write" in str(caught.value.hint)


def test_the_identity_of_gitlab(instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.setenv("SIGSTORE_ID_TOKEN", instance.token("https://gitlab.example/acme//.gitlab-ci.yml@main"))
    signer: Any = Sigstore().signer(_request(instance))
    assert signer.identity == "https://gitlab.example/acme//.gitlab-ci.yml@main"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # the library leaves its own server's socket
def test_a_person_at_a_browser(instance: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    def browser(url: str) -> bool:
        threading.Thread(target=requests.get, args=(url,), kwargs={"timeout": 30}, daemon=True).start()
        return True

    monkeypatch.setattr("webbrowser.open", browser)
    signer: Any = Sigstore().signer(_request(instance, interactive=True))
    assert signer.identity == "browser@example.com"
    gc.collect()
    assert capfd.readouterr().out == ""


def test_nobody(instance: Any) -> None:
    with pytest.raises(AuthenticationError, match="no identity") as caught:
        Sigstore().signer(_request(instance))
    assert "--identity-token" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"seconds": -5}, "has expired"),
        ({"nbf": 4_000_000_000, "exp": 4_000_000_600}, "is not valid now"),
        ({"iat": 4_000_000_000, "exp": 4_000_000_600}, "is not valid now"),
        ({"aud": "another"}, "is not for Sigstore"),
    ],
)
def test_a_token_that_cannot_be_used(instance: Any, claims: dict[str, Any], says: str) -> None:
    before, token = len(instance.seen), instance.token(**claims)
    with pytest.raises(AuthenticationError, match=says) as caught:
        Sigstore().signer(_request(instance, identity_token=token))
    assert caught.value.hint
    assert token not in str(caught.value.to_dict())
    assert len(instance.seen) == before


@pytest.mark.parametrize("token", ["", "secret", "a.b.c", "a" * 100_000])
def test_what_is_no_token_is_not_shown(instance: Any, token: str) -> None:
    with pytest.raises(AuthenticationError, match="no OIDC identity token") as caught:
        Sigstore().signer(_request(instance, identity_token=token))
    assert not token or token not in str(caught.value.to_dict())


def test_a_token_of_another_mint(instance: Any, stand_ins: Any, tmp_path: Any) -> None:
    other = stand_ins.StandIn(tmp_path)
    token = other.token()
    other.close()
    with pytest.raises(AuthenticationError, match=r"refused the identity token \(401\): .*known issuer"):
        Sigstore().signer(_request(instance, identity_token=token))


def test_a_key_is_not_of_this_plugin(instance: Any) -> None:
    with pytest.raises(UsageError, match="no key"):
        Sigstore().signer(_request(instance, key="awskms:///x"))


# --- instances --------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda d: d.clear(), ConfigError, "mediaType"),
        (lambda d: d.pop("trustedRoot"), ConfigError, "no trust configuration"),
        (lambda d: d["trustedRoot"]["certificateAuthorities"].clear(), ConfigError, "Fulcio certificates not found"),
        (lambda d: d["signingConfig"]["rekorTlogUrls"].clear(), ConfigError, "names no services"),
        (lambda d: d["signingConfig"]["tsaUrls"].clear(), ConfigError, "no timestamp authority"),
        (lambda d: d.update(mediaType="text/plain"), ConfigError, "text/plain"),
    ],
)
def test_a_trust_configuration_that_lacks_something(
    instance: Any, tmp_path: Any, change: Change, error: type[Exception], says: str
) -> None:
    document = json.loads(instance.file("trust_config_v2.json").read_text())
    change(document)
    file = tmp_path / "trust.json"
    file.write_text(json.dumps(document))
    with pytest.raises(error, match=says) as caught:
        Sigstore().signer(SigningRequest(identity_token=instance.token(), trust_config=file))
    assert getattr(caught.value, "hint", None)


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_file_that_is_no_trust_configuration(instance: Any, tmp_path: Any, content: bytes) -> None:
    file = tmp_path / "trust.json"
    file.write_bytes(content)
    for work in (
        lambda: Sigstore().signer(SigningRequest(identity_token=instance.token(), trust_config=file)),
        lambda: Sigstore().verifier(VerifierRequest(file)),
    ):
        with pytest.raises(ConfigError, match="no trust configuration"):
            work()


def test_a_file_that_is_not_there(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Sigstore().verifier(VerifierRequest(tmp_path / "none.json"))


def test_roots_alone_sign_nothing(instance: Any) -> None:
    with pytest.raises(UsageError, match="no services to sign with"):
        Sigstore().signer(
            SigningRequest(identity_token=instance.token(), trust_config=instance.file("trusted_root.json"))
        )
