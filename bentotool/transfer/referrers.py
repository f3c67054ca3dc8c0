"""Signatures, SBOMs and the like that travel with what they refer to: out of the store, and into it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bentotool.errors import BentotoolError, VerificationError
from bentotool.oci.attached import Referrer, check_referrer, keep_referrer, referrers, referrers_below
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.layout import Layout
from bentotool.oci.referrers import attach
from bentotool.oci.workers import run_all
from bentotool.transfer.formats import BENTO_TYPE, IMAGE_CONFIG, MODEL_TYPE, title_of
from bentotool.transfer.result import Progress, ProgressMaker
from bentotool.transfer.tree import KEPT, Node, Walk

if TYPE_CHECKING:
    from bentotool.oci.registry import Registry

__all__ = ["PulledReferrers", "pull_referrers", "push_referrers"]

_LARGEST = 64 << 20  # bytes of one referrer's content: the SBOM of a large image has a tenth of that
_MOST = 256 << 20  # bytes of all that one pull brings
_APART = (MODEL_TYPE, BENTO_TYPE)  # artifacts of their own, which are pulled by their own names


def push_referrers(
    layout: Layout,
    registry: Registry,
    repository: str,
    digests: Iterable[str],
    send: Callable[[Sequence[Descriptor]], None],
) -> int:
    """Attach in a repository what the store has attached to manifests that are there now.

    Args:
        digests: of those manifests.
        send: makes the repository have blobs.

    Returns:
        how many there are, whether or not they were there before.
    """
    found = referrers_below(layout, digests)
    there: dict[str, frozenset[str]] = {}
    for each in found:
        if each.subject not in there:
            there[each.subject] = _listed(registry, repository, each.subject)
    new = [
        each
        for each in found
        if each.digest not in there[each.subject] or not registry.manifest_exists(repository, each.digest)
    ]
    if new:
        send([blob for each in new for blob in each.blobs])
    for each in new:  # subjects come first
        attach(registry, repository, each.data)
    return len(found)


def _listed(registry: Registry, repository: str, subject: str) -> frozenset[str]:
    with contextlib.suppress(VerificationError):  # whoever attaches then says what is wrong with the list
        return frozenset(each.digest for each in registry.get_referrers(repository, subject))
    return frozenset()


@dataclass(frozen=True)
class PulledReferrers:
    """What came with a pull.

    Attributes:
        count: how many the store now has of them.
        moved: bytes of their content that went over the wire.
        notes: what was left out, and why.
    """

    count: int = 0
    moved: int = 0
    notes: tuple[str, ...] = ()


class _Pull:
    def __init__(self, layout: Layout, registry: Registry, repository: str) -> None:
        self._layout = layout
        self._registry = registry
        self._repository = repository
        self.kept: set[str] = set()
        self._moved: list[int] = []  # several threads add to it
        self.notes: list[str] = []

    @property
    def moved(self) -> int:
        return sum(self._moved)

    def choose(self, nodes: Iterable[Node]) -> list[Referrer]:
        """Those that may be fetched."""
        chosen: list[Referrer] = []
        total = 0
        for node in nodes:
            kind = node.content.artifact_type or getattr(node.content, "config", node.descriptor).media_type
            if kind == IMAGE_CONFIG:
                continue  # a model's view as a volume: it is made anew by every push, from the model's own layers
            try:
                if kind in _APART:
                    raise VerificationError(
                        f"it is an artifact of its own; pull {self._repository}@{node.descriptor.digest}"
                    )
                found = check_referrer(node.data)
                size = sum(blob.size for blob in found.blobs)
                if size > _LARGEST or total + size > _MOST:
                    raise VerificationError(f"it has {size} bytes, more than a pull brings along")
            except BentotoolError as error:
                self._leave_out(node.descriptor.digest, error)
                continue
            total += size
            chosen.append(found)
        return chosen

    def fetch(self, found: Referrer, shown: Progress) -> None:
        """Bring one and attach it; one that cannot be had is left out, and harms nothing else."""
        try:
            for part in {blob.digest: blob for blob in found.blobs}.values():
                self._fetch_part(part, shown)
            keep_referrer(self._layout, found.data)
            self.kept.add(found.digest)
        except BentotoolError as error:
            self._leave_out(found.digest, error)

    def _fetch_part(self, part: Descriptor, shown: Progress) -> None:
        if self._layout.has_sized(part.digest, part.size):
            self._layout.renew(part.digest)
            shown.advance(part.size)
            return
        with shown.part(title_of(part), part.size) as moved, self._layout.layer_sink(part) as sink:
            self._registry.download_blob(self._repository, part, sink, advance=moved.advance)
            sink.commit()
        self._moved.append(part.size)

    def _leave_out(self, digest: str, error: BentotoolError) -> None:
        self.notes.append(f"referrer {digest} is left out: {error.message}")


def pull_referrers(
    layout: Layout,
    registry: Registry,
    repository: str,
    subjects: Sequence[str],
    *,
    jobs: int,
    progress: ProgressMaker,
    label: str,
) -> PulledReferrers:
    """Bring what refers to manifests that are in the store already, as far as it is what it should be.

    Nothing of it is needed by what it refers to, so nothing about it makes a pull fail: it is left out, and noted.

    Args:
        subjects: digests of those manifests.
    """
    walk = Walk(registry, repository, KEPT, tolerant=True)
    work = _Pull(layout, registry, repository)
    chosen = work.choose(walk.referrers(subjects))
    missing = [each for each in chosen if not _is_kept(layout, each)]
    if missing:
        # A subject comes before what refers to it, in the walk and here.
        with progress(sum(blob.size for each in missing for blob in each.blobs), label) as shown:
            run_all([partial(work.fetch, each, shown) for each in missing], jobs, registry.stop)
    count = len(work.kept) + len(chosen) - len(missing)
    return PulledReferrers(count, work.moved, (*walk.notes, *work.notes))


def _is_kept(layout: Layout, found: Referrer) -> bool:
    if not all(layout.has_sized(blob.digest, blob.size) and layout.renew(blob.digest) for blob in found.blobs):
        return False
    return layout.renew(found.digest) and any(each.digest == found.digest for each in referrers(layout, found.subject))
