"""Where signatures go, and what they are about comes from: a store, or a repository of a registry."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

from bentotool.errors import BentotoolError
from bentotool.oci.attached import MADE_HERE, Attachment, check_referrer, referrer_bytes, referrers
from bentotool.oci.attached import attach as attach_stored
from bentotool.oci.descriptor import EMPTY, EMPTY_JSON, Descriptor
from bentotool.trust.evidence import Object
from bentotool.trust.readers import ReferrerReader, RegistryReader, StoreReader

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout
    from bentotool.oci.registry import Registry

__all__ = ["Place", "RegistryPlace", "StorePlace"]

_MOST_DOCUMENTS = 16  # of one type that are looked at


class Place(Protocol):
    """A store, or a repository."""

    @property
    def reader(self) -> ReferrerReader: ...

    def manifest(self, digest: str) -> bytes:
        """The bytes of a manifest, checked against their digest."""
        ...

    def documents(self, digest: str, artifact_type: str, limit: int) -> Iterator[tuple[bytes, bool]]:
        """What is attached to a manifest under an artifact type, as far as it can be had.

        Args:
            limit: bytes of the largest.

        Returns:
            the content, and whether it was made here: anybody else's is a claim that nobody here has looked at.
        """
        ...

    def attach(self, subject: Object, content: Attachment, artifact_type: str, notes: Mapping[str, str]) -> str:
        """Attach something to an object; the digest of the manifest that carries it."""
        ...


class StorePlace:
    """A store."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.reader = StoreReader(layout)

    def manifest(self, digest: str) -> bytes:
        return self._layout.read(digest)

    def documents(self, digest: str, artifact_type: str, limit: int) -> Iterator[tuple[bytes, bool]]:
        for each in referrers(self._layout, digest, artifact_type)[:_MOST_DOCUMENTS]:
            for layer in each.manifest.layers[:1]:
                try:
                    yield self._layout.read(layer.digest, limit), self._layout.remarked(each.digest) == MADE_HERE
                except BentotoolError:  # damaged, or too large: not to be had
                    continue

    def attach(self, subject: Object, content: Attachment, artifact_type: str, notes: Mapping[str, str]) -> str:
        return attach_stored(self._layout, subject.digest, artifact_type, [content], notes).digest


class RegistryPlace:
    """A repository of a registry."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry = registry
        self._repository = repository
        self.reader = RegistryReader(registry, repository)

    def manifest(self, digest: str) -> bytes:
        return self._registry.get_manifest(self._repository, digest).data

    def documents(self, digest: str, artifact_type: str, limit: int) -> Iterator[tuple[bytes, bool]]:
        listed = self._registry.get_referrers(self._repository, digest, artifact_type, limit=_MOST_DOCUMENTS)
        for each in listed:
            try:
                found = check_referrer(self.manifest(each.digest))
                if found.subject == digest:
                    yield self._registry.read_blob(self._repository, found.manifest.layers[0], limit), False
            except (BentotoolError, IndexError):
                continue

    def attach(self, subject: Object, content: Attachment, artifact_type: str, notes: Mapping[str, str]) -> str:
        from bentotool.oci.referrers import attach

        about = Descriptor(subject.media_type, subject.digest, subject.size)
        for blob in (content, Attachment(EMPTY_JSON, EMPTY)):
            self._registry.upload_blob(self._repository, blob.descriptor, partial(io.BytesIO, blob.data))
        return attach(self._registry, self._repository, referrer_bytes(about, artifact_type, [content], notes)).digest
