"""Which of the bundles attached to some objects prove anything: the signature holds, and the statement is about them.

Nothing here decides whose signature counts: that is for whoever asked, by a key, an identity or a policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from bentotool.errors import BentotoolError, RemoteError, VerificationError
from bentotool.signspec import CertificateVerifier, SignerIdentity
from bentotool.trust.bundle import Bundle
from bentotool.trust.dsse import IN_TOTO, Envelope
from bentotool.trust.evidence import Evidence, Findings, Object, Rejected
from bentotool.trust.keys import PublicKey
from bentotool.trust.readers import FoundBundle, ReferrerReader
from bentotool.trust.statements import COSIGN_SIGN, MODEL_SIGNING, Statement

__all__ = ["gather"]

_SIGNATURES = (COSIGN_SIGN, MODEL_SIGNING)


def gather(
    objects: Sequence[Object],
    keys: Sequence[PublicKey],
    certificates: CertificateVerifier | None,
    reader: ReferrerReader,
) -> Findings:
    """Verify every bundle that is attached to some objects.

    Args:
        keys: that bundles made with a key are tried with.
        certificates: verifies the others; None: they are all rejected.
        reader: finds the bundles.

    Returns:
        what was proven, and what not and why.

    Raises:
        RemoteError: a registry, or a service that verification needs, does not answer.
    """
    evidence: list[Evidence] = []
    rejected: list[Rejected] = []
    for each in objects:
        for found in reader.bundles(each.digest):
            if isinstance(found, Rejected):
                rejected.append(found)
                continue
            try:
                evidence.append(_proof(each, found, keys, certificates))
            except RemoteError:
                raise
            except BentotoolError as error:
                reason = _one_line(error.message)
                rejected.append(Rejected(found.referrer, each.digest, reason, _claimed_type(found.data)))
    return Findings(tuple(evidence), tuple(rejected))


def _proof(
    about: Object, found: FoundBundle, keys: Sequence[PublicKey], certificates: CertificateVerifier | None
) -> Evidence:
    bundle = Bundle.from_bytes(found.data)
    envelope, signer, signed_at = bundle.envelope, SignerIdentity(), None
    if bundle.certified:
        envelope, signer, signed_at = _by_certificate(found.data, certificates)
    else:
        signer = _by_key(bundle, keys)
    if envelope.payload_type != IN_TOTO:
        raise VerificationError(f"its payload is of type {envelope.payload_type[:80]!r}, not {IN_TOTO}")
    statement = Statement.from_bytes(envelope.payload)
    wanted = about.files_digest if statement.predicate_type == MODEL_SIGNING else about.digest.removeprefix("sha256:")
    subject = statement.about(wanted) if wanted else None
    if subject is None:
        raise VerificationError(f"it speaks of another artifact, not of {about.digest}")
    kind: Literal["signature", "attestation"] = (
        "signature" if statement.predicate_type in _SIGNATURES else "attestation"
    )
    return Evidence(
        about.digest, kind, statement.predicate_type, statement.predicate, signer, signed_at, found.referrer,
        subject.annotations,
    )  # fmt: skip


def _by_key(bundle: Bundle, keys: Sequence[PublicKey]) -> SignerIdentity:
    signed = bundle.envelope.signed
    for key in keys:
        if any(key.verify(signed, signature) for signature in bundle.envelope.signatures):
            return SignerIdentity(key=key.fingerprint)
    if not keys:
        raise VerificationError("it was signed with a key, and no key was given")
    raise VerificationError("it was signed with another key than those given, or changed since")


def _by_certificate(
    data: bytes, certificates: CertificateVerifier | None
) -> tuple[Envelope, SignerIdentity, datetime | None]:
    if certificates is None:
        raise VerificationError("it was signed with a certificate, and no identity was given")
    try:
        found = certificates.verify(data)
    except BentotoolError:
        raise
    except Exception as error:  # a plugin's, over hostile bytes
        raise VerificationError(f"it could not be verified: {type(error).__name__}: {error}") from error
    if found.signer.key is not None or not found.signer.identity or not found.signer.issuer:
        raise VerificationError("its certificate names no identity and issuer")
    return Envelope(found.payload_type, found.payload, ()), found.signer, found.signed_at


def _claimed_type(data: bytes) -> str:
    """What a bundle that proves nothing claims to be, for messages."""
    try:
        return Statement.from_bytes(Bundle.from_bytes(data).envelope.payload).predicate_type
    except BentotoolError:
        return ""


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
