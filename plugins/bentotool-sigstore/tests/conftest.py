"""An instance of Sigstore on loopback, and a home that tells of nobody."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parents[3] / "tests"
IN_TOTO = "application/vnd.in-toto+json"
_CI = ("GITHUB_", "ACTIONS_", "GITLAB_", "BUILDKITE", "CIRCLE", "GOOGLE_", "SIGSTORE_", "XDG_", "BENTOTOOL_SIGSTORE_")


@pytest.fixture(autouse=True)
def _nobody(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No identity of the machine the tests run on, nor its home."""
    for name in list(os.environ):
        if name.startswith(_CI):
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("BENTOTOOL_SIGSTORE_TIMEOUT", "30")


@pytest.fixture(scope="session")
def stand_ins() -> ModuleType:
    """The package of the instance, which lies beside the tests of core."""
    if str(TESTS) not in sys.path:
        sys.path.append(str(TESTS))
    import sigstore_stand_in

    return sigstore_stand_in


@pytest.fixture(scope="session")
def instance(stand_ins: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    found = stand_ins.StandIn(tmp_path_factory.mktemp("sigstore"))
    yield found
    found.close()


@pytest.fixture(params=["", "_v2"], ids=["rekor1", "rekor2"])
def version(request: pytest.FixtureRequest) -> str:
    """What the names of the instance's files end with: which Rekor is signed with."""
    return str(request.param)


def statement(digest: str = "a" * 64, predicate_type: str = "https://sigstore.dev/cosign/sign/v1") -> bytes:
    subject = {"name": "fraud", "digest": {"sha256": digest}}
    return json.dumps(
        {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [subject],
            "predicateType": predicate_type,
            "predicate": {},
        }
    ).encode()


@pytest.fixture
def sign(instance: Any) -> Callable[..., bytes]:
    """``sign(payload, version="", token=None)`` gives a bundle."""
    from bentotool_sigstore.signers import Sigstore

    from bentotool.signspec import SigningRequest

    def make(payload: bytes = b"", version: str = "", token: str | None = None) -> bytes:
        request = SigningRequest(
            identity_token=token or instance.token(), trust_config=instance.file(f"trust_config{version}.json")
        )
        signer: Any = Sigstore().signer(request)
        bundle: bytes = signer.sign_dsse(payload or statement(), IN_TOTO)
        return bundle

    return make


@pytest.fixture
def verify(instance: Any) -> Callable[[bytes], Any]:
    """Verifies a bundle by the instance's roots; nothing is asked over the network."""
    from bentotool_sigstore.signers import Sigstore

    from bentotool.signspec import VerifierRequest

    def check(bundle: bytes) -> Any:
        before = len(instance.seen)
        try:
            return Sigstore().verifier(VerifierRequest(instance.file("trusted_root.json"), offline=True)).verify(bundle)
        finally:
            assert len(instance.seen) == before

    return check
