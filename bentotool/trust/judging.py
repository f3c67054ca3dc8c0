"""Whether what was found is enough: each object has to be signed by somebody who was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bentotool.errors import VerificationError
from bentotool.signspec import SignerIdentity
from bentotool.trust.evidence import Evidence, Findings, Object, Rejected
from bentotool.trust.statements import COSIGN_SIGN

__all__ = ["Asked", "ObjectVerdict", "Verdict", "check_verdict", "judge"]


@dataclass(frozen=True)
class Asked:
    """Whose signatures count.

    Args:
        keys: fingerprints of public keys.
        identity: of a certificate; it counts with the issuer only.
        issuer: who vouched for the identity.
        annotations: what a signature has to say of its subject.
    """

    keys: frozenset[str] = frozenset()
    identity: str | None = None
    issuer: str | None = None
    annotations: frozenset[tuple[str, str]] = frozenset()

    def counts(self, found: Evidence) -> bool:
        """Whether evidence is by one of them."""
        return self._by(found.signer) and self.annotations <= frozenset(found.annotations.items())

    def _by(self, signer: SignerIdentity) -> bool:
        if signer.key is not None:
            return signer.key in self.keys
        return (
            self.identity is not None
            and self.issuer is not None
            and (signer.identity, signer.issuer) == (self.identity, self.issuer)
        )


@dataclass(frozen=True)
class ObjectVerdict:
    """One object.

    Args:
        evidence: by signers who count.
        others: by signers who do not.
        rejected: what proves nothing.
    """

    about: Object
    evidence: tuple[Evidence, ...]
    others: tuple[Evidence, ...]
    rejected: tuple[Rejected, ...]

    @property
    def signed(self) -> bool:
        return any(each.predicate_type == COSIGN_SIGN for each in self.evidence)

    @property
    def reason(self) -> str:
        """Why it is not signed; empty where it is."""
        if self.signed:
            return ""
        if not (self.evidence or self.others or self.rejected):
            return "nothing is attached to it"
        if self.others:
            return f"signed by {self.others[0].signer}, who was not asked for"
        if self.rejected:
            return self.rejected[0].reason
        return "attestations are attached, and no signature"

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.about.to_dict(),
            "signed": self.signed,
            **({"reason": self.reason} if self.reason else {}),
            "evidence": [each.to_dict() for each in self.evidence],
            "others": [each.to_dict() for each in self.others],
            "rejected": [each.to_dict() for each in self.rejected],
        }


@dataclass(frozen=True)
class Verdict:
    """An artifact.

    Args:
        missing: predicate types that were asked for, and nobody who counts has attested of the whole.
    """

    objects: tuple[ObjectVerdict, ...]
    missing: tuple[str, ...] = ()

    @property
    def satisfied(self) -> bool:
        return bool(self.objects) and not self.missing and all(each.signed for each in self.objects)

    def to_dict(self) -> dict[str, Any]:
        return {
            "verified": self.satisfied,
            "objects": [each.to_dict() for each in self.objects],
            **({"missing": list(self.missing)} if self.missing else {}),
        }


def judge(
    objects: Sequence[Object],
    findings: Findings,
    counts: Callable[[Evidence], bool],
    predicate_types: Sequence[str] = (),
) -> Verdict:
    """Weigh what was found.

    Args:
        counts: whether evidence is by somebody who counts.
        predicate_types: of attestations that have to be there, about the Bento or its index, or the only object.
    """
    judged = []
    for each in objects:
        found = findings.of(each.digest)
        judged.append(
            ObjectVerdict(
                each,
                tuple(one for one in found if counts(one)),
                tuple(one for one in found if not counts(one)),
                tuple(one for one in findings.rejected if one.subject == each.digest),
            )
        )
    whole = [each for each in judged if each.about.kind in ("index", "bento")] or judged
    attested = {one.predicate_type for each in whole for one in each.evidence}
    return Verdict(tuple(judged), tuple(each for each in predicate_types if each not in attested))


def check_verdict(verdict: Verdict, what: str, hint: str) -> None:
    """Refuse what is not satisfied.

    Raises:
        VerificationError: naming the first object, and why.
    """
    if verdict.satisfied:
        return
    details = verdict.to_dict()
    bad = [each for each in verdict.objects if not each.signed]
    if bad:
        about, more = bad[0].about, f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        named = f"{about.kind} {about.name}".strip()
        raise VerificationError(
            f"{what} is not verified: {named} ({about.digest[:19]}…): {bad[0].reason}{more}", hint=hint, details=details
        )
    raise VerificationError(
        f"{what} is not verified: no attestation of type {verdict.missing[0]} by a signer who counts",
        hint=hint,
        details=details,
    )
