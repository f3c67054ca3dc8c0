"""Verification of bundles that were signed with a certificate."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from bentotool.errors import VerificationError
from bentotool.signspec import Certified, SignerIdentity
from bentotool_sigstore.certificates import signer_of
from bentotool_sigstore.roots import public_config, trusted_root

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from sigstore.models import Bundle, TrustedRoot

    from bentotool.signspec import VerifierRequest

__all__ = ["Verifier", "certified"]

_OUTDATED = "not valid at validation time"
_NOT_THEN = "its certificate was not valid at the time that the log or a timestamp states"
_NO_ROOT = "its certificate leads to none of the roots of trust here; those of a private instance: --trust-config FILE"


class Verifier:
    """Verifies by the roots of one instance. Those of the public one are fetched when the first bundle comes.

    Raises:
        ConfigError: the file of the request has no roots.
    """

    def __init__(self, request: VerifierRequest) -> None:
        self._offline = request.offline
        self._verifier: Any = None
        if request.trust_config is not None:
            self._verifier = _verifier(trusted_root(request.trust_config))

    def verify(self, bundle: bytes) -> Certified:
        """What a bundle holds, after everything about it was found good; who signed is not judged.

        Raises:
            VerificationError: something does not hold.
            RemoteError: the roots of the public instance cannot be fetched.
        """
        if self._verifier is None:
            self._verifier = _verifier(public_config(offline=self._offline, verifying=True).trusted_root)
        return certified(bundle, self._verifier)


def _verifier(root: TrustedRoot) -> Any:
    from sigstore.verify import Verifier as Library

    return Library(trusted_root=root)


class _Anybody:
    """The library's judge of identities, who only notes whom a certificate names: bentotool judges that itself."""

    signer = SignerIdentity()

    def verify(self, certificate: Certificate) -> None:
        self.signer = signer_of(certificate)


def certified(data: bytes, verifier: Any) -> Certified:
    """Verify a bundle with a verifier of the library.

    Raises:
        VerificationError: something does not hold.
    """
    from sigstore.errors import CertValidationError, Error
    from sigstore.models import Bundle

    anybody = _Anybody()
    try:
        bundle = Bundle.from_json(data)
        payload_type, payload = verifier.verify_dsse(bundle, anybody)
        return Certified(payload_type, payload, anybody.signer, _signed_at(bundle, verifier))
    except VerificationError:
        raise
    except CertValidationError as error:
        outdated = _OUTDATED in str(error)
        raise VerificationError(_NOT_THEN if outdated else _NO_ROOT) from error
    except Error as error:
        raise VerificationError(_reason(error)) from error
    except Exception as error:  # hostile bytes, in any of the library's parsers
        raise VerificationError(f"the bundle cannot be read: {_reason(error)}") from error


def _signed_at(bundle: Bundle, verifier: Any) -> datetime | None:
    """The earliest of the times that were verified."""
    times = [each.time for each in verifier._establish_time(bundle)]
    return min(times, default=None)


def _reason(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]
