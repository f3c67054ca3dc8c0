"""DSSE 1.0: what is signed of an envelope, and the envelope as JSON (secure-systems-lab, *dsse/protocol.md*)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from bentotool.errors import VerificationError

__all__ = ["IN_TOTO", "Envelope", "decode_base64", "pae"]

IN_TOTO = "application/vnd.in-toto+json"
"""Payload type of in-toto statements."""
_MAX_SIGNATURES = 16
_MAX_SIGNATURE = 4096  # bytes; the largest of any algorithm in use has a quarter of that


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding: the bytes that are signed."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def decode_base64(value: object, what: str) -> bytes:
    """Bytes of a JSON string in base64.

    Raises:
        VerificationError: it is no string, or not base64.
    """
    if not isinstance(value, str):
        raise VerificationError(f"{what} is not a text in base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise VerificationError(f"{what} is not base64") from None


@dataclass(frozen=True)
class Envelope:
    """A payload with signatures over :func:`pae` of it."""

    payload_type: str
    payload: bytes
    signatures: tuple[bytes, ...]

    @property
    def signed(self) -> bytes:
        return pae(self.payload_type, self.payload)

    def to_dict(self) -> dict[str, Any]:
        return {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [{"sig": base64.b64encode(each).decode()} for each in self.signatures],
        }

    @classmethod
    def from_dict(cls, value: object) -> Envelope:
        """Read an envelope.

        Raises:
            VerificationError: it is no envelope, or has no signature.
        """
        if not isinstance(value, dict):
            raise VerificationError("the envelope is not a JSON object")
        kind, signatures = value.get("payloadType"), value.get("signatures")
        if not isinstance(kind, str) or not kind.isascii() or len(kind) > 200:
            raise VerificationError("the envelope has no payloadType")
        if not isinstance(signatures, list) or not 1 <= len(signatures) <= _MAX_SIGNATURES:
            raise VerificationError(f"the envelope does not have 1 to {_MAX_SIGNATURES} signatures")
        payload = decode_base64(value.get("payload"), "the payload")
        return cls(kind, payload, tuple(map(_signature, signatures)))


def _signature(value: object) -> bytes:
    data = decode_base64(value.get("sig") if isinstance(value, dict) else None, "a signature of the envelope")
    if not 0 < len(data) <= _MAX_SIGNATURE:
        raise VerificationError(f"a signature of the envelope has {len(data)} bytes")
    return data
