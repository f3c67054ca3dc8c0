"""What is known of an artifact after its signatures were looked at: proof, and what was none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias

from bentotool.signspec import SignerIdentity
from bentotool.trust.moments import stated

__all__ = ["Evidence", "Findings", "Kind", "Object", "Rejected", "SignerIdentity"]

Kind: TypeAlias = Literal["index", "bento", "image", "model"]


@dataclass(frozen=True)
class Object:
    """One thing that can be signed: the index of a Bento, the Bento's manifest, one of its images, one of its models.

    Args:
        name: for people: ``name:version`` of a Bento or model, the platform of an image.
        size: of the manifest, in bytes.
        files_digest: of a model whose files are known, the digest over them that an OpenSSF Model Signing statement
            has as its subject (64 hexadecimal digits); else empty.
    """

    kind: Kind
    name: str
    digest: str
    media_type: str
    size: int
    files_digest: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"kind": self.kind, "name": self.name, "digest": self.digest}


@dataclass(frozen=True)
class Evidence:
    """One signature or attestation that was verified: its signature holds, and it speaks of the object.

    Whether its signer is one who counts is not decided here.

    Args:
        subject: digest of the object it speaks of.
        signed_at: by a trusted timestamp or log entry; None for a bare key.
        referrer: digest of the manifest that carries the bundle.
        annotations: what the signer said of the subject, as by ``cosign sign -a``.
    """

    subject: str
    kind: Literal["signature", "attestation"]
    predicate_type: str
    predicate: Mapping[str, Any]
    signer: SignerIdentity
    signed_at: datetime | None
    referrer: str
    annotations: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, without the predicate, which may be large."""
        return {
            "kind": self.kind,
            "predicate_type": self.predicate_type,
            "signer": self.signer.to_dict(),
            "signed_at": stated(self.signed_at) if self.signed_at else None,
            "referrer": self.referrer,
            **({"annotations": dict(self.annotations)} if self.annotations else {}),
        }


@dataclass(frozen=True)
class Rejected:
    """A bundle that proves nothing.

    Args:
        referrer: digest of the manifest that carries it.
        subject: digest of the object to which it is attached.
        reason: one line.
        predicate_type: what it claims to be, which nobody has verified; empty where it cannot be read.
    """

    referrer: str
    subject: str
    reason: str
    predicate_type: str = ""

    def to_dict(self) -> dict[str, str]:
        return {"referrer": self.referrer, "reason": self.reason}


@dataclass(frozen=True)
class Findings:
    """All that was found."""

    evidence: tuple[Evidence, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    def of(self, digest: str) -> tuple[Evidence, ...]:
        """What speaks of one object."""
        return tuple(each for each in self.evidence if each.subject == digest)
