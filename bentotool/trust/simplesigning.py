"""Signatures under a tag ``sha256-….sig``: what cosign wrote before there were referrers, for whoever still reads it.

The format is that of the *Red Hat simple signing* payload, kept as a layer with the signature beside it
(sigstore/cosign, *specs/SIGNATURE_SPEC.md*). It names the repository and one manifest.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from bentotool.errors import NotFoundError, RemoteError, UsageError, VerificationError
from bentotool.oci.attached import Attachment
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, canonical_json
from bentotool.trust.dsse import decode_base64
from bentotool.trust.signers import KeySigner, StatementSigner

if TYPE_CHECKING:
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.registry import Registry

__all__ = ["legacy_tag", "sign_simply", "simple_payload"]

_LAYER = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MOST = 64  # signatures under one tag
_TRIES = 3


def legacy_tag(digest: str) -> str:
    """The tag under which the signatures of a manifest lie."""
    return f"{digest.replace(':', '-')}.sig"


def simple_payload(repository: str, digest: str, annotations: Mapping[str, str]) -> bytes:
    """What is signed.

    Args:
        repository: ``HOST/REPOSITORY``.
        annotations: what is said of the manifest beside.
    """
    return canonical_json(
        {
            "critical": {
                "identity": {"docker-reference": repository},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": dict(annotations) or None,
        }
    )


def sign_simply(
    registry: Registry, remote: RemoteReference, digest: str, signer: StatementSigner, annotations: Mapping[str, str]
) -> str:
    """Add a signature to those under the tag of a manifest; one that is there already stays alone.

    Returns:
        the tag.

    Raises:
        UsageError: the signer has no key.
        RemoteError: the registry does not keep it.
    """
    if not isinstance(signer, KeySigner):
        raise UsageError("--legacy-sig needs a key", hint="bentotool sign --key FILE --legacy-sig REF")
    payload = simple_payload(f"{remote.registry}/{remote.repository}", digest, annotations)
    tag = legacy_tag(digest)
    for _ in range(_TRIES):
        layers = _layers(registry, remote.repository, tag)
        if any(_is_ours(layer, payload, signer) for layer in layers):
            return tag
        signature = base64.b64encode(signer.sign(payload)).decode()
        _put(registry, remote.repository, tag, layers, Attachment(payload, _LAYER, {_SIGNATURE: signature}))
    if any(_is_ours(layer, payload, signer) for layer in _layers(registry, remote.repository, tag)):
        return tag
    raise RemoteError(f"registry {registry.registry} loses signatures under {tag} to other writers", hint="try again")


def _layers(registry: Registry, repository: str, tag: str) -> tuple[Descriptor, ...]:
    try:
        manifest = Manifest.from_bytes(registry.get_manifest(repository, tag, (MANIFEST,)).data)
    except NotFoundError:
        return ()
    if len(manifest.layers) >= _MOST:
        raise VerificationError(f"{tag} has {len(manifest.layers)} signatures already, and takes no more")
    return manifest.layers


def _is_ours(layer: Descriptor, payload: bytes, signer: KeySigner) -> bool:
    if layer.digest != Attachment(payload, _LAYER).descriptor.digest:
        return False
    try:
        signature = decode_base64(layer.annotations.get(_SIGNATURE), "the signature")
    except VerificationError:
        return False
    return signer.public.verify(payload, signature)


def _put(registry: Registry, repository: str, tag: str, layers: tuple[Descriptor, ...], added: Attachment) -> None:
    every = (*layers, added.descriptor)
    moment = "0001-01-01T00:00:00Z"  # cosign's: a signature has no time of its own
    config = Attachment(
        canonical_json(
            {
                "architecture": "",
                "os": "",
                "created": moment,
                "config": {},
                "history": [{"created": moment} for _ in every],
                "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in every]},
            }
        ),
        _CONFIG,
    )
    for blob in (added, config):
        registry.upload_blob(repository, blob.descriptor, partial(io.BytesIO, blob.data))
    registry.upload_manifest(repository, tag, Manifest(config.descriptor, every).to_bytes(), MANIFEST)
