"""Sigstore bundles, version 0.3, with a DSSE envelope: what a referrer carries.

The format is that of sigstore's protobuf-specs, *sigstore_bundle.proto*, in the JSON form of protocol buffers. Those
that we make with a key have no log entry; those with a certificate are made and verified by a plugin, and only told
apart here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bentotool.errors import VerificationError
from bentotool.oci.descriptor import canonical_json
from bentotool.trust.dsse import Envelope
from bentotool.trust.statements import load_json

__all__ = ["BUNDLE", "BUNDLE_LIMIT", "BUNDLE_TYPES", "Bundle", "key_bundle"]

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_TYPES = (BUNDLE, "application/vnd.dev.sigstore.bundle+json;version=0.3")
"""Media types of the same format; the second is the older spelling."""
BUNDLE_LIMIT = 8 << 20
"""Bytes of the largest bundle that is read or made: the bill of materials of a large Bento has a tenth of that."""


@dataclass(frozen=True)
class Bundle:
    """A bundle.

    Args:
        hint: of the public key that verifies it; empty where there is none. Nothing is believed of it.
        certified: whether it was signed with a certificate, else with a key.
        logged: whether it has entries of a transparency log.
    """

    envelope: Envelope
    hint: str
    certified: bool
    logged: bool

    @classmethod
    def from_bytes(cls, data: bytes) -> Bundle:
        """Read a bundle.

        Raises:
            VerificationError: it is none, or holds no DSSE envelope.
        """
        if len(data) > BUNDLE_LIMIT:
            raise VerificationError(f"the bundle has {len(data)} bytes, more than the {BUNDLE_LIMIT} allowed")
        document = load_json(data, "the bundle")
        kind = document.get("mediaType")
        if kind not in BUNDLE_TYPES:
            raise VerificationError(f"the bundle is of type {str(kind)[:80]!r}, not {BUNDLE}")
        material = document.get("verificationMaterial")
        if not isinstance(material, dict):
            raise VerificationError("the bundle has no verificationMaterial")
        if "dsseEnvelope" not in document:
            raise VerificationError("the bundle signs a file, and not a statement")
        certified = "certificate" in material or "x509CertificateChain" in material
        if certified == ("publicKey" in material):
            raise VerificationError("the bundle does not say whether a key or a certificate verifies it")
        return cls(
            Envelope.from_dict(document["dsseEnvelope"]), _hint(material), certified, bool(material.get("tlogEntries"))
        )


def _hint(material: Mapping[str, Any]) -> str:
    key = material.get("publicKey")
    hint = key.get("hint") if isinstance(key, dict) else None
    return hint if isinstance(hint, str) else ""


def key_bundle(envelope: Envelope, hint: str) -> bytes:
    """A bundle signed with a key: the same bytes for the same signature."""
    return canonical_json(
        {
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": hint}},
            "dsseEnvelope": envelope.to_dict(),
        }
    )
