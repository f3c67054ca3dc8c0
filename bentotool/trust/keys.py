"""Public and private keys for signatures: EC on P-256, and Ed25519."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

__all__ = ["KEY_LIMIT", "PublicKey", "load_public_key", "parse_public_key", "read_key_file"]

KEY_LIMIT = 64 << 10
"""Bytes of the largest key file."""


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies.

    Args:
        pem: SubjectPublicKeyInfo.
        fingerprint: ``sha256:<hex>`` of the same as DER: who signed, as evidence has it.
        kind: ``ecdsa-p256`` or ``ed25519``.
        name: where it came from, for messages.
    """

    pem: bytes
    fingerprint: str
    kind: str
    name: str = ""

    @property
    def hint(self) -> str:
        """What stands in a bundle: the digest of the PEM form, as OpenSSF Model Signing has it."""
        return hashlib.sha256(self.pem).hexdigest()

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether a signature over data is this key's."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
        from cryptography.hazmat.primitives.hashes import SHA256

        key = _loaded(self.pem)
        try:
            if isinstance(key, ed25519.Ed25519PublicKey):
                key.verify(signature, data)
            else:
                key.verify(signature, data, ec.ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


def _loaded(pem: bytes) -> EllipticCurvePublicKey | Ed25519PublicKey:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("it is no public key in PEM") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise ValueError("it is neither an EC key on P-256 nor an Ed25519 key")


def parse_public_key(pem: bytes, name: str = "") -> PublicKey:
    """A public key from its PEM form; the form it is kept in is always the same.

    Args:
        name: where it came from.

    Raises:
        UsageError: it is none, or of a kind that is not used.
    """
    from cryptography.hazmat.primitives.asymmetric import ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    try:
        key = _loaded(pem)
    except ValueError as error:
        secret = b"PRIVATE KEY" in pem
        hint = "name the public key; bentotool key public FILE prints it" if secret else "cosign.pub, or the like"
        said = "is a private key" if secret else f"cannot be used: {error}"
        raise UsageError(f"key {name or 'given'} {said}", hint=hint) from None
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    kind = "ed25519" if isinstance(key, ed25519.Ed25519PublicKey) else "ecdsa-p256"
    normal = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(normal, "sha256:" + hashlib.sha256(der).hexdigest(), kind, name)


def load_public_key(path: Path) -> PublicKey:
    """A public key from a file.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is no public key.
    """
    return parse_public_key(read_key_file(path), str(path))


def read_key_file(path: Path) -> bytes:
    """The bytes of a small file with a key.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it cannot be read, or is too large for a key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(KEY_LIMIT + 1)
    except FileNotFoundError:
        raise NotFoundError(f"key {path} does not exist", hint="bentotool key new makes a pair") from None
    except OSError as error:
        raise UsageError(f"key {path} cannot be read: {error.strerror}") from None
    if len(data) > KEY_LIMIT:
        raise UsageError(f"key {path} is no key: it has more than {KEY_LIMIT} bytes")
    return data
