"""Copy an artifact from one place of a registry to another, or to another registry, through no disk of ours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bentotool.errors import NotFoundError, UsageError
from bentotool.oci.descriptor import Descriptor, Manifest
from bentotool.oci.limits import check_sizes
from bentotool.oci.reference import RemoteReference
from bentotool.oci.referrers import attach
from bentotool.oci.workers import run_all
from bentotool.transfer.formats import title_of
from bentotool.transfer.push import VOLUME
from bentotool.transfer.result import ProgressMaker, no_progress
from bentotool.transfer.tree import MANY, Node, read_tree

if TYPE_CHECKING:
    from bentotool.oci.registry import Registry

__all__ = ["Copied", "copy"]


@dataclass(frozen=True)
class Copied:
    """An artifact that now lies in two places, with equal digests.

    Attributes:
        digest: what the tag points to.
        size: bytes of all blobs, each counted once.
        sent: bytes that went over the wire; what was there, or mounted, did not.
        manifests: how many, referrers included.
        notes: which referrers were left out, and why.
    """

    source: str
    remote: str
    digest: str
    size: int
    sent: int
    manifests: int
    referrers: int
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {**vars(self), "notes": list(self.notes)}


def copy(
    source: RemoteReference,
    reading: Registry,
    target: RemoteReference,
    writing: Registry,
    *,
    referrers: bool = True,
    jobs: int = 4,
    progress: ProgressMaker = no_progress,
) -> Copied:
    """Copy what a reference points to, with everything it lists and refers to it; the tag comes last.

    Blobs are mounted where both places are of one registry, else streamed; the receiving registry checks their digests.

    Args:
        source: without tag and digest, ``latest``.
        reading: a client of its registry.
        target: without a tag, the source's.
        writing: a client of its registry, made with ``push=True``.

    Raises:
        NotFoundError: when there is no such source.
        RemoteError, AuthenticationError: when a registry refuses or does not answer.
    """
    if target.digest:
        raise UsageError(f"{target}: a copy goes to a tag, not to a digest", hint="write HOST/REPOSITORY[:TAG]")
    asked = source.digest or source.tag or "latest"
    tag = target.tag or source.tag or "latest"
    notes: list[str] = []
    nodes = read_tree(reading, source.repository, asked, referrers=referrers, bounds=MANY, notes=notes)
    top = next(node for node in reversed(nodes) if not node.referrer)
    extra = _volume(reading, source, top)
    # A registry with the API lists the view among the referrers; it goes under its own tag, as a push puts it.
    views = {view.descriptor.digest for view in extra}
    nodes = [node for node in nodes if node.descriptor.digest not in views]
    blobs = {blob.digest: blob for node in (*nodes, *extra) for blob in node.blobs}
    sent = _send(list(blobs.values()), source, reading, target, writing, jobs, progress)
    for node in nodes:
        if node.referrer and isinstance(node.content, Manifest):
            attach(writing, target.repository, node.data)
        else:
            writing.upload_manifest(target.repository, node.descriptor.digest, node.data, node.descriptor.media_type)
    for node in extra:
        writing.upload_manifest(target.repository, tag + VOLUME, node.data, node.descriptor.media_type)
    writing.upload_manifest(target.repository, tag, top.data, top.descriptor.media_type)
    return Copied(
        source=str(source),
        remote=str(target.with_tag(tag)),
        digest=top.descriptor.digest,
        size=sum(blob.size for blob in blobs.values()),
        sent=sent,
        manifests=len(nodes) + len(extra),
        referrers=sum(node.referrer for node in nodes),
        notes=tuple(notes),
    )


def _volume(reading: Registry, source: RemoteReference, top: Node) -> list[Node]:
    """The view of a model as a volume, which lies beside it under a tag of its own."""
    if source.digest:
        return []
    try:
        found = read_tree(reading, source.repository, (source.tag or "latest") + VOLUME, referrers=False)
    except NotFoundError:
        return []
    return [view for view in found if view.content.subject and view.content.subject.digest == top.descriptor.digest]


def _send(
    blobs: list[Descriptor],
    source: RemoteReference,
    reading: Registry,
    target: RemoteReference,
    writing: Registry,
    jobs: int,
    progress: ProgressMaker,
) -> int:
    ordered = sorted(blobs, key=lambda blob: blob.size, reverse=True)
    check_sizes(target.registry, ordered)
    mount_from = (source.repository,) if source.registry == target.registry else ()
    counts: list[int] = []
    with progress(sum(blob.size for blob in ordered), f"copy {source}") as shown:

        def send(blob: Descriptor) -> None:
            stream = partial(reading.open_blob, source.repository, blob)
            with shown.part(title_of(blob), blob.size) as moved:
                counts.append(
                    writing.upload_blob(target.repository, blob, stream, mount_from=mount_from, advance=moved.advance)
                )

        run_all([partial(send, blob) for blob in ordered], jobs, writing.stop)
    return sum(counts)
