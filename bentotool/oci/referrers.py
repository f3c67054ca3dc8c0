"""Attaching a manifest to another one: distribution-spec, "Pushing Manifests with Subject".

A registry with the referrers API keeps the list by itself and says so (``OCI-Subject``). For the others the client
keeps it: an index under the tag ``sha256-<hex>`` of the subject's digest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentotool.errors import NotFoundError, RemoteError, VerificationError
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.digest import sha256_bytes

if TYPE_CHECKING:
    from bentotool.oci.registry import Registry

__all__ = ["attach", "referrer_descriptor", "referrers_tag"]

_TRIES = 3  # of an update that others may undo at the same time


def referrers_tag(digest: str) -> str:
    """The tag under which registries without the API list what refers to ``digest``."""
    return digest.replace(":", "-")


def referrer_descriptor(data: bytes) -> Descriptor:
    """How a list of referrers describes a manifest: with its artifact type, else its config's, and its annotations."""
    manifest = Manifest.from_bytes(data)
    kind = manifest.artifact_type or manifest.config.media_type
    return Descriptor(MANIFEST, sha256_bytes(data), len(data), manifest.annotations, kind)


def attach(registry: Registry, repository: str, data: bytes) -> Descriptor:
    """Put a manifest that has a subject, and make it findable from there. Its blobs have to be there.

    Returns:
        its descriptor.

    Raises:
        VerificationError: when it has no subject.
        RemoteError: when the list of referrers does not keep it.
    """
    subject = Manifest.from_bytes(data).subject
    if subject is None:
        raise VerificationError("a referrer needs a subject")
    descriptor = referrer_descriptor(data)
    if not registry.upload_manifest(repository, descriptor.digest, data, MANIFEST):
        _list(registry, repository, subject.digest, descriptor)
    return descriptor


def _list(registry: Registry, repository: str, subject: str, descriptor: Descriptor) -> None:
    tag = referrers_tag(subject)
    for _ in range(_TRIES):
        listed = _listed(registry, repository, tag)
        if any(each.digest == descriptor.digest for each in listed):
            return
        registry.upload_manifest(repository, tag, Index((*listed, descriptor)).to_bytes(), INDEX)
    # Whoever wrote after us read the list before our entry was in it, each time; the last look decides.
    if all(each.digest != descriptor.digest for each in _listed(registry, repository, tag)):
        raise RemoteError(
            f"registry {registry.registry} loses referrers of {subject} to other writers", hint="try again"
        )


def _listed(registry: Registry, repository: str, tag: str) -> tuple[Descriptor, ...]:
    try:
        return Index.from_bytes(registry.get_manifest(repository, tag).data).manifests
    except NotFoundError:
        return ()
    except VerificationError as error:
        raise VerificationError(
            f"what refers to {tag} cannot be listed: {error.message}",
            hint=f"whoever may push can add to tag {tag}: remove from it what is not yours, or use another repository",
        ) from None
