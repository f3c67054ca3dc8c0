"""A timestamp authority (RFC 3161, with the CMS of RFC 5652)."""

from __future__ import annotations

import hashlib
import itertools
from datetime import datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from sigstore_stand_in.authority import Authority, der_of
from sigstore_stand_in.der import (
    BOOLEAN,
    INTEGER,
    NULL,
    OCTETS,
    TIME,
    element,
    elements,
    integer,
    object_id,
    sequence,
    set_of,
)

_SHA256 = object_id("2.16.840.1.101.3.4.2.1")
_SIGNED_DATA = object_id("1.2.840.113549.1.7.2")
_TST_INFO = object_id("1.2.840.113549.1.9.16.1.4")
_CONTENT_TYPE = object_id("1.2.840.113549.1.9.3")
_MESSAGE_DIGEST = object_id("1.2.840.113549.1.9.4")
_SIGNING_CERTIFICATE = object_id("1.2.840.113549.1.9.16.2.47")
_ECDSA_SHA256 = object_id("1.2.840.10045.4.3.2")
_POLICY = object_id("1.3.6.1.4.1.57264.2")


class Timestamps:
    """Signs the time at which it saw a digest."""

    def __init__(self) -> None:
        usage = ExtendedKeyUsageOID.TIME_STAMPING
        self.authority = Authority("tsa", usage)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self.authority.timestamper(self._key.public_key(), usage)
        self._numbers = itertools.count(1)

    def reply(self, query: bytes, at: datetime) -> bytes:
        """The answer to a query.

        Raises:
            ValueError, IndexError: it is none.
        """
        (_, fields, _), *_ = elements(query)
        _, (_, _, imprint), *rest = elements(fields)
        nonce = next((whole for tag, _, whole in rest if tag == INTEGER), b"")
        wants_certificate = any(tag == BOOLEAN and content != b"\0" for tag, content, _ in rest)
        info = sequence(
            integer(1),
            _POLICY,
            imprint,
            integer(next(self._numbers)),
            element(TIME, at.strftime("%Y%m%d%H%M%SZ").encode()),
            nonce,
        )
        return sequence(sequence(integer(0)), self._token(info, with_certificate=wants_certificate))

    def _token(self, info: bytes, *, with_certificate: bool) -> bytes:
        mine = der_of(self.certificate)
        sha256 = sequence(_SHA256, element(NULL))
        attributes = set_of(
            sequence(_CONTENT_TYPE, set_of(_TST_INFO)),
            sequence(_MESSAGE_DIGEST, set_of(element(OCTETS, hashlib.sha256(info).digest()))),
            sequence(
                _SIGNING_CERTIFICATE,
                set_of(sequence(sequence(sequence(element(OCTETS, hashlib.sha256(mine).digest()))))),
            ),
        )
        signature = self._key.sign(attributes, ec.ECDSA(hashes.SHA256()))
        signer = sequence(
            integer(1),
            sequence(self.certificate.issuer.public_bytes(), integer(self.certificate.serial_number)),
            sha256,
            b"\xa0" + attributes[1:],  # the same, tagged as the field; signed as the set that it is
            sequence(_ECDSA_SHA256),
            element(OCTETS, signature),
        )
        signed = sequence(
            integer(3),
            set_of(sha256),
            sequence(_TST_INFO, element(0xA0, element(OCTETS, info))),
            element(0xA0, self.certificate.public_bytes(Encoding.DER)) if with_certificate else b"",
            set_of(signer),
        )
        return sequence(_SIGNED_DATA, element(0xA0, signed))
