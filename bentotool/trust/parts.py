"""What a policy judges: the parts of an artifact, where it came from, and which part covers which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bentotool.errors import UsageError
from bentotool.oci.attached import indexes
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.layout import Layout
from bentotool.transfer.formats import BentoConfig
from bentotool.transfer.places import KnownPlaces
from bentotool.transfer.platforms import choose_images, platform_of
from bentotool.trust.evidence import Object
from bentotool.trust.objects import moved_tag, remote_objects, stored_model_object
from bentotool.trust.places import Place, RegistryPlace, StorePlace
from bentotool.trust.policy import Part, Subject

if TYPE_CHECKING:
    from bentotool.build.bentos import StoredBento
    from bentotool.models.store import StoredModel
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.registry import Registry

__all__ = ["Judgeable", "remote_artifact", "stored_bento", "stored_model"]

_SAFETY = "io.bentotool.safety"
_VERSION = "org.opencontainers.image.version"
_CONFIG_LIMIT = 4 << 20


@dataclass(frozen=True)
class Judgeable:
    """An artifact, ready to be judged.

    Args:
        objects: its parts, as signatures are looked for.
        place: where those lie.
        local: whether that is the store of this machine.
    """

    subject: Subject
    objects: tuple[Object, ...]
    place: Place
    local: bool


def remote_artifact(
    registry: Registry, remote: RemoteReference, top: Descriptor, platforms: Sequence[str] = ()
) -> Judgeable:
    """An artifact of a registry. Manifests and a Bento's config are read, and nothing else.

    Args:
        top: what the reference pointed to when it was resolved; the tag is not asked again.
        platforms: of a Bento's images, those that are wanted; all when empty.

    Raises:
        NotFoundError, VerificationError: part of it is missing or damaged.
    """
    place = RegistryPlace(registry, remote.repository)
    try:
        objects = remote_objects(registry, remote.with_digest(top.digest))
    except UsageError:  # of a kind that only imports know
        objects = (Object("model", str(remote), top.digest, top.media_type, top.size),)
    wanted: set[str] | None = None
    if top.media_type == INDEX and any(each.kind == "bento" for each in objects):
        wanted = {each.digest for each in choose_images(Index.from_bytes(place.manifest(top.digest)), platforms)}

    def config(of: Descriptor) -> bytes:
        return registry.read_blob(remote.repository, of, _CONFIG_LIMIT)

    parts = _parts(place, objects, config, wanted)
    where = f"{remote.registry}/{remote.repository}"
    subject = Subject(str(remote), (where,), parts, moved_tag(remote, objects[0].name))
    return Judgeable(subject, objects, place, local=False)


def stored_bento(layout: Layout, bento: StoredBento, images: Sequence[Descriptor] = ()) -> Judgeable:
    """A Bento of the store, with the indexes that it was pulled or signed in.

    Args:
        images: those of its images that are meant too.

    Raises:
        NotFoundError, VerificationError: part of it is missing or damaged.
    """
    data = layout.read(bento.digest)
    config = BentoConfig.from_bytes(layout.read(Manifest.from_bytes(data).config.digest, _CONFIG_LIMIT))
    own = Object("bento", bento.tag, bento.digest, MANIFEST, len(data))
    models = (stored_model_object(layout, needed.digest) for needed in config.needed)
    tops = tuple(Object("index", bento.tag, each.digest, INDEX, each.size) for each in indexes(layout, bento.digest))
    made = (Object("image", platform_of(each), each.digest, MANIFEST, each.size) for each in images)
    return _stored(layout, bento.tag, bento.name, (*tops, own, *models, *made), bento.digest)


def stored_model(layout: Layout, model: StoredModel) -> Judgeable:
    """A model of the store.

    Raises:
        NotFoundError, VerificationError: it is missing or damaged.
    """
    return _stored(layout, model.tag, model.name, (stored_model_object(layout, model.digest),), model.digest)


def _stored(layout: Layout, title: str, name: str, objects: tuple[Object, ...], main: str) -> Judgeable:
    place = StorePlace(layout)
    parts = _parts(place, objects, lambda of: layout.read(of.digest, _CONFIG_LIMIT), None)
    where = tuple(sorted(set(KnownPlaces(layout).everywhere(main))))
    return Judgeable(Subject(title, where or (name,), parts), objects, place, local=True)


def _parts(
    place: Place, objects: Sequence[Object], config: Callable[[Descriptor], bytes], images: Collection[str] | None
) -> tuple[Part, ...]:
    """The parts of an artifact, each manifest read once.

    Args:
        images: digests of the images that have to be covered; None: whatever there is.
    """
    whole = any(each.kind == "bento" for each in objects)
    found = []
    for each in objects:
        data = place.manifest(each.digest)
        if each.media_type == INDEX:
            holds = frozenset(entry.digest for entry in Index.from_bytes(data).manifests)
            found.append(Part("index", each.name, each.digest, holds, needed=len(objects) == 1))
            continue
        manifest = Manifest.from_bytes(data)
        holds = frozenset[str]()
        if each.kind == "bento":
            holds = frozenset(model.digest for model in BentoConfig.from_bytes(config(manifest.config)).models)
        found.append(
            Part(
                each.kind,
                each.name or each.digest[:19],
                each.digest,
                holds,
                main=each.kind == "bento" or not whole,
                needed=each.kind != "image" or images is None or each.digest in images,
                safety=manifest.annotations.get(_SAFETY, "") if each.kind == "model" else "",
                version=manifest.annotations.get(_VERSION, ""),
            )
        )
    return tuple(found)
