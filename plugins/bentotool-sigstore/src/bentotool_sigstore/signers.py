"""The signer and the verifier that bentotool asks for; sigstore is imported when one of them is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bentotool.errors import UsageError

if TYPE_CHECKING:
    from bentotool.signspec import BundleSigner, CertificateVerifier, SigningRequest, VerifierRequest

__all__ = ["Sigstore"]


class Sigstore:
    """Signs without a key, and verifies certificates."""

    def signer(self, request: SigningRequest) -> BundleSigner:
        """A signer for whoever the token names; a certificate is asked for at once.

        Raises:
            UsageError: a key is asked for, or the trust configuration names no services to sign with.
            AuthenticationError: there is no identity, or it is refused.
            RemoteError: a service does not answer.
        """
        if request.key is not None:
            raise UsageError(f"no key is known as {request.key[:80]!r}", hint="without --key, no key is needed")
        from bentotool_sigstore.signing import keyless

        _hush()
        return keyless(request)

    def verifier(self, request: VerifierRequest) -> CertificateVerifier:
        """A verifier by the roots of a file or, where none is given, of the public instance.

        Raises:
            ConfigError: the file has no roots of trust.
        """
        from bentotool_sigstore.verifying import Verifier

        _hush()
        return Verifier(request)


def _hush() -> None:
    """Keep the library's warnings from the terminal: what matters of them is an error of ours, or a note."""
    logger = logging.getLogger("sigstore")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
