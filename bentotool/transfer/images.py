"""The images of a Bento that lie in the store beside it, under the index that a registry's tag points to."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

from bentotool.errors import BentotoolError, VerificationError
from bentotool.oci.attached import indexes
from bentotool.oci.descriptor import Descriptor, Index, Manifest
from bentotool.oci.layout import Layout
from bentotool.transfer.formats import IMAGE_CONFIG
from bentotool.transfer.platforms import choose_images

__all__ = ["check_image", "image_parts", "index_with_images"]


def check_image(manifest: Manifest, digest: str) -> None:
    """Refuse what an index lists as an image and is none.

    Raises:
        VerificationError: naming it.
    """
    if manifest.config.media_type != IMAGE_CONFIG:
        raise VerificationError(f"{digest} is listed as an image, and is {manifest.config.media_type[:100]!r}")


def image_parts(manifest: Manifest, listed: Mapping[str, Descriptor]) -> tuple[Descriptor, ...]:
    """What an image consists of. A layer that a model has too is described as the model has it: by its files.

    Args:
        listed: layers of models, by digest.
    """
    return (*(listed.get(layer.digest, layer) for layer in manifest.layers), manifest.config)


def index_with_images(
    layout: Layout, bento: str, models: Collection[str], listed: Mapping[str, Descriptor]
) -> tuple[bytes, list[Descriptor]] | None:
    """The stored index of a Bento with the most images of which nothing is missing, and with nothing strange in it.

    Args:
        bento: its digest.
        models: digests of its models.
        listed: layers of its models, by digest.

    Returns:
        its bytes, and its entries that are images; None when there is no index with an image.
    """
    best: tuple[bytes, list[Descriptor]] | None = None
    for each in indexes(layout, bento):
        data = layout.read(each.digest)
        index = Index.from_bytes(data)
        images = choose_images(index, ())
        known = {bento, *models, *(image.digest for image in images)}
        if known != {entry.digest for entry in index.manifests}:
            continue
        if len(images) > (len(best[1]) if best else 0) and _is_whole(layout, index, images, listed):
            best = data, images
    return best


def _is_whole(layout: Layout, index: Index, images: list[Descriptor], listed: Mapping[str, Descriptor]) -> bool:
    if not all(layout.has_sized(entry.digest, entry.size) for entry in index.manifests):
        return False
    with contextlib.suppress(BentotoolError):
        for image in images:
            manifest = Manifest.from_bytes(layout.read(image.digest))
            check_image(manifest, image.digest)
            if not all(layout.has_layer(part) for part in image_parts(manifest, listed)):
                return False
        return True
    return False
