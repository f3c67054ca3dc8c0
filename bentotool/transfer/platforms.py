"""The images in an index: for which platforms there are some, and which of them are wanted."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bentotool.errors import NotFoundError, UsageError
from bentotool.oci.descriptor import MANIFEST, Descriptor, Index
from bentotool.transfer.formats import KIND

__all__ = ["NO_IMAGES", "check_platforms", "choose_images", "platform_of"]

NO_IMAGES = "none"
"""In place of a platform: none of the images."""
_PLATFORM = re.compile(r"[a-z0-9_.]+/[a-z0-9_.]+(/[a-z0-9_.]+)?", re.ASCII)
_OTHERS = ("bento", "model")
_ABOUT = "vnd.docker.reference.digest"
"""Annotation with which BuildKit ties an image's provenance, an entry of its own, to the image."""


def platform_of(entry: Descriptor) -> str:
    """``os/architecture[/variant]`` of an entry of an index; empty where it is for none in particular."""
    parts = [(entry.platform or {}).get(key, "") for key in ("os", "architecture", "variant")]
    return "" if parts[0] in ("", "unknown") else "/".join(part for part in parts if part)


def check_platforms(platforms: Sequence[str]) -> None:
    """Refuse what can be no platform.

    Raises:
        UsageError: saying how one is written.
    """
    for each in platforms:
        if not _PLATFORM.fullmatch(each) and each != NO_IMAGES:
            raise UsageError(
                f"{each!r} is not a platform", hint="write OS/ARCHITECTURE, e.g. linux/amd64, or none for no image"
            )


def choose_images(index: Index, platforms: Sequence[str]) -> list[Descriptor]:
    """The entries of an index that are neither Bento nor model, in its order.

    Args:
        platforms: ``os/architecture[/variant]``, of which only those; all when empty. ``none`` stands for none.

    Raises:
        NotFoundError: when there is no image for one of them, naming those that there are.
    """
    images = [
        each for each in index.manifests if each.annotations.get(KIND) not in _OTHERS and each.media_type == MANIFEST
    ]
    if not platforms:
        return images
    chosen: set[str] = set()
    for wanted in platforms:
        fitting = {each.digest for each in images if _fits(platform_of(each), wanted)}
        if not fitting and wanted != NO_IMAGES:
            there = sorted({platform_of(each) for each in images} - {""})
            raise NotFoundError(
                f"there is no image for {wanted}",
                hint=f"there are: {', '.join(there)}" if there else "the Bento has no images; leave out --platform",
            )
        chosen |= fitting
    return [each for each in images if each.digest in chosen or each.annotations.get(_ABOUT) in chosen]


def _fits(there: str, wanted: str) -> bool:
    # arm64 has one variant, which is as often left out as written
    plain_there, plain_wanted = (text.removesuffix("/v8") if "/arm64" in text else text for text in (there, wanted))
    return plain_there == plain_wanted or plain_there.startswith(f"{plain_wanted}/")
