"""An image without the layers of its models, for whoever mounts those as volumes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bentotool.errors import VerificationError
from bentotool.imagespec import BuiltImage
from bentotool.oci.descriptor import MANIFEST, Descriptor, Manifest, canonical_json, parse_json_object
from bentotool.oci.layout import Layout

__all__ = ["without_models"]

_CONFIG_LIMIT = 4 << 20


def without_models(layout: Layout, image: BuiltImage) -> BuiltImage:
    """The same image, stored beside the whole one, but for the layers of models.

    Raises:
        VerificationError: the image is not as it was built.
    """
    manifest = Manifest.from_bytes(layout.read(image.digest))
    config: dict[str, Any] = parse_json_object(layout.read(manifest.config.digest, _CONFIG_LIMIT), "the image's config")
    diff_ids = config["rootfs"]["diff_ids"]
    if not len(manifest.layers) == len(image.layers) == len(diff_ids):
        raise VerificationError(f"image {image.digest} does not have the layers that it was built with")
    kept = [number for number, layer in enumerate(image.layers) if layer.kind != "model"]
    steps = iter(range(len(diff_ids)))
    history = [each for each in config.get("history", ()) if each.get("empty_layer") or next(steps, -1) in kept]
    lean = {
        **config, "history": history, "rootfs": {**config["rootfs"], "diff_ids": [diff_ids[each] for each in kept]}
    }  # fmt: skip
    put = layout.put(canonical_json(lean), manifest.config.media_type)
    layers = tuple(manifest.layers[each] for each in kept)
    stored = layout.put(replace(manifest, config=put, layers=layers).to_bytes(), MANIFEST)
    descriptor = Descriptor(MANIFEST, stored.digest, stored.size, platform=image.descriptor.platform)
    size = put.size + sum(layer.size for layer in layers)
    return replace(image, descriptor=descriptor, size=size, layers=tuple(image.layers[each] for each in kept))
