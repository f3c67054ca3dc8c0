"""From a Bento to images in the store, and to the index that its tag points to when it is pushed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bentotool.build.bentos import StoredBento
from bentotool.errors import BentotoolError, PluginError, UsageError
from bentotool.images.documents import attach_image_documents
from bentotool.images.selfcheck import checked_request
from bentotool.imagespec import BuiltImage, ImageBuilder, ImageBuilderDecl, ImagePlan, ImageRequest
from bentotool.oci.attached import forget_indexes, keep_index
from bentotool.oci.descriptor import MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.layout import Layout
from bentotool.transfer.formats import KIND, BentoConfig, bento_index
from bentotool.trust.enforcing import check_stored_bento

if TYPE_CHECKING:
    from bentotool.plugins import Plugins

__all__ = ["BUILT_IN", "build_images", "choose_builder", "image_index", "keep_images"]

BUILT_IN = ImageBuilderDecl(
    "oci", "bentotool.images.oci_builder:OciBuilder", "Layers put together without a daemon; nothing is run"
)
_INSTALL = {"buildkit": "pip install bentotool-docker"}


def choose_builder(name: str | None, plans: Sequence[ImagePlan], plugins: Plugins) -> ImageBuilderDecl:
    """The builder that was asked for; without a name ``oci`` where it can do what the plans ask, else ``buildkit``.

    Raises:
        UsageError: there is no such builder.
        PluginError: two plugins declare one of that name, or one takes the built-in's.
    """
    if name == BUILT_IN.name:
        return BUILT_IN
    declared: Mapping[str, ImageBuilderDecl] = plugins.image_builders()
    if BUILT_IN.name in declared:
        raise PluginError(f"a plugin declares an image builder {BUILT_IN.name!r}, which is built in")
    if name is None:
        from bentotool.images.oci_builder import check_plan

        try:
            for plan in plans:
                check_plan(plan)
        except BentotoolError:
            return declared.get("buildkit", BUILT_IN)  # the built-in then says what it lacks
        return BUILT_IN
    if name not in declared:
        known = ", ".join(sorted({BUILT_IN.name, *declared}))
        raise UsageError(f"no image builder {name[:60]!r}; there are: {known}", hint=_INSTALL.get(name))
    return declared[name]


def build_images(
    layout: Layout, bento: StoredBento, request: ImageRequest, decl: ImageBuilderDecl, plugins: Plugins
) -> Sequence[BuiltImage]:
    """Build the images that a request plans, attach what is known of them, and make them the Bento's images.

    Raises:
        BentotoolError: what the builder says.
        PluginError: it is no builder.
        VerificationError: a policy refuses the Bento.
    """
    passed = check_stored_bento(layout, bento, plugins=plugins, note=lambda text: request.note(f"warning: {text}"))
    if request.verify or passed.runtime_check:
        request = checked_request(request, bento)
    builder = plugins.resolve(decl)
    if not isinstance(builder, ImageBuilder):
        raise PluginError(f"image builder {decl.name!r}: {decl.target} is not an ImageBuilder")
    images = builder.build(request)
    if [image.platform for image in images] != [plan.platform for plan in request.plans]:
        raise PluginError(f"image builder {decl.name!r} did not build what was planned")
    for image in images:
        attach_image_documents(layout, bento, image, decl.name)
    keep_images(layout, bento, images)
    return images


def image_index(layout: Layout, bento: StoredBento, images: Sequence[BuiltImage]) -> Index:
    """The index [images, Bento, models] that a tag of the Bento points to after a push of these images."""
    manifest = Manifest.from_bytes(layout.read(bento.digest))
    config = BentoConfig.from_bytes(layout.read(manifest.config.digest))
    models = [(each, Descriptor(MANIFEST, each.digest, len(layout.read(each.digest)))) for each in config.needed]
    plain = bento_index(Descriptor(MANIFEST, bento.digest, len(layout.read(bento.digest))), config, models)
    entries = [
        Descriptor(MANIFEST, each.digest, each.descriptor.size, {KIND: "image"}, platform=each.descriptor.platform)
        for each in images
    ]
    return Index((*entries, *plain.manifests), artifact_type=plain.artifact_type, annotations=plain.annotations)


def keep_images(layout: Layout, bento: StoredBento, images: Sequence[BuiltImage]) -> Descriptor:
    """Store the index of :func:`image_index`; it takes the place of one with other images.

    Returns:
        the index.
    """
    kept = keep_index(layout, image_index(layout, bento, images).to_bytes())
    forget_indexes(layout, bento.digest, but=kept.digest)
    return kept
