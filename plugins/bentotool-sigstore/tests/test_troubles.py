"""Services that are down, silent, slow or wrong about the time: an end to every wait, and a word on what to do."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from bentotool_sigstore.limits import TIMEOUT
from bentotool_sigstore.services import CertificateAuthority, TimestampAuthority, TransparencyLog
from bentotool_sigstore.signers import Sigstore

from bentotool.errors import AuthenticationError, BentotoolError, RemoteError, UsageError, VerificationError
from bentotool.signspec import SigningRequest, VerifierRequest

IN_TOTO = "application/vnd.in-toto+json"
PAYLOAD = (
    b'{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":"'
    + b"c" * 64
    + b'"}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}'
)
_KINDS = {
    "fulcio": CertificateAuthority,
    "rekor": TransparencyLog,
    "rekor2": TransparencyLog,
    "tsa": TimestampAuthority,
}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """``hasty("rekor")`` lets that service alone have one second, and the others as long as they take."""

    def shorten(service: str) -> None:
        monkeypatch.setattr(_KINDS[service], "_seconds", property(lambda _: 1.0, lambda _, value: None), raising=False)

    return shorten


def _sign(instance: Any, version: str, notes: list[str]) -> bytes:
    request = SigningRequest(
        identity_token=instance.token(), trust_config=instance.file(f"trust_config{version}.json"), note=notes.append
    )
    signer: Any = Sigstore().signer(request)
    bundle: bytes = signer.sign_dsse(PAYLOAD, IN_TOTO)
    return bundle


NEEDED = [("fulcio", "", "Fulcio"), ("rekor", "", "Rekor"), ("rekor2", "_v2", "Rekor"), ("tsa", "_v2", "timestamp")]


@pytest.mark.parametrize(("service", "version", "name"), NEEDED)
@pytest.mark.parametrize("trouble", [{"silent": True}, {"drip": 0.1}], ids=["silent", "drips"])
def test_a_service_that_does_not_answer(
    instance: Any, service: str, version: str, name: str, trouble: Any, hasty: Callable[[str], None]
) -> None:
    hasty(service)
    with instance.trouble(service, **trouble), pytest.raises(RemoteError, match=f"{name}.* did not answer within 1 s"):
        _sign(instance, version, [])


@pytest.mark.parametrize(("service", "version", "name"), NEEDED)
def test_a_service_that_fails(instance: Any, service: str, version: str, name: str) -> None:
    with instance.trouble(service, status=503), pytest.raises(RemoteError, match=f"{name}.*503") as caught:
        _sign(instance, version, [])
    assert "try again" in str(caught.value.hint)


@pytest.mark.parametrize("trouble", [{"silent": True}, {"status": 500}], ids=["silent", "fails"])
def test_a_timestamp_that_can_be_done_without(
    instance: Any, verify: Any, trouble: Any, hasty: Callable[[str], None]
) -> None:
    hasty("tsa")
    notes: list[str] = []
    with instance.trouble("tsa", **trouble):
        bundle = _sign(instance, "", notes)
    assert len(notes) == 1
    assert notes[0].endswith("the log's time stands alone")
    assert verify(bundle).signed_at is not None


def test_an_instance_that_is_not_there(stand_ins: Any, tmp_path: Any) -> None:
    gone = stand_ins.StandIn(tmp_path)
    token = gone.token()
    gone.close()
    with pytest.raises(RemoteError, match="Fulcio at http.* cannot be reached"):
        Sigstore().signer(SigningRequest(identity_token=token, trust_config=tmp_path / "trust_config.json"))


@pytest.mark.parametrize("off", [timedelta(hours=1), timedelta(hours=-1)], ids=["behind", "ahead"])
@pytest.mark.parametrize(("service", "version"), [("fulcio", ""), ("rekor", ""), ("tsa", ""), ("tsa", "_v2")])
def test_clocks_that_differ(instance: Any, service: str, version: str, off: timedelta) -> None:
    with (
        instance.trouble(service, early=off),
        pytest.raises((VerificationError, AuthenticationError)) as caught,
    ):
        _sign(instance, version, [])
    assert "clock" in str(caught.value.hint)
    assert len(caught.value.message) < 200


def test_roots_of_another_instance(instance: Any, stand_ins: Any, tmp_path: Any) -> None:
    """Services of one, roots of another: told at once, not to whoever verifies."""
    other = stand_ins.StandIn(tmp_path)
    other.close()
    document = json.loads(instance.file("trust_config.json").read_text())
    document["trustedRoot"] = json.loads((tmp_path / "trusted_root.json").read_text())
    file = tmp_path / "mixed.json"
    file.write_text(json.dumps(document))
    with pytest.raises(VerificationError) as caught:
        Sigstore().signer(SigningRequest(identity_token=instance.token(), trust_config=file))
    assert "trust configuration" in str(caught.value.hint)


@pytest.mark.parametrize("stated", ["0", "-1", "soon", "nan", "1e9"])
def test_a_limit_that_is_none(instance: Any, stated: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, stated)
    with pytest.raises(UsageError, match=TIMEOUT):
        _sign(instance, "", [])


def test_a_ci_that_does_not_answer(instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret")
    monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{instance.url}/actions/token?version=1")
    monkeypatch.setenv(TIMEOUT, "2")
    with instance.trouble("oidc", silent=True), pytest.raises(RemoteError, match="OIDC service of this CI did not"):
        Sigstore().signer(SigningRequest(trust_config=instance.file("trust_config.json")))


def test_an_issuer_that_does_not_answer(instance: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TIMEOUT, "2")
    with instance.trouble("oidc", silent=True), pytest.raises(RemoteError, match="OIDC issuer at .* did not answer"):
        Sigstore().signer(SigningRequest(trust_config=instance.file("trust_config.json"), interactive=True))


# --- the public instance, without a network ---------------------------------------------------------------------------


@pytest.fixture(params=["silent", "closed"])
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A proxy that says nothing, or is not there."""
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        if request.param == "silent":
            proxy.listen(16)
        for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        yield


@pytest.mark.usefixtures("no_network")
def test_roots_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, instance: Any) -> None:
    monkeypatch.setenv(TIMEOUT, "0.5")
    bundle = b"{}"
    with pytest.raises(RemoteError) as caught:
        Sigstore().verifier(VerifierRequest()).verify(bundle)
    assert "--offline" in str(caught.value.hint)
    with pytest.raises(RemoteError) as caught:
        Sigstore().signer(SigningRequest(identity_token=instance.token()))
    assert "--trust-config" in str(caught.value.hint)


@pytest.mark.usefixtures("no_network")
def test_who_has_no_identity_hears_of_that_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bentotool_sigstore.identity._ambient", lambda: None)
    with pytest.raises(AuthenticationError, match="no identity to sign as") as caught:
        Sigstore().signer(SigningRequest())
    assert str(caught.value.hint).startswith("--key FILE signs with a key")


@pytest.mark.usefixtures("no_network")
def test_offline_the_roots_of_the_library_do() -> None:
    with pytest.raises(VerificationError, match="bundle"):
        Sigstore().verifier(VerifierRequest(offline=True)).verify(b"{}")


def test_no_place_for_the_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    with pytest.raises(BentotoolError) as caught:
        Sigstore().verifier(VerifierRequest(offline=True)).verify(b"{}")
    assert "--trust-config" in str(caught.value.hint)
