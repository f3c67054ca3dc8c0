"""Signing: which statements are made about an artifact, and how they are attached to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal

from bentotool.build.documents import FORMATS, PROVENANCE
from bentotool.errors import UsageError
from bentotool.models.manifest import model_files
from bentotool.oci.attached import Attachment
from bentotool.oci.descriptor import Manifest
from bentotool.trust.attached import is_document
from bentotool.trust.bundle import BUNDLE, BUNDLE_LIMIT
from bentotool.trust.evidence import Object
from bentotool.trust.modelsigning import model_statement
from bentotool.trust.moments import source_date, stated
from bentotool.trust.places import Place
from bentotool.trust.predicatetypes import CYCLONEDX, SLSA, SPDX
from bentotool.trust.signers import StatementSigner
from bentotool.trust.statements import COSIGN_SIGN, Statement, Subject, load_json
from bentotool.trust.verifying import gather

__all__ = ["Claim", "Signed", "attestation", "claims_of", "sign_claims"]

_PREDICATES = {FORMATS["cyclonedx"]: CYCLONEDX, FORMATS["spdx"]: SPDX, PROVENANCE: SLSA}
_PAYLOAD_LIMIT = BUNDLE_LIMIT // 4 * 3 - (64 << 10)  # in base64 it has to fit into a bundle


@dataclass(frozen=True)
class Claim:
    """A statement that is to be signed once.

    Args:
        about: the objects that it names, to each of which it is attached.
    """

    statement: Statement
    about: tuple[Object, ...]


@dataclass(frozen=True)
class Signed:
    """What came of a claim for one object.

    Args:
        referrer: digest of the manifest that carries the bundle.
        new: False where the same signature was there already.
    """

    about: Object
    predicate_type: str
    referrer: str
    new: bool
    signer: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.about.to_dict(),
            "predicate_type": self.predicate_type,
            "referrer": self.referrer,
            "new": self.new,
        }


@dataclass(frozen=True)
class ClaimOptions:
    """What is signed of an artifact.

    Args:
        annotations: said of each object that is signed.
        documents: which of the bills of materials and provenance that are attached are signed too. Of ``own`` ones the
            store knows that they were made here; what a pull brought, or a registry has, anybody may have attached.
    """

    annotations: Mapping[str, str] = field(default_factory=dict)
    documents: Literal["none", "own", "all"] = "own"


def claims_of(place: Place, objects: Sequence[Object], options: ClaimOptions) -> Iterator[Claim]:
    """Every statement that the signature of an artifact consists of.

    One about each object; for a model one about its files too; and the documents of a Bento and of its images.

    Raises:
        BentotoolError: something cannot be read.
    """
    for each in objects:
        subject = Subject(each.name, each.digest[7:], options.annotations)
        yield Claim(Statement((subject,), COSIGN_SIGN, {}), (each,))
        if each.files_digest:
            manifest = Manifest.from_bytes(place.manifest(each.digest))
            name = manifest.annotations.get("io.bentotool.name", "")
            yield Claim(model_statement(name, model_files(manifest, name)), (each,))
    documented = [each for each in objects if each.kind in ("bento", "image")]
    for each in documented if options.documents != "none" else []:
        for kind, predicate_type in _PREDICATES.items():
            predicate = _document(place, each, kind, own=options.documents == "own")
            if predicate is not None:
                yield attestation(objects if each.kind == "bento" else (each,), predicate_type, predicate)


def _whole(objects: Sequence[Object]) -> tuple[Object, ...]:
    """The objects that stand for the artifact as a whole: the Bento and its index, or what there is."""
    found = tuple(each for each in objects if each.kind in ("index", "bento"))
    return found or tuple(objects[:1])


def _document(place: Place, about: Object, kind: str, *, own: bool) -> Mapping[str, Any] | None:
    for data, made_here in place.documents(about.digest, kind, _PAYLOAD_LIMIT):
        if (made_here or not own) and is_document(kind, about.digest, data):
            content = load_json(data, "the document")
            predicate = content["predicate"] if kind == PROVENANCE else content
            if isinstance(predicate, dict):
                return predicate
    return None


def attestation(objects: Sequence[Object], predicate_type: str, predicate: Mapping[str, Any]) -> Claim:
    """A claim that says something of an artifact as a whole.

    Raises:
        UsageError: it is larger than a bundle may be.
    """
    about = _whole(objects)
    claim = Claim(
        Statement(tuple(Subject(each.name, each.digest[7:]) for each in about), predicate_type, predicate), about
    )
    size = len(claim.statement.to_bytes())
    if size > _PAYLOAD_LIMIT:
        raise UsageError(f"the predicate has {size} bytes, more than the {_PAYLOAD_LIMIT} that a bundle holds")
    return claim


def sign_claims(place: Place, claims: Sequence[Claim], signer: StatementSigner) -> Iterator[Signed]:
    """Sign and attach. What the same key has said of an object already is not said again.

    Raises:
        BentotoolError: signing, or the place, fails; what was attached before stays.
    """
    moment = stated(source_date() or datetime.now(timezone.utc))
    for claim in claims:
        standing = {each.digest: _standing(place, each, claim.statement, signer) for each in claim.about}
        bundle = b"" if all(standing.values()) else signer.bundle(claim.statement.to_bytes())
        for each in claim.about:
            referrer = standing[each.digest]
            if not referrer:
                notes = {
                    "dev.sigstore.bundle.content": "dsse-envelope",
                    "dev.sigstore.bundle.predicateType": claim.statement.predicate_type,
                    "org.opencontainers.image.created": moment,
                }
                referrer = place.attach(each, Attachment(bundle, BUNDLE), BUNDLE, notes)
            yield Signed(each, claim.statement.predicate_type, referrer, not standing[each.digest], signer.identity)


def _standing(place: Place, about: Object, wanted: Statement, signer: StatementSigner) -> str:
    """The referrer in which this signer has said the same already; empty where there is none, or nobody can tell."""
    if signer.public is None:
        return ""
    said = {each.sha256: dict(each.annotations) for each in wanted.subjects}
    annotations = said.get(about.digest[7:], {})
    for each in gather([about], [signer.public], None, place.reader).evidence:
        same = (each.predicate_type, each.predicate) == (wanted.predicate_type, wanted.predicate)
        if same and dict(each.annotations) == annotations:
            return each.referrer
    return ""
