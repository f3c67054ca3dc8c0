"""cosign's private key files: PKCS#8, encrypted with scrypt and NaCl's secretbox, as JSON in PEM.

The format is that of cosign's ``generate-key-pair``; releases before 2 call it ``COSIGN`` in the PEM's first line.
"""

from __future__ import annotations

import base64
import os
import re
from typing import Any

from bentotool.errors import UsageError, VerificationError
from bentotool.oci.descriptor import canonical_json
from bentotool.trust.dsse import decode_base64
from bentotool.trust.secretbox import NONCE, open_box, seal_box
from bentotool.trust.statements import load_json

__all__ = ["is_cosign_key", "open_cosign_key", "seal_cosign_key"]

_LABELS = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_PEM = re.compile(rb"-----BEGIN ([A-Z ]{1,40})-----\s+([A-Za-z0-9+/=\s]+)-----END \1-----", re.ASCII)
_COST = {"N": 65536, "r": 8, "p": 1}  # what cosign uses: 64 MiB
_MOST_MEMORY = 256 << 20
_SALT = 32


def is_cosign_key(data: bytes) -> bool:
    """Whether a file says of itself that it is such a key."""
    found = _PEM.search(data)
    return found is not None and found[1].decode() in _LABELS


def open_cosign_key(data: bytes, password: bytes) -> bytes | None:
    """The key in such a file: PKCS#8, DER. None where the password is another.

    Raises:
        UsageError: the file is damaged, or asks for more memory than is given.
    """
    found = _PEM.search(data)
    if found is None:
        raise UsageError("it is no key of cosign's")
    try:
        document = load_json(decode_base64("".join(found[2].decode().split()), "it"), "it")
        kdf, cipher = _part(document, "kdf", "scrypt"), _part(document, "cipher", "nacl/secretbox")
        salt = decode_base64(kdf.get("salt"), "its salt")
        nonce = decode_base64(cipher.get("nonce"), "its nonce")
        box = decode_base64(document.get("ciphertext"), "its ciphertext")
    except VerificationError as error:
        raise UsageError(f"it is damaged: {error.message}") from None
    return open_box(_derived(password, salt, kdf.get("params")), nonce, box)


def seal_cosign_key(key: bytes, password: bytes) -> bytes:
    """Such a file for a key.

    Args:
        key: PKCS#8, DER.
    """
    salt, nonce = os.urandom(_SALT), os.urandom(NONCE)

    def text(value: bytes) -> str:
        return base64.b64encode(value).decode()

    document = {
        "kdf": {"name": "scrypt", "params": _COST, "salt": text(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": text(nonce)},
        "ciphertext": text(seal_box(_derived(password, salt, _COST), nonce, key)),
    }
    body = text(canonical_json(document))
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {_LABELS[0]}-----", *lines, f"-----END {_LABELS[0]}-----", ""]).encode()


def _part(document: dict[str, Any], name: str, wanted: str) -> dict[str, Any]:
    part = document.get(name)
    if not isinstance(part, dict) or part.get("name") != wanted:
        raise VerificationError(f"its {name} is not {wanted}")
    return part


def _derived(password: bytes, salt: bytes, cost: object) -> bytes:
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    numbers = [cost.get(name) if isinstance(cost, dict) else None for name in ("N", "r", "p")]
    if not all(isinstance(each, int) and not isinstance(each, bool) and each > 0 for each in numbers):
        raise UsageError("it is damaged: its scrypt has no parameters")
    n, r, p = (int(each or 0) for each in numbers)
    if 128 * n * r * p > _MOST_MEMORY or n & (n - 1) or n < 2:
        raise UsageError(f"its scrypt parameters N={n} r={r} p={p} are not taken")
    return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(password)
