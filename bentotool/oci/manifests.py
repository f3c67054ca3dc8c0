"""What a registry's answer to a manifest request must be before anything in it is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bentotool.errors import RemoteError, VerificationError
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, parse_json_object
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.retry import TransientError

__all__ = ["FetchedManifest", "check_manifest", "check_stated_digest"]


@dataclass(frozen=True)
class FetchedManifest:
    """A manifest or index exactly as the registry holds it."""

    data: bytes
    descriptor: Descriptor


def check_manifest(
    headers: Mapping[str, str], data: bytes, reference: str, what: str, types: Sequence[str] = (MANIFEST, INDEX)
) -> FetchedManifest:
    """Judge a manifest that was fetched.

    Args:
        headers: of the answer, with names of any case.
        reference: the tag or digest asked for.
        what: names the manifest in messages.
        types: media types that will do.

    Raises:
        VerificationError: when its digest or type is not what it must be.
        TransientError: when it is not whole.
    """
    announced = headers.get("Content-Length", "")
    if announced.isascii() and announced.isdigit() and int(announced) != len(data):
        raise TransientError(RemoteError(f"{what} ended early"))
    digest = sha256_bytes(data)
    if reference.startswith("sha256:") and digest != reference:
        raise VerificationError(f"the registry gave other bytes for {reference}: {digest}")
    check_stated_digest(headers, digest, what)
    media_type = headers.get("Content-Type", "").partition(";")[0].strip()
    if media_type not in types:
        raise VerificationError(f"{what} is of type {media_type[:100]!r}, which is not supported")
    # The same bytes read as two types are two different things (CVE-2021-41190).
    body = parse_json_object(data, what)
    if body.get("mediaType", media_type) != media_type:
        raise VerificationError(f"{what} is served as {media_type} but says it is {str(body['mediaType'])[:100]!r}")
    if "layers" in body and "manifests" in body:
        raise VerificationError(f"{what} has both 'layers' and 'manifests'")
    return FetchedManifest(data, Descriptor(media_type, digest, len(data)))


def check_stated_digest(headers: Mapping[str, str], digest: str, what: str) -> None:
    """Compare a registry's own word (``Docker-Content-Digest``) with the digest of the bytes.

    Raises:
        VerificationError: when they differ.
    """
    stated = headers.get("Docker-Content-Digest", digest)
    if stated.startswith("sha256:") and stated != digest:
        raise VerificationError(f"the registry states {stated[:80]} for {what}, whose digest is {digest}")
