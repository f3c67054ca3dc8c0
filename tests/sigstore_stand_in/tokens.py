"""Identity tokens (JWT, ES256), and the checks that Fulcio makes of them."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature


class Refused(Exception):
    """A token is not good."""


class Tokens:
    """Mints tokens of any issuer, all with one key."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def mint(self, claims: dict[str, Any]) -> str:
        said = f"{_encoded({'alg': 'ES256', 'typ': 'JWT'})}.{_encoded(claims)}"
        r, s = decode_dss_signature(self._key.sign(said.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{said}.{_plain(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def claims(self, token: str) -> dict[str, Any]:
        """What a token says.

        Raises:
            Refused: it is not of this mint, for another audience, or out of date.
        """
        try:
            said, _, mark = token.rpartition(".")
            raw = _decoded(mark)
            signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
            self._key.public_key().verify(signature, said.encode(), ec.ECDSA(hashes.SHA256()))
            claims: dict[str, Any] = json.loads(_decoded(said.split(".")[1]))
        except (ValueError, IndexError, InvalidSignature) as error:
            raise Refused("the token is not signed by a known issuer") from error
        if claims.get("aud") != "sigstore":
            raise Refused(f"the token is for {claims.get('aud')!r}")
        if not claims.get("nbf", 0) <= time.time() <= claims["exp"]:
            raise Refused("the token is not valid now")
        return claims


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encoded(value: object) -> str:
    return _plain(json.dumps(value).encode())
