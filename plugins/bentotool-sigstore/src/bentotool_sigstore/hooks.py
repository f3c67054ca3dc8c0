"""What this plugin declares; imports nothing but bentotool's markers and records."""

from __future__ import annotations

from bentotool.hookspecs import hookimpl
from bentotool.signspec import SignerDecl


@hookimpl
def bentotool_signers() -> list[SignerDecl]:
    return [
        SignerDecl(
            "sigstore",
            "bentotool_sigstore.signers:Sigstore",
            "An identity that an OIDC issuer vouches for, with certificates and logs of Sigstore",
            keyless=True,
            certificates=True,
        )
    ]
