"""How many bytes of a store belong to which name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from bentotool.oci.collect import KINDS, own_bytes, stored_blobs
from bentotool.oci.descriptor import MANIFEST_LIMIT
from bentotool.oci.layout import Layout
from bentotool.oci.reach import Reach, reach, subject_of
from bentotool.oci.refs import Ref, RefStore

__all__ = ["NameUsage", "Usage", "measure"]


@dataclass(frozen=True)
class NameUsage:
    """One name's part, in bytes.

    Attributes:
        total: everything it needs, models of a Bento included.
        alone: what would be free without it: no other artifact needs it.
    """

    ref: Ref
    total: int
    alone: int


@dataclass(frozen=True)
class Usage:
    """A store's blobs, in bytes.

    Attributes:
        stored: all of them.
        shared: needed by more than one artifact.
        unreferenced: needed by none; what a collection would free once it is old enough.
        unfinished: in ``tmp``, of imports, pulls and downloads that are under way or were left.
        quarantine: set aside by a repair; for its owner to delete.
    """

    names: tuple[NameUsage, ...]
    stored: int
    shared: int
    unreferenced: int
    unfinished: int
    quarantine: int


def measure(layout: Layout) -> Usage:
    """Add up the blobs of every name. Two names of one digest are one artifact."""
    refs = RefStore(layout)
    sizes = dict(stored_blobs(layout))
    named = [ref for kind in KINDS for ref in refs.list(kind)]
    reached: dict[str, Reach] = {digest: reach(layout, digest) for digest in {ref.digest for ref in named}}
    _add_referrers(layout, reached, sizes)
    users = Counter(blob for found in reached.values() for blob in found.blobs)
    return Usage(
        names=tuple(_usage(ref, reached[ref.digest], sizes, users) for ref in named),
        stored=sum(sizes.values()),
        shared=sum(size for digest, size in sizes.items() if users[digest] > 1),
        unreferenced=sum(size for digest, size in sizes.items() if not users[digest]),
        unfinished=own_bytes(layout.root / "tmp"),
        quarantine=own_bytes(layout.root / "quarantine"),
    )


def _add_referrers(layout: Layout, reached: Mapping[str, Reach], sizes: Mapping[str, int]) -> None:
    """Count what is attached to an artifact (its file view, signatures) as its own."""
    known = {blob for found in reached.values() for blob in found.blobs}
    by_manifest = {digest: found for found in reached.values() for digest in found.manifests}
    small = [digest for digest, size in sizes.items() if digest not in known and size <= MANIFEST_LIMIT]
    waiting = {digest: subject for digest in small if (subject := subject_of(layout, digest))}
    while fitting := [digest for digest, subject in waiting.items() if subject in by_manifest]:
        for digest in fitting:
            found = reach(layout, digest, by_manifest[waiting.pop(digest)])
            by_manifest.update(dict.fromkeys(found.manifests - by_manifest.keys(), found))


def _usage(ref: Ref, found: Reach, sizes: Mapping[str, int], users: Mapping[str, int]) -> NameUsage:
    total = sum(sizes.get(digest, 0) for digest in found.blobs)
    return NameUsage(ref, total, sum(sizes.get(digest, 0) for digest in found.blobs if users[digest] == 1))
