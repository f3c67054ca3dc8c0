"""Everything below a reference of a registry: manifests, in the order in which they may be put, and their blobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from bentotool.errors import BentotoolError, NotFoundError, UnsafeError, VerificationError
from bentotool.oci.descriptor import INDEX, MANIFEST, MANIFEST_LIMIT, Descriptor, Index, Manifest
from bentotool.oci.manifests import FetchedManifest

if TYPE_CHECKING:
    from bentotool.oci.registry import Registry

__all__ = ["FEW", "KEPT", "MANY", "Bounds", "Node", "Walk", "read_tree"]

_Result = TypeVar("_Result")
_DEPTH = 3  # an index of indexes, and what those list: deeper ones are made to exhaust whoever follows
_NODES = 2000
_LEVELS = 3  # a signature, its counter-signature, and one more


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


@dataclass(frozen=True)
class Bounds:
    """Which referrers are followed.

    Attributes:
        each: how many of one manifest.
        total: how many in all.
        size: bytes of the manifest of one.
        types: media types they may have.
    """

    each: int
    total: int
    size: int
    types: tuple[str, ...] = (MANIFEST, INDEX)


FEW = Bounds(64, 256, 256 << 10)
"""For whoever looks at them; cosign reads no more than 64 of one manifest either."""
KEPT = replace(FEW, types=(MANIFEST,))
"""For the store, which keeps no index of others."""
MANY = Bounds(1000, _NODES, MANIFEST_LIMIT)
"""For a copy, which should be whole."""


class Walk:
    """Follows manifests of one repository, each once, and believes none of them.

    Args:
        tolerant: whether a registry that fails while it is asked for referrers is only noted.

    Attributes:
        notes: what was left out, and why.
    """

    def __init__(self, registry: Registry, repository: str, bounds: Bounds = FEW, *, tolerant: bool = False) -> None:
        self._registry = registry
        self._repository = repository
        self._bounds = bounds
        self._tolerant = tolerant
        self._seen: set[str] = set()
        self._referrers = 0
        self.notes: list[str] = []

    def own(self, fetched: FetchedManifest, depth: int = 0, referrer: bool = False) -> Iterator[Node]:
        """A manifest and all that it lists, children first.

        Raises:
            VerificationError: when one is damaged, or they nest too deep.
        """
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
                    yield from self.own(self._fetch(each.digest), depth + 1, referrer)
        else:
            content = Manifest.from_bytes(fetched.data)
        yield Node(fetched.data, fetched.descriptor, content, referrer)

    def referrers(self, subjects: Iterable[str]) -> Iterator[Node]:
        """What refers to manifests, and to that in turn, each after its subject.

        A list of referrers is a registry's, or anybody's, claim: what does not name the subject, is too much, or is not
        there, is left out and noted. An index that refers to one of them comes after what it lists.

        Raises:
            RemoteError, AuthenticationError: when the registry fails, unless the walk is tolerant.
        """
        waiting = [(digest, 1) for digest in dict.fromkeys(subjects)]
        for subject, level in waiting:
            for entry in self._listed(subject):
                for node in self._referrer(entry, subject):
                    yield node
                    if level < _LEVELS and node.content.subject:
                        waiting.append((node.descriptor.digest, level + 1))

    def _listed(self, subject: str) -> list[Descriptor]:
        left = min(self._bounds.each, self._bounds.total - self._referrers)
        if left <= 0:
            self._note(f"more than {self._bounds.total} referrers: the rest is left out")
            return []
        found = self._attempt(
            lambda: self._registry.get_referrers(self._repository, subject, limit=left + 1),
            f"the referrers of {subject} cannot be listed",
        )
        entries = list(dict.fromkeys((each.digest, each.media_type, each.size) for each in found or ()))
        if found and len(found) > left:
            self._note(f"{subject} has more than {left} referrers: the rest is left out")
        return [Descriptor(media_type, digest, size) for digest, media_type, size in entries[:left]]

    def _referrer(self, entry: Descriptor, subject: str) -> list[Node]:
        if entry.digest in self._seen:
            return []
        self._referrers += 1
        why = f"referrer {entry.digest} is left out"
        if entry.media_type not in self._bounds.types or entry.size > self._bounds.size:
            self._note(f"{why}: it is of type {entry.media_type[:80]!r} and has {entry.size} bytes")
            return []
        fetched = self._attempt(lambda: self._fetch(entry.digest), why)
        if fetched is None:
            return []
        if (fetched.descriptor.media_type, fetched.descriptor.size) != (entry.media_type, entry.size):
            self._note(f"{why}: it is not what the list says")
            return []
        return self._attempt(lambda: self._below(fetched, subject), why) or []

    def _below(self, fetched: FetchedManifest, subject: str) -> list[Node]:
        is_index = fetched.descriptor.media_type == INDEX
        content = Index.from_bytes(fetched.data) if is_index else Manifest.from_bytes(fetched.data)
        if content.subject is None or content.subject.digest != subject:
            raise VerificationError(f"it does not refer to {subject}")
        return list(self.own(fetched, 0, True))

    def _attempt(self, action: Callable[[], _Result], what: str) -> _Result | None:
        try:
            return action()
        except (VerificationError, NotFoundError, UnsafeError) as error:
            self._note(f"{what}: {error.message}")
        except BentotoolError as error:
            if not self._tolerant:
                raise
            self._note(f"{what}: {error.message}")
            self._bounds = Bounds(0, 0, 0)  # a registry that fails is not asked again and again
        return None

    def _note(self, text: str) -> None:
        if self._bounds.total and text not in self.notes:
            self.notes.append(text)

    def _fetch(self, digest: str) -> FetchedManifest:
        return self._registry.get_manifest(self._repository, digest)


def read_tree(
    registry: Registry,
    repository: str,
    reference: str,
    *,
    referrers: bool = True,
    bounds: Bounds = FEW,
    notes: list[str] | None = None,
) -> list[Node]:
    """A manifest, what it lists, children first, and then what refers to any of them, each after its subject.

    Args:
        reference: a tag or a digest.
        referrers: whether signatures, SBOMs and the like are looked for.
        notes: told which referrers were left out, and why.

    Raises:
        NotFoundError: when there is none.
        VerificationError: when one is damaged, or they nest too deep.
    """
    walk = Walk(registry, repository, bounds)
    own = list(walk.own(registry.get_manifest(repository, reference)))
    attached = list(walk.referrers(node.descriptor.digest for node in own)) if referrers else []
    if notes is not None:
        notes += walk.notes
    return [*own, *attached]
