"""Whoever signs: a key in a file, a key that a plugin holds, or an identity that a plugin vouches for."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from bentotool.errors import BentotoolError, PluginError, UsageError, VerificationError
from bentotool.sdk.wording import kind_of
from bentotool.signspec import (
    BundleSigner,
    CertificateVerifier,
    KeyHolder,
    SignerDecl,
    Signers,
    SigningRequest,
    VerifierRequest,
)
from bentotool.trust.bundle import Bundle, key_bundle
from bentotool.trust.dsse import IN_TOTO, Envelope, pae
from bentotool.trust.keys import PublicKey, load_public_key, parse_public_key
from bentotool.trust.privatekeys import load_private_key

if TYPE_CHECKING:
    from bentotool.plugins import Plugins

__all__ = ["KEYLESS", "StatementSigner", "open_certificates", "open_public_key", "open_signer"]

KEYLESS = "keyless"
"""What a plugin's ``bentotool_signing_identity`` says in place of a key."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):", re.ASCII)
_NONE_KEYLESS = "give --key FILE, or: pip install bentotool-sigstore"


class StatementSigner(Protocol):
    """Makes bundles of statements.

    Attributes:
        identity: who signs, for people.
        public: the key that verifies, where it is one.
    """

    @property
    def identity(self) -> str: ...

    @property
    def public(self) -> PublicKey | None: ...

    def bundle(self, payload: bytes) -> bytes:
        """A Sigstore bundle with a signed in-toto statement."""
        ...


@dataclass(frozen=True)
class KeySigner:
    """Signs with a key, wherever it lies."""

    holder: KeyHolder
    public: PublicKey

    @property
    def identity(self) -> str:
        return f"key {self.public.fingerprint}"

    def sign(self, data: bytes) -> bytes:
        """The bare signature, which is checked: a key service may answer with anything.

        Raises:
            PluginError: it is not that of the public key.
        """
        signature = _called("signing", lambda: self.holder.sign(data))
        if not isinstance(signature, bytes) or not self.public.verify(data, signature):
            raise PluginError(f"the signature made with {self.public.name} is not one of its public key")
        return signature

    def bundle(self, payload: bytes) -> bytes:
        signature = self.sign(pae(IN_TOTO, payload))
        return key_bundle(Envelope(IN_TOTO, payload, (signature,)), self.public.hint)


@dataclass(frozen=True)
class IdentitySigner:
    """Signs by a plugin that makes the whole bundle."""

    signer: BundleSigner
    public: PublicKey | None = None

    @property
    def identity(self) -> str:
        return str(self.signer.identity)

    def bundle(self, payload: bytes) -> bytes:
        """The plugin's bundle, of which all is checked that can be without its roots of trust.

        Raises:
            PluginError: it does not hold what was to be signed.
        """
        data = _called("signing", lambda: self.signer.sign_dsse(payload, IN_TOTO))
        try:
            found = Bundle.from_bytes(data)
        except (VerificationError, TypeError, AttributeError) as error:
            raise PluginError(f"the bundle that was made cannot be used: {error}") from None
        if (found.envelope.payload, found.envelope.payload_type) != (payload, IN_TOTO):
            raise PluginError("the bundle that was made holds something else than what was to be signed")
        return data


def _called(what: str, action: Callable[[], bytes]) -> bytes:
    try:
        return action()
    except BentotoolError:
        raise
    except Exception as error:  # a plugin's: its mistake is not a traceback of ours
        raise PluginError(f"{what} failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def open_signer(plugins: Plugins, request: SigningRequest, ask: Callable[[str], bytes | None]) -> StatementSigner:
    """The signer that a user means.

    Args:
        ask: for the password of a key in a file.

    Raises:
        UsageError: no plugin answers to the key's scheme, or none signs without a key; a key that cannot be used.
        NotFoundError: there is no such file.
    """
    if request.key is None:
        return _opened(plugins, _keyless(plugins), request)
    if decl := _scheme_decl(plugins, request.key):
        return _opened(plugins, decl, request)
    key = load_private_key(Path(request.key), ask)
    return KeySigner(key, key.public)


def open_public_key(plugins: Plugins, text: str) -> PublicKey:
    """A public key: from a file, or of a key that a plugin holds.

    Raises:
        UsageError, NotFoundError: there is none.
    """
    decl = _scheme_decl(plugins, text)
    if decl is None:
        return load_public_key(Path(text))
    signer = _opened(plugins, decl, SigningRequest(key=text))
    if signer.public is None:
        raise UsageError(f"{text} is no key", hint="give a file with a public key")
    return signer.public


def open_certificates(plugins: Plugins, request: VerifierRequest) -> CertificateVerifier:
    """What verifies bundles that were signed with a certificate.

    Raises:
        UsageError: no plugin does.
    """
    decls = [each for each in plugins.signers().values() if each.certificates]
    if not decls:
        raise UsageError("no installed plugin verifies certificates", hint="pip install bentotool-sigstore")
    found = _signers(plugins, _only(decls)).verifier(request)
    if not isinstance(found, CertificateVerifier):
        raise PluginError(f"signer {decls[0].name!r}: its verifier is no CertificateVerifier")
    return found


def _keyless(plugins: Plugins) -> SignerDecl:
    decls = [each for each in plugins.signers().values() if each.keyless]
    if not decls:
        raise UsageError("no key was named, and no installed plugin signs without one", hint=_NONE_KEYLESS)
    return _only(decls)


def _only(decls: list[SignerDecl]) -> SignerDecl:
    if len(decls) > 1:
        names = " and ".join(each.name for each in decls)
        raise PluginError(
            f"signers {names} are for the same", hint="bentotool --disable-plugin NAME … goes on with one"
        )
    return decls[0]


def _scheme_decl(plugins: Plugins, key: str) -> SignerDecl | None:
    """The signer that a key's scheme belongs to; None for a file."""
    found = _SCHEME.match(key)
    if found is None or os.path.lexists(key):
        return None
    decls = [each for each in plugins.signers().values() if found[1] in each.schemes]
    if decls:
        return _only(decls)
    known = sorted(scheme for each in plugins.signers().values() for scheme in each.schemes)
    raise UsageError(
        f"no installed plugin has keys of scheme {found[1]!r}; known: {', '.join(known) or 'none'}",
        hint="a file is named without a scheme",
    )


def _signers(plugins: Plugins, decl: SignerDecl) -> Signers:
    found = plugins.resolve(decl)
    if not isinstance(found, Signers):
        raise PluginError(f"signer {decl.name!r}: {decl.target} is not a Signers")
    return found


def _opened(plugins: Plugins, decl: SignerDecl, request: SigningRequest) -> StatementSigner:
    made = _signers(plugins, decl).signer(request)
    if isinstance(made, KeyHolder):
        pem = _called(f"asking for the public key of {request.key}", made.public_key)
        return KeySigner(made, parse_public_key(pem, request.key or decl.name))
    if isinstance(made, BundleSigner):
        return IdentitySigner(made)
    raise PluginError(f"signer {decl.name!r} gave {kind_of(made)}, which is neither KeyHolder nor BundleSigner")
