"""Who a certificate of Fulcio names, and what else it states.

The extensions are those of Fulcio's *docs/oid-info.md*; their names are the ones of that document, as cosign prints
them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentotool.errors import VerificationError
from bentotool.signspec import SignerIdentity

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

__all__ = ["EXTENSIONS", "signer_of"]

_ARC = "1.3.6.1.4.1.57264.1"
_ISSUER_OLD, _ISSUER, _USERNAME = 1, 8, 7
EXTENSIONS = {
    2: "githubWorkflowTrigger",
    3: "githubWorkflowSHA",
    4: "githubWorkflowName",
    5: "githubWorkflowRepository",
    6: "githubWorkflowRef",
    9: "buildSignerURI",
    10: "buildSignerDigest",
    11: "runnerEnvironment",
    12: "sourceRepositoryURI",
    13: "sourceRepositoryDigest",
    14: "sourceRepositoryRef",
    15: "sourceRepositoryIdentifier",
    16: "sourceRepositoryOwnerURI",
    17: "sourceRepositoryOwnerIdentifier",
    18: "buildConfigURI",
    19: "buildConfigDigest",
    20: "buildTrigger",
    21: "runInvocationURI",
    22: "sourceRepositoryVisibilityAtSigning",
    23: "deploymentEnvironment",
}
"""Number below Fulcio's arc: name."""
_RAW = range(1, 7)  # texts as they are; the later ones are DER
_UTF8 = 0x0C


def signer_of(certificate: Certificate) -> SignerIdentity:
    """Who a certificate names. Its signature is not looked at.

    Raises:
        VerificationError: it names nobody, more than one, or its issuer in two ways.
    """
    from cryptography.x509 import UnrecognizedExtension

    stated: dict[int, str] = {}
    for extension in certificate.extensions:
        arc, _, number = extension.oid.dotted_string.rpartition(".")
        if arc == _ARC and isinstance(extension.value, UnrecognizedExtension):
            stated[int(number)] = _text(int(number), extension.value.value)
    old, issuer = stated.get(_ISSUER_OLD), stated.get(_ISSUER)
    if old and issuer and old != issuer:
        raise VerificationError(f"the certificate names two issuers: {issuer[:100]!r} and {old[:100]!r}")
    if not (issuer or old):
        raise VerificationError("the certificate names no issuer")
    extensions = {EXTENSIONS[number]: text for number, text in stated.items() if number in EXTENSIONS}
    return SignerIdentity(identity=_identity(certificate), issuer=issuer or old, extensions=extensions)


def _identity(certificate: Certificate) -> str:
    from cryptography.x509 import (
        ExtensionNotFound,
        OtherName,
        RFC822Name,
        SubjectAlternativeName,
        UniformResourceIdentifier,
    )

    try:
        names = list(certificate.extensions.get_extension_for_class(SubjectAlternativeName).value)
    except ExtensionNotFound:
        names = []
    if len(names) != 1:
        raise VerificationError(f"the certificate names {len(names)} identities, not one")
    name = names[0]
    if isinstance(name, (RFC822Name, UniformResourceIdentifier)):
        return name.value
    if isinstance(name, OtherName) and name.type_id.dotted_string == f"{_ARC}.{_USERNAME}":
        return _der_text(name.value)
    raise VerificationError("the certificate's identity is neither a mail address nor a URI nor a user name")


def _text(number: int, value: bytes) -> str:
    if number not in _RAW:
        return _der_text(value)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise VerificationError("an extension of the certificate is no text") from None


def _der_text(value: bytes) -> str:
    """A UTF8String, alone."""
    if len(value) < 2 or value[0] != _UTF8:
        raise VerificationError("an extension of the certificate is no text")
    size, start = value[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(value[2:start], "big")
    if start > 6 or len(value) != start + size:
        raise VerificationError("an extension of the certificate is no text")
    try:
        return value[start:].decode("utf-8")
    except UnicodeDecodeError:
        raise VerificationError("an extension of the certificate is no text") from None
