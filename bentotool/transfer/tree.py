"""Everything below a reference of a registry: manifests, in the order in which they may be put, and their blobs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bentotool.errors import VerificationError
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.manifests import FetchedManifest

if TYPE_CHECKING:
    from bentotool.oci.registry import Registry

__all__ = ["Node", "read_tree"]

_DEPTH = 3  # an index of indexes, and what those list: deeper ones are made to exhaust whoever follows
_NODES = 2000
_REFERRERS = 64  # of one manifest, as cosign reads no more either


@dataclass(frozen=True)
class Node:
    """A manifest or index exactly as the registry holds it.

    Attributes:
        content: what it says.
        referrer: whether it is here because its subject is.
    """

    data: bytes
    descriptor: Descriptor
    content: Manifest | Index
    referrer: bool = False

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers; none of an index."""
        if isinstance(self.content, Index):
            return ()
        return (self.content.config, *self.content.layers)


class _Walk:
    def __init__(self, registry: Registry, repository: str, referrers: bool) -> None:
        self._registry = registry
        self._repository = repository
        self._referrers = referrers
        self._seen: set[str] = set()

    def walk(self, fetched: FetchedManifest, depth: int, referrer: bool) -> Iterator[Node]:
        digest = fetched.descriptor.digest
        if digest in self._seen:
            return
        if depth > _DEPTH or len(self._seen) >= _NODES:
            raise VerificationError(f"{digest} lists manifests too deep or too many to follow")
        self._seen.add(digest)
        content: Manifest | Index
        if fetched.descriptor.media_type == INDEX:
            content = Index.from_bytes(fetched.data)
            for each in content.manifests:
                if each.media_type in (MANIFEST, INDEX):
                    yield from self.walk(self._fetch(each.digest), depth + 1, referrer)
        else:
            content = Manifest.from_bytes(fetched.data)
        yield Node(fetched.data, fetched.descriptor, content, referrer)
        if self._referrers:
            for each in self._registry.get_referrers(self._repository, digest)[:_REFERRERS]:
                yield from self.walk(self._fetch(each.digest), depth + 1, True)

    def _fetch(self, digest: str) -> FetchedManifest:
        return self._registry.get_manifest(self._repository, digest)


def read_tree(registry: Registry, repository: str, reference: str, *, referrers: bool = True) -> list[Node]:
    """A manifest, what it lists and what refers to any of them, children first and referrers after their subject.

    Args:
        reference: a tag or a digest.
        referrers: whether signatures, SBOMs and the like are looked for.

    Raises:
        NotFoundError: when there is none.
        VerificationError: when one is damaged, or they nest too deep.
    """
    top = registry.get_manifest(repository, reference)
    return list(_Walk(registry, repository, referrers).walk(top, 0, False))
