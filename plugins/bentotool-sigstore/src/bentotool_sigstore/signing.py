"""Signing without a key: a certificate of minutes for a key that is thrown away, and an entry in a log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bentotool.errors import AuthenticationError, BentotoolError, ConfigError, RemoteError, VerificationError
from bentotool_sigstore.certificates import signer_of
from bentotool_sigstore.identity import identity_token, known_token
from bentotool_sigstore.limits import timeout
from bentotool_sigstore.roots import client_config, public_config
from bentotool_sigstore.services import CertificateAuthority, TimestampAuthority, TransparencyLog
from bentotool_sigstore.verifying import certified

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken

    from bentotool.signspec import SigningRequest

__all__ = ["Keyless", "keyless"]

_IN_TOTO = "application/vnd.in-toto+json"
_SERVICES = "its signingConfig needs caUrls and rekorTlogUrls that are valid now"
_CLOCK = "where the clock of this machine is wrong, set it; else the trust configuration is not of these services"


def keyless(request: SigningRequest) -> Keyless:
    """A signer with a certificate.

    Raises:
        AuthenticationError: there is no identity, or Fulcio refuses it.
        ConfigError: the trust configuration is none.
        RemoteError: a service does not answer.
    """
    if request.trust_config:
        config = client_config(request.trust_config)
        return Keyless(identity_token(request, config), config, request)
    known = known_token(request)  # who has none hears of that, and not of services that are asked in vain
    config = public_config(offline=False, verifying=False)
    return Keyless(known or identity_token(request, config), config, request)


class Keyless:
    """Makes bundles, all with one certificate."""

    def __init__(self, token: IdentityToken, config: ClientTrustConfig, request: SigningRequest) -> None:
        from sigstore.sign import Signer, SigningContext
        from sigstore.verify import Verifier

        seconds = timeout()
        try:
            services = config.signing_config
            log = TransparencyLog(services.get_tlogs()[0], seconds)
            note = request.note if log.tells_time else None
            stamps = [TimestampAuthority(each, seconds, note) for each in services.get_tsas()]
            self._fulcio = CertificateAuthority(services.get_fulcio(), seconds)
            self._verifier = Verifier(trusted_root=config.trusted_root)
        except Exception as error:  # the library's, of many kinds
            raise ConfigError(
                f"the trust configuration names no services to sign with: {error}", hint=_SERVICES
            ) from error
        if not stamps and not log.tells_time:
            raise ConfigError(
                "the trust configuration names no timestamp authority, and its log tells no time",
                hint="with a Rekor of version 2, signingConfig needs tsaUrls",
            )
        context: Any = SigningContext
        self._signer: Signer = _explained(
            lambda: Signer(
                token,
                context(fulcio=self._fulcio, rekor=log, trusted_root=config.trusted_root, tsa_clients=stamps),
                cache=True,
            )
        )

    @property
    def identity(self) -> str:
        """Whom the certificate names."""
        if self._fulcio.issued is None:
            raise RuntimeError("no certificate was issued")
        return str(signer_of(self._fulcio.issued).identity)

    def sign_dsse(self, payload: bytes, payload_type: str) -> bytes:
        """A bundle over an in-toto statement, which then verifies for sure.

        Raises:
            VerificationError: what came back from the services does not hold.
            RemoteError: a service does not answer.
        """
        from sigstore.dsse import Statement
        from sigstore.errors import Error

        if payload_type != _IN_TOTO:
            raise VerificationError(f"the library of Sigstore signs no payload of type {payload_type!r}")
        try:
            statement = Statement(payload)
        except Error as error:
            said = " ".join(str(error).split())[:200]
            raise VerificationError(f"the library of Sigstore takes this for no statement: {said}") from error
        bundle: bytes = _explained(lambda: self._signer.sign_dsse(statement).to_json().encode())
        try:
            certified(bundle, self._verifier)
        except VerificationError as error:
            raise VerificationError(
                f"the signature was made and does not hold: {error.message}", hint=_CLOCK
            ) from error
        return bundle


def _explained(work: Any) -> Any:
    from sigstore._internal.fulcio import ExpiredCertificate
    from sigstore.errors import Error
    from sigstore.errors import VerificationError as Unverified
    from sigstore.oidc import ExpiredIdentity

    try:
        return work()
    except BentotoolError:
        raise
    except ExpiredIdentity:
        raise AuthenticationError("the identity token has expired", hint="get a new one and sign again") from None
    except ExpiredCertificate:
        raise AuthenticationError(
            "the certificate has expired before all was signed",
            hint="sign again, with a new identity token; where that came at once, this machine's clock is ahead",
        ) from None
    except Unverified as error:
        raise VerificationError(f"the certificate that Fulcio gave does not hold: {error}", hint=_CLOCK) from error
    except Error as error:
        raise RemoteError(f"Sigstore did not sign: {error}") from error
