"""What is attached to the artifacts of a store: signatures, SBOMs, provenance, and the indexes that list a Bento.

A referrer is a manifest with a ``subject`` (image-spec 1.1, *Guidelines for Artifact Usage*). It lies in a layout like
any manifest. So that it is found from its subject without reading the whole store, an empty file
``refs/referrers/<subject>/<referrer>`` stands for it; likewise ``refs/indexes/<bento>/<index>`` for the index that a
Bento's tag points to in a registry. Such a file says nothing by itself: the manifest is read, with its digest checked,
and has to name the subject. A collection goes by the manifests alone, and keeps them as long as their subject.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bentotool.errors import BentotoolError, ConflictError, VerificationError
from bentotool.oci.descriptor import (
    EMPTY,
    EMPTY_JSON,
    INDEX,
    MANIFEST,
    Descriptor,
    Index,
    Manifest,
    parse_json_object,
)
from bentotool.oci.digest import check_digest, sha256_bytes
from bentotool.oci.layers import FILES_ANNOTATION
from bentotool.oci.layout import Layout, storage_error
from bentotool.oci.reach import FILES_OF, NAMED_MODELS, Reach, bento_of, reach
from bentotool.paths import make_folder, write_atomic

__all__ = [
    "MADE_HERE",
    "ROOMS",
    "Attachment",
    "Referrer",
    "attach",
    "check_referrer",
    "forget_incomplete",
    "forget_indexes",
    "forget_missing",
    "indexes",
    "keep_index",
    "keep_referrer",
    "notes_of",
    "reach_attached",
    "referrer_bytes",
    "referrers",
    "referrers_below",
]

MADE_HERE = "made here"
"""Remark of a store on a referrer that states what was seen here, and came from nobody else."""
ROOMS = ("referrers", "indexes")
"""Folders of ``refs`` with what stands for manifests that are kept with another."""
_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_PAUSES = (0.0, 0.05, 0.2, 1.0)
"""Seconds to wait, in turn, for a collection to put back what it had set aside."""


@dataclass(frozen=True)
class Attachment:
    """Content of a referrer: bytes, what they are, and what is said of them."""

    data: bytes
    media_type: str
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor(self.media_type, sha256_bytes(self.data), len(self.data), self.annotations)


@dataclass(frozen=True)
class Referrer:
    """A stored referrer.

    Attributes:
        descriptor: as a list of referrers has it: with artifact type and annotations.
    """

    descriptor: Descriptor
    data: bytes
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    @property
    def subject(self) -> str:
        return self.manifest.subject.digest if self.manifest.subject else ""

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Layers and config."""
        return (*self.manifest.layers, self.manifest.config)


def referrer_bytes(
    subject: Descriptor,
    artifact_type: str,
    blobs: Sequence[Attachment],
    annotations: Mapping[str, str] | None = None,
) -> bytes:
    """The manifest of a referrer, as cosign and oras make it: an empty config, the content as layers.

    Equal arguments give equal bytes: nothing is taken from the clock.

    Args:
        subject: what it refers to; only type, digest and size are kept of it.
        blobs: without any, the empty one stands in their place, as the image-spec asks for.
    """
    empty = Descriptor(EMPTY, sha256_bytes(EMPTY_JSON), len(EMPTY_JSON))
    return Manifest(
        config=empty,
        layers=tuple(blob.descriptor for blob in blobs) or (empty,),
        artifact_type=artifact_type,
        annotations=dict(annotations or {}),
        subject=Descriptor(subject.media_type, subject.digest, subject.size),
    ).to_bytes()


