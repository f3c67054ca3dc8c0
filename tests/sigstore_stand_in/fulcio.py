"""Fulcio: a certificate of ten minutes for whoever has a token, with the proof of a CT log in it."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from sigstore_stand_in.authority import Authority, pem_of, spki
from sigstore_stand_in.der import OCTETS, UTF8, element

_SCT = x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.2")
_ARC = "1.3.6.1.4.1.57264.1"
_GITHUB = {  # number below the arc: claim of a workflow's token, and what precedes its value
    9: ("job_workflow_ref", "https://github.com/"),
    10: ("job_workflow_sha", ""),
    11: ("runner_environment", ""),
    12: ("repository", "https://github.com/"),
    13: ("sha", ""),
    14: ("ref", ""),
    15: ("repository_id", ""),
    16: ("repository_owner", "https://github.com/"),
    18: ("workflow_ref", "https://github.com/"),
    20: ("event_name", ""),
    22: ("repository_visibility", ""),
}
_GITHUB_OLD = {2: "event_name", 3: "sha", 4: "workflow", 5: "repository", 6: "ref"}  # raw texts, no DER


class Fulcio:
    """Issues certificates.

    Args:
        lifetime: of a certificate.
    """

    def __init__(self, lifetime: timedelta = timedelta(minutes=10)) -> None:
        self.authority = Authority("fulcio", ExtendedKeyUsageOID.CODE_SIGNING)
        self.ct_key = ec.generate_private_key(ec.SECP256R1())
        self.lifetime = lifetime

    def chain(self, key: ec.EllipticCurvePublicKey, claims: Mapping[str, Any], at: datetime) -> list[bytes]:
        """Certificates in PEM, leaf first.

        Args:
            claims: of the identity's token.
            at: when it begins to be valid.
        """
        serial = x509.random_serial_number()

        def build(proof: bytes) -> x509.Certificate:
            built = self.authority.leaf(key, x509.Name([]), at, at + self.lifetime, serial)
            for extension, critical in _extensions(claims):
                built = built.add_extension(extension, critical)
            built = built.add_extension(x509.UnrecognizedExtension(_SCT, proof), critical=False)
            return built.sign(self.authority.key, hashes.SHA256())

        milliseconds = int(at.timestamp() * 1000)
        covered = build(self._proof(milliseconds, b"")).tbs_precertificate_bytes
        signed = (
            struct.pack("!BBQH", 0, 0, milliseconds, 1)
            + hashlib.sha256(spki(self.authority.key.public_key())).digest()
            + len(covered).to_bytes(3, "big")
            + covered
            + b"\0\0"
        )
        leaf = build(self._proof(milliseconds, self.ct_key.sign(signed, ec.ECDSA(hashes.SHA256()))))
        return [pem_of(each) for each in (leaf, *self.authority.chain)]

    def _proof(self, milliseconds: int, signature: bytes) -> bytes:
        """A list of one signed certificate timestamp (RFC 6962)."""
        log = hashlib.sha256(spki(self.ct_key.public_key())).digest()
        one = (
            b"\0" + log + struct.pack("!QH", milliseconds, 0) + b"\4\3" + struct.pack("!H", len(signature)) + signature
        )
        listed = struct.pack("!H", len(one)) + one
        return element(OCTETS, struct.pack("!H", len(listed)) + listed)


def requested_key(body: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    """The public key that a request of either version of the API is about."""
    if body.get("certificateSigningRequest"):
        request = x509.load_pem_x509_csr(base64.b64decode(body["certificateSigningRequest"]))
        if not request.is_signature_valid:
            raise ValueError("the request is not signed by its key")
        found = request.public_key()
    elif body.get("publicKeyRequest"):
        found = load_pem_public_key(body["publicKeyRequest"]["publicKey"]["content"].encode())
    else:  # version 1
        raw = base64.b64decode(body["publicKey"]["content"])
        found = load_pem_public_key(raw) if raw.startswith(b"-----") else load_der_public_key(raw)
    if not isinstance(found, ec.EllipticCurvePublicKey):
        raise ValueError("not a key of an elliptic curve")
    return found


def _extensions(claims: Mapping[str, Any]) -> list[tuple[x509.ExtensionType, bool]]:
    issuer = str(claims["iss"])
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),
        (x509.SubjectAlternativeName([_identity(claims)]), True),
        (_own(1, issuer.encode()), False),
        (_own(8, element(UTF8, issuer.encode())), False),
    ]
    found += [(_own(at, str(claims[name]).encode()), False) for at, name in _GITHUB_OLD.items() if name in claims]
    for at, (name, before) in _GITHUB.items():
        if name in claims:
            found.append((_own(at, element(UTF8, f"{before}{claims[name]}".encode())), False))
    return found


def _own(number: int, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{_ARC}.{number}"), value)


def _identity(claims: Mapping[str, Any]) -> x509.GeneralName:
    if "job_workflow_ref" in claims:
        return x509.UniformResourceIdentifier(f"https://github.com/{claims['job_workflow_ref']}")
    who = str(claims.get("email") or claims["sub"])
    return x509.RFC822Name(who) if "@" in who and "://" not in who else x509.UniformResourceIdentifier(who)
