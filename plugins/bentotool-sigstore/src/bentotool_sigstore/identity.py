"""As whom to sign: a token that is given, that of the CI, or that of a person at a browser."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from bentotool.errors import AuthenticationError, BentotoolError, RemoteError
from bentotool_sigstore.limits import timeout, within

if TYPE_CHECKING:
    from sigstore.models import ClientTrustConfig
    from sigstore.oidc import IdentityToken

    from bentotool.signspec import SigningRequest

__all__ = ["identity_token", "known_token"]

_AT_THE_BROWSER = 300.0  # seconds that a person has
_NONE = (
    "--key FILE signs with a key. Without one: in CI, let the job have an OIDC token (GitHub: permissions: id-token: "
    "write; GitLab: id_tokens with the name SIGSTORE_ID_TOKEN and aud sigstore); elsewhere --identity-token TOKEN, or "
    "a terminal, which leads to a browser"
)
_AGAIN = "get a new one: they are good for minutes; where it is new, this machine's clock is wrong"


def identity_token(request: SigningRequest, config: ClientTrustConfig) -> IdentityToken:
    """The token to sign by.

    Raises:
        AuthenticationError: there is none, or it cannot be used.
        RemoteError: who would give one does not answer.
    """
    return known_token(request) or _at_the_browser(config)


def known_token(request: SigningRequest) -> IdentityToken | None:
    """The same as far as nobody has to be asked; None where a person at a browser will be.

    Raises:
        AuthenticationError, RemoteError: as above.
    """
    if request.identity_token is not None:
        return _checked(request.identity_token.strip(), "the identity token")
    ambient = _ambient()
    if ambient:
        return _checked(ambient, "the identity token of this CI")
    if not request.interactive:
        raise AuthenticationError("there is no identity to sign as", hint=_NONE)
    return None


def _checked(token: str, what: str) -> IdentityToken:
    import jwt
    from sigstore.oidc import IdentityError, IdentityToken

    try:
        return IdentityToken(token)
    except IdentityError as error:
        cause = error.__cause__
        if isinstance(cause, jwt.ExpiredSignatureError):
            raise AuthenticationError(f"{what} has expired", hint=_AGAIN) from None
        if isinstance(cause, jwt.ImmatureSignatureError) or (cause is None and "validity" in str(error)):
            raise AuthenticationError(f"{what} is not valid now", hint=_AGAIN) from None
        if isinstance(cause, jwt.InvalidAudienceError):
            raise AuthenticationError(f"{what} is not for Sigstore", hint="its audience has to be 'sigstore'") from None
        said = f": {cause}"[:120] if isinstance(cause, jwt.MissingRequiredClaimError) else ""
        raise AuthenticationError(f"{what} is no OIDC identity token{said}", hint=_NONE) from None


def _ambient() -> str | None:
    from sigstore.oidc import IdentityError, detect_credential

    def detect(_: threading.Event) -> str | None:
        return detect_credential()

    try:
        return within(timeout(), "the OIDC service of this CI", detect, hint=_NONE)
    except IdentityError as error:
        raise AuthenticationError(f"this CI gave no identity token: {_line(error)}", hint=_NONE) from error
    except BentotoolError:
        raise
    except Exception as error:  # of the network, and of what came over it
        raise RemoteError(f"this CI gave no identity token: {_line(error)}", hint=_NONE) from error


def _at_the_browser(config: ClientTrustConfig) -> IdentityToken:
    from sigstore.oidc import IdentityError, Issuer

    hint = "--identity-token TOKEN needs no browser"
    try:
        url = config.signing_config.get_oidc_url()
        issuer = within(timeout(), f"the OIDC issuer at {url}", lambda _: Issuer(url), hint=hint)
        return within(_AT_THE_BROWSER, "the browser", lambda _: issuer.identity_token(), hint=hint)
    except IdentityError as error:
        raise AuthenticationError(f"the sign-in failed: {_line(error)}", hint=hint) from error
    except BentotoolError:
        raise
    except Exception as error:  # of the network, and of what came over it
        raise RemoteError(f"the sign-in failed: {_line(error.__cause__ or error)}", hint=hint) from error


def _line(error: object) -> str:
    text = str(error) or type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
