"""Two-step certificate authorities: a root, and an intermediate that signs leaves."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


def now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def spki(key: ec.EllipticCurvePublicKey) -> bytes:
    """DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_usage(*names: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in names for usage in _USAGES})


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


class Authority:
    """A root and an intermediate.

    Args:
        name: of both.
        usage: the extended key usage of the leaves, which the intermediate is limited to.
    """

    def __init__(self, name: str, usage: x509.ObjectIdentifier) -> None:
        root_key = ec.generate_private_key(ec.SECP256R1())
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(f"{name} intermediate")
        top = _name(f"{name} root")
        self.root = _authority(top, top, root_key.public_key(), root_key, path=1)
        self.intermediate = _authority(top, self.name, self.key.public_key(), root_key, path=0, usage=usage)
        self.chain = (self.intermediate, self.root)

    def leaf(
        self, key: ec.EllipticCurvePublicKey, subject: x509.Name, since: datetime, until: datetime, serial: int = 0
    ) -> x509.CertificateBuilder:
        """A leaf to be completed and signed with :attr:`key`.

        Args:
            serial: a random one when 0.
        """
        return (
            _certificate(self.name, subject, key, since, until, serial)
            .add_extension(key_usage("digital_signature"), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )

    def timestamper(self, key: ec.EllipticCurvePublicKey, usage: x509.ObjectIdentifier) -> x509.Certificate:
        """The long-lived certificate of a service."""
        at = now()
        built = self.leaf(key, _name("timestamps"), at - timedelta(days=1), at + timedelta(days=3650))
        return built.add_extension(x509.ExtendedKeyUsage([usage]), critical=True).sign(self.key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "stand-in"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _certificate(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    since: datetime,
    until: datetime,
    serial: int = 0,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(
    issuer: x509.Name,
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    path: int,
    usage: x509.ObjectIdentifier | None = None,
) -> x509.Certificate:
    at = now()
    built = (
        _certificate(issuer, subject, key, at - timedelta(days=1), at + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path), critical=True)
        .add_extension(key_usage("key_cert_sign", "crl_sign"), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if usage is not None:
        built = built.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    return built.sign(signer, hashes.SHA256())