def attach(
    layout: Layout,
    subject: str,
    artifact_type: str,
    blobs: Sequence[Attachment] = (),
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Attach something to a manifest or index of the store. Doing it twice changes nothing.

    Args:
        subject: digest of what it is attached to: a Bento, a model, an image, an index, another referrer.
        artifact_type: a media type that says what it is.
        blobs: its content.
        annotations: of the referrer's manifest.

    Returns:
        the referrer, as a list of referrers has it.

    Raises:
        NotFoundError: when the subject is not in the store.
        BentotoolError: when the disk refuses.
    """
    data = referrer_bytes(_stored(layout, subject), artifact_type, blobs, annotations)

    def put() -> None:
        for blob in (*blobs, Attachment(EMPTY_JSON, EMPTY)):
            layout.put(blob.data, blob.media_type)

    return _keep(layout, data, put)


def keep_referrer(layout: Layout, data: bytes) -> Descriptor:
    """Store the manifest of a referrer whose content is in the layout already, and make it findable.

    Raises:
        VerificationError: when it is no referrer; see :func:`check_referrer`.
        ConflictError: when part of its content is not stored.
    """
    return _keep(layout, data, lambda: None)


def keep_index(layout: Layout, data: bytes) -> Descriptor:
    """Store an index of one Bento, so that something can be attached to it; kept as long as the Bento.

    Raises:
        VerificationError: when it lists no Bento, or several.
    """
    bento = bento_of(parse_json_object(data, "the index"))
    if bento is None:
        raise VerificationError("the index lists no Bento, or several")
    Index.from_bytes(data)
    descriptor = layout.put(data, INDEX)
    _mark(layout, "indexes", bento, descriptor.digest)
    return descriptor


def check_referrer(data: bytes) -> Referrer:
    """Read the manifest of a referrer.

    Raises:
        VerificationError: when it has no subject, or when it is something that is stored in another way: an image, a
            model, a Bento.
    """
    manifest = Manifest.from_bytes(data)
    digest = sha256_bytes(data)
    if manifest.subject is None or manifest.subject.digest == digest:
        raise VerificationError(f"{digest} has no subject")
    layered = any(FILES_ANNOTATION in part.annotations for part in (*manifest.layers, manifest.config))
    if layered or FILES_OF in manifest.annotations or manifest.config.media_type == NAMED_MODELS:
        raise VerificationError(f"{digest} is a model or a Bento, which cannot be attached to another")
    kind = manifest.artifact_type or manifest.config.media_type
    described = Descriptor(MANIFEST, digest, len(data), manifest.annotations, kind)
    return Referrer(described, data, manifest)


def _stored(layout: Layout, digest: str) -> Descriptor:
    data = layout.read(check_digest(digest))
    body = parse_json_object(data, f"manifest {digest}")
    return Descriptor(INDEX if "manifests" in body else MANIFEST, digest, len(data))


def _keep(layout: Layout, data: bytes, put: Callable[[], None]) -> Descriptor:
    found = check_referrer(data)
    content = {part.digest for part in found.blobs} | {found.digest}
    for pause in _PAUSES:  # a collection may take what it saw before it sees the manifest; it puts that back
        time.sleep(pause)
        put()
        layout.put(data, MANIFEST)
        for digest in content:
            layout.renew(digest)
        _mark(layout, "referrers", found.subject, found.digest)
        if all(layout.has(digest) for digest in content):
            return found.descriptor
    _path(layout, "referrers", found.subject, found.digest).unlink(missing_ok=True)
    raise ConflictError(f"part of {found.digest} is missing from the store", hint="add it again")


def _path(layout: Layout, room: str, subject: str, digest: str) -> Path:
    return layout.root / "refs" / room / check_digest(subject)[7:] / check_digest(digest)[7:]


def _mark(layout: Layout, room: str, subject: str, digest: str) -> None:
    path = _path(layout, room, subject, digest)
    try:
        if not path.exists():
            make_folder(path.parent)
            write_atomic(path, b"")
    except OSError as error:
        raise storage_error(error, layout.root) from None


def _marked(layout: Layout, room: str, subject: str) -> list[str]:
    """Digests of what stands for a subject, sorted, whether or not it is stored."""
    try:
        with os.scandir(layout.root / "refs" / room / check_digest(subject)[7:]) as entries:
            return sorted(f"sha256:{entry.name}" for entry in entries if _HEX.fullmatch(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def referrers(layout: Layout, digest: str, artifact_type: str | None = None) -> list[Referrer]:
    """What is attached to a manifest, by digest; what is damaged or gone is left out.

    Args:
        artifact_type: only those of this type.
    """
    found = []
    for each in _marked(layout, "referrers", digest):
        with contextlib.suppress(BentotoolError, OSError):
            referrer = check_referrer(layout.read(each))
            if referrer.subject == digest and artifact_type in (None, referrer.descriptor.artifact_type):
                found.append(referrer)
    return found


def referrers_below(layout: Layout, digests: Iterable[str]) -> list[Referrer]:
    """What is attached to any of some manifests, and what is attached to that in turn; subjects come first."""
    found: dict[str, Referrer] = {}
    waiting = list(dict.fromkeys(digests))
    for digest in waiting:
        for each in referrers(layout, digest):
            if each.digest not in found:
                found[each.digest] = each
                waiting.append(each.digest)
    return list(found.values())


def indexes(layout: Layout, bento: str) -> list[Descriptor]:
    """Stored indexes that list a Bento, by digest."""
    found = []
    for digest in _marked(layout, "indexes", bento):
        with contextlib.suppress(BentotoolError, OSError):
            data = layout.read(digest)
            Index.from_bytes(data)
            if bento_of(parse_json_object(data, "an index")) == bento:
                found.append(Descriptor(INDEX, digest, len(data)))
    return found


def notes_of(layout: Layout, digests: Iterable[str]) -> list[dict[str, object]]:
    """What is attached to some manifests, as commands print it: the same shape as of a registry's."""
    return [
        {
            "digest": each.digest,
            "artifact_type": each.descriptor.artifact_type or "",
            "subject": each.subject,
            "annotations": dict(each.manifest.annotations),
        }
        for each in referrers_below(layout, digests)
    ]


def reach_attached(layout: Layout, found: Reach) -> Reach:
    """Go on with a walk to all that is attached to what it has seen."""
    done: set[str] = set()
    while waiting := found.manifests - done:
        done |= waiting
        for digest in waiting:
            for room in ROOMS:
                for each in _marked(layout, room, digest):
                    reach(layout, each, found)
    return found


def forget_indexes(layout: Layout, bento: str, but: str) -> None:
    """Let go of the indexes of a Bento but one; a collection removes them with what only they list."""
    for digest in _marked(layout, "indexes", bento):
        if digest != but:
            _forget(_path(layout, "indexes", bento, digest))


def _marks(layout: Layout) -> Iterator[tuple[Path, str, str]]:
    for room in ROOMS:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in sorted(os.listdir(layout.root / "refs" / room)):
                if _HEX.fullmatch(name):
                    for digest in _marked(layout, room, f"sha256:{name}"):
                        yield layout.root / "refs" / room / name / digest[7:], f"sha256:{name}", digest


def _forget(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
        path.parent.rmdir()


def forget_missing(layout: Layout, before: float) -> None:
    """Remove what stands for manifests that are gone.

    Args:
        before: seconds since the epoch; what is younger may belong to somebody at work.
    """
    for path, _, digest in _marks(layout):
        with contextlib.suppress(FileNotFoundError):
            if not layout.has(digest) and path.stat().st_mtime <= before:
                _forget(path)


def forget_incomplete(layout: Layout) -> None:
    """Remove what stands for referrers of which a part is gone or damaged, so that they can be added anew."""
    for path, subject, digest in _marks(layout):
        if path.parent.parent.name == "indexes":
            sound = any(each.digest == digest for each in indexes(layout, subject))
        else:
            kept = [each for each in referrers(layout, subject) if each.digest == digest]
            sound = bool(kept) and all(layout.has_sized(part.digest, part.size) for part in kept[0].blobs)
        if not sound:
            _forget(path)
