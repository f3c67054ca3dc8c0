"""Bringing the image of a Bento to a registry, for targets whose machines pull it from there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bentotool.cli.delivery import push_ref
from bentotool.cli.registries import open_registry, transfer_progress
from bentotool.cli.state import State
from bentotool.oci.digest import sha256_bytes

if TYPE_CHECKING:
    from bentotool.build.bentos import StoredBento
    from bentotool.deployspec import PublishedImage
    from bentotool.imagespec import BuiltImage
    from bentotool.oci.reference import RemoteReference

__all__ = ["Publisher", "make_images", "volume_views"]


def make_images(
    state: State,
    bento: StoredBento,
    platforms: Sequence[str],
    *,
    base: str | None,
    builder: str | None,
    offline: bool,
    verify: bool = False,
    note: Callable[[str], None] | None = None,
) -> Sequence[BuiltImage]:
    """Make the images of a Bento, as ``containerize`` does.

    Args:
        platforms: none: that of the Bento's lock.
        verify: their servers check every byte of the Bento when they start.
    """
    from bentotool.images.containerize import build_images, choose_builder
    from bentotool.images.plan import check_platforms, plan_image
    from bentotool.imagespec import ImageRequest

    wanted = check_platforms(platforms, bento.platform)
    plans = tuple(plan_image(state.layout, bento, each, base=base) for each in wanted)
    request = ImageRequest(
        plans=plans,
        layout=state.layout,
        open_registry=lambda host: open_registry(state, host),
        progress=transfer_progress(state),
        offline=offline,
        verify=verify,
        jobs=state.options.registry.jobs,
        note=note or state.console.note,
    )
    decl = choose_builder(builder, plans, state.plugins)
    return build_images(state.layout, bento, request, decl, state.plugins)


def volume_views(state: State, models: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Digests of the volume views of models, by the models'; of those that have one.

    Args:
        models: name and digest of each.
    """
    from bentotool.errors import BentotoolError
    from bentotool.transfer.formats import volume_view

    views = {}
    for name, digest in models:
        stored = state.models.by_digest(name, digest)
        try:
            views[digest] = sha256_bytes(volume_view(stored.descriptor, stored.manifest).manifest)
        except BentotoolError:  # layers that no container runtime mounts
            continue
    return views


class Publisher:
    """See :class:`bentotool.deployspec.ImagePublisher`.

    Args:
        bento: of the store.
        base, builder, offline, verify: how its image is made.
    """

    def __init__(
        self, state: State, bento: StoredBento, *, base: str | None, builder: str | None, offline: bool, verify: bool
    ) -> None:
        self._state, self._bento = state, bento
        self._base, self._builder, self._offline, self._verify = base, builder, offline, verify

    def planned(self, where: str, platforms: Sequence[str] = (), *, lean: bool = False) -> PublishedImage:
        """What :meth:`publish` would give; the digest where the images are in the store already."""
        return self._published(self._remote(where), self._stored(platforms, lean=lean), platforms)

    def publish(self, where: str, platforms: Sequence[str] = (), *, lean: bool = False) -> PublishedImage:
        """Make and push."""
        from bentotool.images.containerize import image_index
        from bentotool.oci.attached import forget_indexes, keep_index
        from bentotool.oci.refs import RefStore

        state, bento, remote, whole = self._state, self._bento, self._remote(where), ""
        found = self._stored(platforms, lean=lean)
        if found is None:
            state.console.note(f"make the image of {bento.tag}")
            images = make_images(
                state, bento, platforms, base=self._base, builder=self._builder, offline=self._offline,
                verify=self._verify,
            )  # fmt: skip
            if lean:
                from bentotool.images.lean import without_models

                whole = sha256_bytes(image_index(state.layout, bento, images).to_bytes())
                images = [without_models(state.layout, image) for image in images]
            index = keep_index(state.layout, image_index(state.layout, bento, images).to_bytes())
            found = index.digest, {image.platform: image.digest for image in images}
        ref = RefStore(state.layout).get("bentos", bento.tag)
        state.console.note(f"push {bento.tag} to {remote}")
        try:
            push_ref(state, ref, str(remote), index=found[0], volumes=lean)
        finally:
            if whole:  # a push of the Bento elsewhere is to have the whole image
                forget_indexes(state.layout, bento.digest, but=whole)
        return self._published(remote, found, platforms)

    def _remote(self, where: str) -> RemoteReference:
        from bentotool.errors import UsageError
        from bentotool.oci.reference import RemoteReference

        place = where.strip().rstrip("/")
        if not place or "@" in place:
            raise UsageError(f"{where[:80]!r} is no place in a registry", hint="--registry HOST[:PORT][/PATH]")
        return RemoteReference.parse(f"{place}/{self._bento.name}:{self._bento.version}")

    def _published(
        self, remote: RemoteReference, found: tuple[str, dict[str, str]] | None, platforms: Sequence[str]
    ) -> PublishedImage:
        from bentotool.deployspec import PublishedImage
        from bentotool.images.plan import check_platforms

        check_platforms(platforms, self._bento.platform)
        index, images = found or ("", {})
        repository = f"{remote.registry}/{remote.repository}"
        return PublishedImage(repository, remote.tag or "latest", index, images, self.volumes())

    def volumes(self) -> dict[str, str]:
        """As :func:`volume_views` of the Bento's models."""
        return volume_views(self._state, [(model.name, model.digest) for model in self._bento.models])

    def _stored(self, platforms: Sequence[str], *, lean: bool) -> tuple[str, dict[str, str]] | None:
        """The index with the images that are wanted, where the store has it: its digest, and theirs by platform."""
        from bentotool.images.plan import check_platforms
        from bentotool.transfer.images import tag_index
        from bentotool.transfer.platforms import platform_of
        from bentotool.trust.enforcing import images_pass

        wanted = check_platforms(platforms, self._bento.platform)
        if lean or self._base or self._builder or self._verify:  # made anew
            return None
        data, entries = tag_index(self._state.layout, self._bento.digest)
        images = {platform_of(entry).removesuffix("/v8"): entry.digest for entry in entries}
        if not images_pass(self._state.layout, self._bento, entries, self._state.plugins):  # pulled, and not signed
            return None
        return (sha256_bytes(data), images) if set(wanted) <= images.keys() else None
