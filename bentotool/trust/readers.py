"""Where bundles come from: what a store, or a registry, has attached to a manifest. All bounded, nothing believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bentotool.errors import BentotoolError, NotFoundError, VerificationError
from bentotool.oci.attached import check_referrer, referrers
from bentotool.oci.descriptor import EMPTY
from bentotool.oci.layout import Layout
from bentotool.trust.bundle import BUNDLE_LIMIT, BUNDLE_TYPES
from bentotool.trust.evidence import Rejected

if TYPE_CHECKING:
    from bentotool.oci.descriptor import Descriptor, Manifest
    from bentotool.oci.registry import Registry

__all__ = ["MOST_BUNDLES", "FoundBundle", "ReferrerReader", "RegistryReader", "StoreReader"]

MOST_BUNDLES = 64
"""Bundles of one manifest that are looked at in a registry, where anybody may add more; cosign takes as many."""
_MOST_STORED = 1000
_MOST_LISTED = 2000  # referrers of any kind
_UNSTATED = (None, "", EMPTY)
"""What lists say of a bundle that cosign 2 put into them: the type of its config, and not its own."""
_MOST_BYTES = 64 << 20  # of the bundles of one manifest


@dataclass(frozen=True)
class FoundBundle:
    """A bundle as it was found, not verified.

    Args:
        referrer: digest of the manifest that carries it.
    """

    referrer: str
    data: bytes


class ReferrerReader(Protocol):
    """Finds the bundles that are attached to a manifest."""

    def bundles(self, subject: str) -> Iterator[FoundBundle | Rejected]:
        """Each bundle, or why it cannot be had.

        Args:
            subject: digest of the manifest.

        Raises:
            RemoteError: the place where it lies does not answer.
        """
        ...


class StoreReader:
    """Reads what a store has attached."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def bundles(self, subject: str) -> Iterator[FoundBundle | Rejected]:
        found = [each for each in referrers(self._layout, subject) if each.descriptor.artifact_type in BUNDLE_TYPES]
        left = _MOST_BYTES
        for each in found[:_MOST_STORED]:
            try:
                layer = _bundle_of(each.manifest)
                left = _spent(left, layer.size)
                data = self._layout.read(layer.digest, BUNDLE_LIMIT)
            except BentotoolError as error:
                yield Rejected(each.digest, subject, error.message)
                continue
            yield FoundBundle(each.digest, data)
        if len(found) > _MOST_STORED:
            yield _left_out(subject, _MOST_STORED)


class RegistryReader:
    """Reads what a repository has attached."""

    def __init__(self, registry: Registry, repository: str) -> None:
        self._registry = registry
        self._repository = repository

    def bundles(self, subject: str) -> Iterator[FoundBundle | Rejected]:
        try:
            listed = self._registry.get_referrers(self._repository, subject, limit=_MOST_LISTED)
        except VerificationError as error:
            yield Rejected("", subject, error.message)
            return
        stated = list(dict.fromkeys(each.digest for each in listed if each.artifact_type in BUNDLE_TYPES))
        unstated = list(dict.fromkeys(each.digest for each in listed if each.artifact_type in _UNSTATED))
        left = _MOST_BYTES
        for digest in (*stated[:MOST_BUNDLES], *unstated[:MOST_BUNDLES]):
            try:
                layer = self._layer(digest, subject)
                if layer is None:
                    continue
                left = _spent(left, layer.size)
                data = self._registry.read_blob(self._repository, layer, BUNDLE_LIMIT)
            except (VerificationError, NotFoundError) as error:
                yield Rejected(digest, subject, error.message)
                continue
            yield FoundBundle(digest, data)
        if len(stated) > MOST_BUNDLES or len(listed) >= _MOST_LISTED:
            yield _left_out(subject, MOST_BUNDLES)

    def _layer(self, digest: str, subject: str) -> Descriptor | None:
        """The bundle that a manifest carries; None where it is something else."""
        found = check_referrer(self._registry.get_manifest(self._repository, digest).data)
        if found.descriptor.artifact_type not in BUNDLE_TYPES:
            return None
        if found.subject != subject:
            raise VerificationError(f"it refers to {found.subject or 'nothing'}")
        return _bundle_of(found.manifest)


def _bundle_of(manifest: Manifest) -> Descriptor:
    layers = [layer for layer in manifest.layers if layer.media_type in BUNDLE_TYPES]
    if len(layers) != 1:
        raise VerificationError(f"it carries {len(layers)} bundles, not one")
    if layers[0].size > BUNDLE_LIMIT:
        raise VerificationError(f"its bundle has {layers[0].size} bytes, more than the {BUNDLE_LIMIT} allowed")
    return layers[0]


def _spent(left: int, size: int) -> int:
    if size > left:
        raise VerificationError(f"the bundles before it have {_MOST_BYTES} bytes in all; no more are read")
    return left - size


def _left_out(subject: str, most: int) -> Rejected:
    return Rejected("", subject, f"more than {most} bundles are attached: the rest was not looked at")
