"""Private keys in files: read with or without a password, and made anew."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from bentotool.errors import ConflictError, NotFoundError, UsageError
from bentotool.trust.cosignkey import is_cosign_key, open_cosign_key, seal_cosign_key
from bentotool.trust.keys import PublicKey, parse_public_key, read_key_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    _Key: TypeAlias = EllipticCurvePrivateKey | Ed25519PrivateKey

__all__ = ["FORMS", "KINDS", "PASSWORD_VARIABLES", "FileKey", "PairPaths", "load_private_key", "make_pair"]

KINDS = ("ecdsa-p256", "ed25519")
FORMS = ("pkcs8", "cosign")
PASSWORD_VARIABLES = ("BENTOTOOL_KEY_PASSWORD", "COSIGN_PASSWORD")
"""Where a password comes from, before anybody is asked."""
Ask = Callable[[str], "bytes | None"]


@dataclass(frozen=True)
class FileKey:
    """A private key in memory; a :class:`~bentotool.signspec.KeyHolder`."""

    public: PublicKey
    _key: _Key

    def public_key(self) -> bytes:
        return self.public.pem

    def sign(self, data: bytes) -> bytes:
        """Sign: ECDSA over SHA-256 as DER, or Ed25519."""
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519
        from cryptography.hazmat.primitives.hashes import SHA256

        if isinstance(self._key, ed25519.Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, ec.ECDSA(SHA256()))

    def __repr__(self) -> str:
        return f"FileKey({self.public.fingerprint})"


def load_private_key(path: Path, ask: Ask = lambda text: None) -> FileKey:
    """A private key from a file: PKCS#8 or SEC 1 in PEM, encrypted or not, or cosign's own form.

    Args:
        ask: called with a question where a password is needed and no variable has it; None: there is nobody to ask.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is no such key, or the password is missing or wrong.
    """
    data = read_key_file(path)
    if b"-----BEGIN PUBLIC KEY-----" in data:
        raise UsageError(f"key {path} is a public key", hint="sign with the private one; verify with this one")
    return _usable(_loaded(path, data, ask), path)


def _loaded(path: Path, data: bytes, ask: Ask) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key

    wrong = UsageError(f"the password of key {path} is wrong", hint=_password_hint())
    try:
        if is_cosign_key(data):
            opened = open_cosign_key(data, _password(path, ask))
            if opened is None:
                raise wrong
            return load_der_private_key(opened, None)
        with contextlib.suppress(TypeError):  # says that it is encrypted
            return load_pem_private_key(data, None)
        password = _password(path, ask)
        try:
            return load_pem_private_key(data, password)
        except ValueError:
            raise wrong from None
    except UsageError as error:
        raise error if error is wrong or error.hint else UsageError(f"key {path}: {error.message}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(
            f"key {path} is no private key in PEM", hint="bentotool key new makes a pair; openssl pkcs8 converts"
        ) from None


def _usable(key: object, path: Path) -> FileKey:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if not isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) or (
        isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1)
    ):
        raise UsageError(
            f"key {path} is neither an EC key on P-256 nor an Ed25519 key", hint="bentotool key new makes a pair"
        )
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return FileKey(parse_public_key(pem, str(path)), key)


def _password_hint() -> str:
    return f"set {PASSWORD_VARIABLES[0]}"


def _password(path: Path, ask: Ask) -> bytes:
    for name in PASSWORD_VARIABLES:
        if name in os.environ:
            return os.environ[name].encode()
    given = ask(f"Password of {path}")
    if given is None:
        raise UsageError(f"key {path} is encrypted, and no password was given", hint=_password_hint())
    return given


@dataclass(frozen=True)
class PairPaths:
    """Where a new pair lies."""

    private: Path
    public: Path
    key: PublicKey


def make_pair(path: Path, password: bytes, kind: str = KINDS[0], form: str = FORMS[0]) -> PairPaths:
    """Make a pair of keys and write it: the private one to ``path``, readable by its owner alone, the other beside it.

    Args:
        password: empty: the private key is not encrypted, which the form ``cosign`` does not know.
        kind: of :data:`KINDS`.
        form: of :data:`FORMS`.

    Raises:
        UsageError: an unknown kind or form, or a place that cannot be written.
        ConflictError: one of the files exists.
        NotFoundError: the folder does not exist.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if kind not in KINDS or form not in FORMS:
        wrong, known = (kind, KINDS) if kind not in KINDS else (form, FORMS)
        raise UsageError(f"{wrong[:40]!r} is not known", hint=f"one of {', '.join(known)}")
    public = path.with_name((path.name.removesuffix(".key") or path.name) + ".pub")
    if not path.absolute().parent.is_dir():
        raise NotFoundError(f"folder {path.parent} does not exist", hint="create it first")
    for each in (path, public):
        if os.path.lexists(each):
            raise ConflictError(f"{each} already exists", hint="name another file; a key in use is never replaced")
    made = ec.generate_private_key(ec.SECP256R1()) if kind == KINDS[0] else ed25519.Ed25519PrivateKey.generate()
    key = _usable(made, path)
    try:
        _write(path, _encoded(made, password, form), 0o600)
        _write(public, key.public.pem, 0o644)
    except OSError as error:
        raise UsageError(f"{error.filename or path} cannot be written: {error.strerror}") from None
    return PairPaths(path, public, key.public)


def _encoded(key: _Key, password: bytes, form: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if form == "cosign":
        return seal_cosign_key(key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), password)
    protection = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection)


def _write(path: Path, data: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    with os.fdopen(os.open(path, flags, mode), "wb") as file:
        file.write(data)
