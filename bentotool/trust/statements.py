"""in-toto statements, version 1: something is said of things named by their digests.

The format is that of in-toto's attestation framework, *spec/v1/statement.md*. ``name`` of a subject is asked for there
and left out by cosign, so that we write it and do not need it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bentotool.errors import VerificationError
from bentotool.oci.descriptor import canonical_json

__all__ = ["COSIGN_SIGN", "MODEL_SIGNING", "STATEMENT", "Statement", "Subject", "load_json"]

STATEMENT = "https://in-toto.io/Statement/v1"
_STATEMENT_V0 = "https://in-toto.io/Statement/v0.1"  # what cosign 2 writes
COSIGN_SIGN = "https://sigstore.dev/cosign/sign/v1"
"""Predicate type of a signature: the statement says nothing but that its subject was signed."""
MODEL_SIGNING = "https://model_signing/signature/v1.0"
"""Predicate type of an OpenSSF Model Signing statement."""
_MAX_SUBJECTS = 1000
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class Subject:
    """What a statement speaks of.

    Args:
        sha256: its digest, 64 hexadecimal digits; empty where the statement names it by another.
    """

    name: str
    sha256: str
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Statement:
    """A statement."""

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """As canonical JSON: one statement, one payload."""
        subjects = [
            {
                **({"name": each.name} if each.name else {}),
                "digest": {"sha256": each.sha256},
                **({"annotations": dict(each.annotations)} if each.annotations else {}),
            }
            for each in self.subjects
        ]
        return canonical_json(
            {
                "_type": STATEMENT,
                "subject": subjects,
                "predicateType": self.predicate_type,
                "predicate": self.predicate,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Statement:
        """Read a statement.

        Raises:
            VerificationError: it is none.
        """
        document = load_json(data, "the statement")
        if document.get("_type") not in (STATEMENT, _STATEMENT_V0):
            raise VerificationError(f"it is no in-toto statement, but of type {str(document.get('_type'))[:80]!r}")
        subjects, kind = document.get("subject"), document.get("predicateType")
        predicate = document.get("predicate")
        if not isinstance(subjects, list) or not 1 <= len(subjects) <= _MAX_SUBJECTS:
            raise VerificationError(f"the statement does not have 1 to {_MAX_SUBJECTS} subjects")
        if not isinstance(kind, str) or not kind or len(kind) > 500:
            raise VerificationError("the statement has no predicateType")
        if predicate is not None and not isinstance(predicate, dict):
            raise VerificationError("the predicate of the statement is not a JSON object")
        return cls(tuple(map(_subject, subjects)), kind, predicate or {})

    def about(self, *digests: str) -> Subject | None:
        """The subject that has one of these digests.

        Args:
            digests: 64 hexadecimal digits each.
        """
        return next((each for each in self.subjects if each.sha256 and each.sha256 in digests), None)


def _subject(value: object) -> Subject:
    digest = value.get("digest") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(digest, dict):
        raise VerificationError("a subject of the statement has no digest")
    sha256, name, notes = digest.get("sha256", ""), value.get("name"), value.get("annotations")
    notes = notes if isinstance(notes, dict) else {}
    return Subject(
        name=name if isinstance(name, str) else "",
        sha256=sha256 if isinstance(sha256, str) and _HEX.fullmatch(sha256) else "",
        annotations={key: said for key, said in notes.items() if isinstance(said, str)},
    )


def load_json(data: bytes, what: str) -> dict[str, Any]:
    """Decode one JSON object in which no name stands twice: two readers of such a one may differ on what it says.

    Raises:
        VerificationError: it is none.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unambiguous, parse_constant=_no_number)
        canonical_json(value)  # what cannot be written again could not be signed
    except (ValueError, RecursionError) as error:
        raise VerificationError(f"{what} is not valid JSON: {str(error)[:100]}") from None
    if not isinstance(value, dict):
        raise VerificationError(f"{what} is not a JSON object")
    return value


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found
