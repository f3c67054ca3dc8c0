"""What a signer is asked for and gives back; keys that lie elsewhere and certificates come through plugins.

A plugin's :class:`Signers` makes either a :class:`KeyHolder`, which signs bytes with a key that it does not show (a
KMS, a hardware token), or a :class:`BundleSigner`, which makes a whole Sigstore bundle by itself (keyless). It may also
give a :class:`CertificateVerifier` for bundles that were signed with a certificate. Who may sign what is judged by
bentotool, from the :class:`SignerIdentity` that comes back. This module imports the standard library and records only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bentotool.interfaces import _Declaration, _matching, _tuple_of

__all__ = [
    "BundleSigner",
    "CertificateVerifier",
    "Certified",
    "KeyHolder",
    "SignerDecl",
    "SignerIdentity",
    "Signers",
    "SigningRequest",
    "VerifierRequest",
]

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+")


@dataclass(frozen=True)
class SignerDecl(_Declaration):
    """Signers of one kind; ``target`` is a :class:`Signers` (or a class of no arguments that makes one).

    Args:
        schemes: of the key references that it answers to, without the colon: ``awskms`` for
            ``--key awskms:///alias/release``.
        keyless: whether it signs without any key, by an identity that somebody vouches for; the one that does is used
            where no key is named.
        certificates: whether it verifies bundles that were signed with a certificate.
    """

    schemes: tuple[str, ...] = ()
    keyless: bool = False
    certificates: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _tuple_of(str, self.schemes, "schemes")
        for scheme in self.schemes:
            _matching(_SCHEME, scheme, "scheme")
        if not (self.schemes or self.keyless or self.certificates):
            raise ValueError("a signer has schemes, is keyless or knows certificates; this one does nothing")


@dataclass(frozen=True)
class SignerIdentity:
    """Who signed: a key, or somebody whom a certificate names.

    Args:
        key: ``sha256:<hex>`` of the public key (DER, SubjectPublicKeyInfo); None for a certificate.
        identity: the certificate's subject alternative name: a mail address or a URI.
        issuer: who vouched for it: the OIDC issuer that the certificate states.
        extensions: what else the certificate states of the signer (source repository, ref, workflow, …), by name.
    """

    key: str | None = None
    identity: str | None = None
    issuer: str | None = None
    extensions: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.key:
            return f"key {self.key}"
        return f"{self.identity} (issuer {self.issuer})"

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without what is not known."""
        known = {"key": self.key, "identity": self.identity, "issuer": self.issuer}
        return {
            **{name: value for name, value in known.items() if value is not None},
            **({"extensions": dict(self.extensions)} if self.extensions else {}),
        }


@dataclass(frozen=True)
class SigningRequest:
    """How the user wants to sign.

    Args:
        key: reference of a key, with its scheme; None: without any key.
        identity_token: an OIDC token to sign by, in place of one that is asked for.
        trust_config: file with the services of a private instance (a ``ClientTrustConfig``).
        interactive: whether a person is there who could be asked, in a browser for one.
        note: told what a person should know.
    """

    key: str | None = None
    identity_token: str | None = field(default=None, repr=False)
    trust_config: Path | None = None
    interactive: bool = False
    note: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class VerifierRequest:
    """How certificates are to be judged.

    Args:
        trust_config: file with the roots of trust (a ``ClientTrustConfig``, or its ``trusted_root`` alone).
        offline: whether nothing may be fetched.
    """

    trust_config: Path | None = None
    offline: bool = False


@dataclass(frozen=True)
class Certified:
    """What a bundle holds, after its signature, certificate and log entries were found good.

    Args:
        payload_type: of the envelope.
        payload: the bytes that were signed.
        signer: of the certificate; ``key`` is None.
        signed_at: by a trusted timestamp or log entry.
    """

    payload_type: str
    payload: bytes
    signer: SignerIdentity
    signed_at: datetime | None


@runtime_checkable
class KeyHolder(Protocol):
    """Signs with a key that stays where it is.

    When:
        ``bentotool sign --key SCHEME:…``, once for each thing that is signed.

    Arguments:
        ``data``: the very bytes to sign, not a digest of them.

    Return:
        ``public_key``: PEM, SubjectPublicKeyInfo, of an EC key on P-256 or an Ed25519 key. ``sign``: for EC the ASN.1
        DER form of ECDSA over SHA-256 of the data, for Ed25519 the 64 bytes of RFC 8032.

    Example::

        class Remote:
            def public_key(self):
                return self.client.get_public_key(self.name)

            def sign(self, data):
                return self.client.sign(self.name, hashlib.sha256(data).digest())
    """

    def public_key(self) -> bytes: ...

    def sign(self, data: bytes) -> bytes: ...


@runtime_checkable
class BundleSigner(Protocol):
    """Signs and makes the whole bundle.

    When:
        ``bentotool sign`` without a key, once for each thing that is signed.

    Arguments:
        ``payload`` and ``payload_type`` of the DSSE envelope: an in-toto statement, whose bytes are kept as they are.

    Return:
        A Sigstore bundle (v0.3) as JSON, with everything in it that verifies it later without asking anybody.
        ``identity`` is who signs, for messages.

    Example::

        class Keyless:
            identity = "ada@example.com"

            def sign_dsse(self, payload, payload_type):
                return self.context.sign(payload, payload_type).to_json().encode()
    """

    @property
    def identity(self) -> str: ...

    def sign_dsse(self, payload: bytes, payload_type: str) -> bytes: ...


@runtime_checkable
class CertificateVerifier(Protocol):
    """Verifies bundles that were signed with a certificate.

    When:
        ``bentotool verify --identity …``, or a policy that names identities; once for each bundle.

    Arguments:
        ``bundle``: JSON, hostile, at most a few MiB. The signature, the chain up to a root of trust, the time and the
        log entries have to be checked; the payload and the identity are judged by whoever calls.

    Return:
        What was signed, and by whom. Anything that does not hold is a
        :class:`~bentotool.errors.VerificationError` with the reason.

    Example::

        class Verifier:
            def verify(self, bundle):
                kind, payload, certificate = self.check(bundle)
                return Certified(kind, payload, SignerIdentity(identity=..., issuer=...), certificate.time)
    """

    def verify(self, bundle: bytes) -> Certified: ...


@runtime_checkable
class Signers(Protocol):
    """Makes signers and verifiers of one kind.

    When:
        The target of a :class:`SignerDecl`, made once in a process that signs or verifies.

    Arguments:
        See :class:`SigningRequest` and :class:`VerifierRequest`. Heavy imports belong into these methods.

    Return:
        See the methods. What cannot be done is a :class:`~bentotool.errors.BentotoolError` with a next step; every
        wait on the network ends.

    Example::

        class Cloud:
            def signer(self, request):
                return Remote(connect(), request.key)

            def verifier(self, request):
                raise UsageError("this plugin knows keys only")
    """

    def signer(self, request: SigningRequest) -> KeyHolder | BundleSigner:
        """A signer for a key of one of the declared schemes or, where that is declared, without one."""
        ...

    def verifier(self, request: VerifierRequest) -> CertificateVerifier:
        """A verifier of certificates, where that is declared."""
        ...
