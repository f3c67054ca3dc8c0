"""Signers of plugins: keys of a vault, and identities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bentotool.errors import PluginError, UsageError
from bentotool.signspec import SigningRequest, VerifierRequest
from bentotool.trust.bundle import Bundle
from bentotool.trust.dsse import pae
from bentotool.trust.signers import KeySigner, open_certificates, open_public_key, open_signer

VAULT = """
from pathlib import Path
from bentotool.signspec import *
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

class Key:
    def __init__(self, path):
        self.key = load_pem_private_key(Path(path).read_bytes(), None)

    def public_key(self):
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def sign(self, data):
        return self.key.sign(data)

class Vault:
    def signer(self, request):
        return Key(request.key.partition(":")[2])

    def verifier(self, request):
        raise NotImplementedError

@hookimpl
def bentotool_signers():
    yield SignerDecl("vault", __name__ + ":Vault", "Keys of the vault", schemes=("vault",))
"""
KEYLESS = """
from bentotool.signspec import *

class Ada:
    identity = "ada@example.com"

    def sign_dsse(self, payload, payload_type):
        import base64, json
        envelope = {{"payload": base64.b64encode({payload}).decode(), "payloadType": payload_type,
                    "signatures": [{{"sig": "cw=="}}]}}
        material = {{"certificate": {{"rawBytes": ""}}}}
        kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
        return json.dumps({{"mediaType": kind, "verificationMaterial": material, "dsseEnvelope": envelope}}).encode()

class Signing:
    def signer(self, request):
        return {made}

    def verifier(self, request):
        return {verifier}

@hookimpl
def bentotool_signers():
    yield SignerDecl({name!r}, __name__ + ":Signing", "By identity", keyless=True, certificates=True)
"""


def keyless(name: str = "fulcio", payload: str = "payload", made: str = "Ada()", verifier: str = "self") -> str:
    return KEYLESS.format(name=name, payload=payload, made=made, verifier=verifier)


def nobody(question: str) -> None:
    raise AssertionError(question)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "in-the-vault"
    key = ed25519.Ed25519PrivateKey.generate()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def test_a_key_in_a_vault(make: Any, key_file: Path) -> None:
    make.add("vault", VAULT)
    plugins = make.plugins()
    signer = open_signer(plugins, SigningRequest(key=f"vault:{key_file}"), nobody)
    assert isinstance(signer, KeySigner)
    public = open_public_key(plugins, f"vault:{key_file}")
    assert signer.identity == f"key {public.fingerprint}"
    envelope = Bundle.from_bytes(signer.bundle(b"statement")).envelope
    assert public.verify(pae(envelope.payload_type, b"statement"), envelope.signatures[0])
    with pytest.raises(UsageError, match="no installed plugin has keys of scheme 'safe'; known: vault"):
        open_signer(plugins, SigningRequest(key="safe:release"), nobody)
    with pytest.raises(UsageError, match="no installed plugin signs without one"):
        open_signer(plugins, SigningRequest(), nobody)
    with pytest.raises(UsageError, match="no installed plugin verifies certificates"):
        open_certificates(plugins, VerifierRequest())


def test_two_plugins_for_one_scheme_are_an_error(make: Any) -> None:
    make.add("one", VAULT)
    make.add("two", VAULT.replace('SignerDecl("vault"', 'SignerDecl("other"'))
    with pytest.raises(PluginError, match="other and vault are for the same|vault and other are for the same"):
        open_signer(make.plugins(), SigningRequest(key="vault:x"), nobody)


def test_an_identity_signs_without_a_key(make: Any) -> None:
    make.add("one", keyless())
    signer = open_signer(make.plugins(), SigningRequest(), nobody)
    assert (signer.identity, signer.public) == ("ada@example.com", None)
    assert json.loads(signer.bundle(b"statement"))["verificationMaterial"] == {"certificate": {"rawBytes": ""}}
    make.add("two", keyless("another"))
    with pytest.raises(PluginError, match="are for the same"):
        open_signer(make.plugins(), SigningRequest(), nobody)


@pytest.mark.parametrize("payload", ["b'another'", "payload + b' '"])
def test_an_identity_that_signs_something_else_is_found_out(make: Any, payload: str) -> None:
    make.add("one", keyless(payload=payload))
    with pytest.raises(PluginError, match="something else than what was to be signed"):
        open_signer(make.plugins(), SigningRequest(), nobody).bundle(b"statement")


def test_a_plugin_that_gives_neither_is_named(make: Any) -> None:
    make.add("one", keyless(made="object()"))
    with pytest.raises(PluginError, match="signer 'fulcio' gave an object, which is neither"):
        open_signer(make.plugins(), SigningRequest(), nobody)
    with pytest.raises(PluginError, match="signer 'fulcio': its verifier is no CertificateVerifier"):
        open_certificates(make.plugins(), VerifierRequest())
