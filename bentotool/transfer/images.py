"""The images of a Bento that lie in the store beside it, under the index that a registry's tag points to."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from bentotool.errors import BentotoolError, VerificationError
from bentotool.oci.attached import indexes, keep_index
from bentotool.oci.descriptor import MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.layout import Layout
from bentotool.transfer.formats import IMAGE_CONFIG, BentoConfig, bento_index
from bentotool.transfer.platforms import choose_images

__all__ = ["check_image", "image_parts", "keep_tag_index", "tag_index"]


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


def tag_index(layout: Layout, bento: str, wanted: str | None = None) -> tuple[bytes, list[Descriptor]]:
    """The index that the tag of a Bento points to after a push, and its entries that are images.

    It is made of the Bento and its models alone, unless the store has one with images of which nothing is missing, as
    after a pull: then it is that one, or of several the one with the most.

    Args:
        bento: the digest of a Bento in the store.
        wanted: digest of an index of it in the store: that one, whatever others there are.

    Raises:
        NotFoundError, VerificationError: when the Bento, one of its models or something of the wanted index is missing
            or damaged.
    """
    data = layout.read(bento)
    config = BentoConfig.from_bytes(layout.read(Manifest.from_bytes(data).config.digest))
    stored = {needed.digest: layout.read(needed.digest) for needed in config.needed}
    models = [(each, Descriptor(MANIFEST, each.digest, len(stored[each.digest]))) for each in config.needed]
    plain = bento_index(Descriptor(MANIFEST, bento, len(data)), config, models).to_bytes()
    listed = {layer.digest: layer for each in stored.values() for layer in Manifest.from_bytes(each).layers}
    best: tuple[bytes, list[Descriptor]] = plain, []
    candidates = [wanted] if wanted else [each.digest for each in indexes(layout, bento)]
    for candidate in candidates:
        index = Index.from_bytes(found := layout.read(candidate))
        images = choose_images(index, ())
        ours = {bento, *stored, *(image.digest for image in images)} == {entry.digest for entry in index.manifests}
        if ours and len(images) > len(best[1]) and _is_whole(layout, index, images, listed):
            best = found, images
    if wanted and best[0] != layout.read(wanted):
        raise VerificationError("part of the images is no longer in the store", hint="make them again")
    return best


def keep_tag_index(layout: Layout, bento: str) -> Descriptor:
    """Store the index of :func:`tag_index` for as long as the Bento, so that a signature can be attached to it."""
    return keep_index(layout, tag_index(layout, bento)[0])


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
