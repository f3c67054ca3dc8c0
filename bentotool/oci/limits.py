"""The largest blob that registries take, where their operators say so.

Sources, read in November 2026: Amazon ECR's service quotas (52,000 MiB, not adjustable), GitHub's page on working with
the container registry (10 GB), Azure Container Registry's service limits (200 GiB). Others publish none, or are run by
whoever set them up: there the registry's own answer is what counts.
"""

from __future__ import annotations

import os
import re

from bentotool.errors import RemoteError, UsageError
from bentotool.oci.descriptor import Descriptor

__all__ = ["check_sizes", "largest_blob", "too_large"]

_OVERRIDE = "BENTOTOOL_MAX_BLOB"
_KNOWN = (
    (re.compile(r"[0-9]{12}\.dkr\.ecr(-fips)?\.[a-z0-9-]+\.amazonaws\.com(\.cn)?"), 52_000 << 20, "52,000 MiB"),
    (re.compile(r"ghcr\.io"), 10 * 10**9, "10 GB"),
    (re.compile(r"[a-z0-9-]+\.azurecr\.(io|cn|us)"), 200 << 30, "200 GiB"),
)


def largest_blob(registry: str) -> tuple[int, str] | None:
    """Bytes of the largest blob that a registry takes, and how its operator puts it; None when nothing is known.

    ``$BENTOTOOL_MAX_BLOB``, in bytes, goes before what is known here; 0 means no limit.

    Raises:
        UsageError: when the variable is not a number.
    """
    override = os.environ.get(_OVERRIDE, "").strip()
    if override:
        if not override.isascii() or not override.isdigit():
            raise UsageError(f"{_OVERRIDE}={override!r} is not a number of bytes")
        return (int(override), f"{override} bytes, as {_OVERRIDE} says") if int(override) else None
    for pattern, limit, text in _KNOWN:
        if pattern.fullmatch(registry):
            return limit, text
    return None


def check_sizes(registry: str, blobs: list[Descriptor]) -> None:
    """Refuse what a registry would refuse, before hours are spent on sending it.

    Raises:
        RemoteError: naming the limit and the blob.
    """
    known = largest_blob(registry)
    if known is None:
        return
    limit, text = known
    for blob in blobs:
        if blob.size > limit:
            what = _name_of(blob)
            raise RemoteError(
                f"registry {registry} takes blobs of up to {text}, and {what} has {blob.size} bytes",
                hint=f"save the model in smaller shards, or try all the same with {_OVERRIDE}=0",
                details={"limit": limit, "size": blob.size, "digest": blob.digest},
            )


def too_large(refusal: RemoteError, registry: str, blob: Descriptor, at_once: int) -> RemoteError:
    """The error for a blob that a registry, or a proxy before it, refused for its size.

    Args:
        refusal: what it said.
        at_once: bytes of the request that was refused.
    """
    known = largest_blob(registry)
    cap = f"; its operator states {known[1]}" if known else ""
    sent = "" if at_once == blob.size else f", {at_once} of them at once"
    return RemoteError(
        f"{refusal.message}: {_name_of(blob)} has {blob.size} bytes{sent}{cap}",
        hint="ask its operator for the limit; BENTOTOOL_UPLOAD_CHUNK=BYTES sends less in each request",
        details={**refusal.details, "size": blob.size, "request": at_once, "digest": blob.digest},
    )


def _name_of(blob: Descriptor) -> str:
    return blob.annotations.get("org.opencontainers.image.title", blob.digest).removesuffix(".tar")
