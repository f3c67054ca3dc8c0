"""The documents around models and Bentos in a registry: a Bento's config, the index of a tag, a model's volume view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bentotool.errors import BentotoolError, UsageError, VerificationError
from bentotool.models.manifest import ARTIFACT_TYPE as MODEL_TYPE
from bentotool.oci.descriptor import MANIFEST, Descriptor, Index, Manifest, canonical_json, parse_json_object
from bentotool.oci.digest import check_digest, sha256_bytes
from bentotool.oci.refs import check_name, check_version

__all__ = [
    "BENTO_TYPE",
    "IMAGE_CONFIG",
    "INDEX_TYPE",
    "KIND",
    "MODEL_TYPE",
    "BentoConfig",
    "NeededModel",
    "VolumeView",
    "bento_index",
    "identity",
    "title_of",
    "volume_view",
]

BENTO_TYPE = "application/vnd.bentotool.bento.v1"
INDEX_TYPE = "application/vnd.bentotool.bento.index.v1"
KIND = "io.bentotool.kind"
"""Annotation that tells what an entry of an index is: ``bento`` or ``model``."""

_NAME = "io.bentotool.name"
_VERSION = "org.opencontainers.image.version"
IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
_IMAGE_LAYER = "application/vnd.oci.image.layer.v1.tar"
_NO_PLATFORM = {"os": "unknown", "architecture": "unknown"}


@dataclass(frozen=True)
class NeededModel:
    """A model as a Bento's config names it; the digest alone decides which one is meant."""

    name: str
    version: str
    digest: str
    repository: str = ""

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True)
class BentoConfig:
    """What a transfer reads of ``application/vnd.bentotool.bento.config.v1+json``."""

    name: str
    version: str
    models: tuple[NeededModel, ...]

    @property
    def needed(self) -> list[NeededModel]:
        """Each model once, though a service may name it under several aliases."""
        return list({model.digest: model for model in reversed(self.models)}.values())[::-1]

    @classmethod
    def from_bytes(cls, data: bytes) -> BentoConfig:
        """Read a Bento's config.

        Raises:
            VerificationError: when it is damaged, or of a later format.
        """
        document = parse_json_object(data, "the config of the Bento")
        if document.get("schema", 1) != 1:
            raise VerificationError(
                f"the Bento has format {str(document['schema'])[:20]!r}, which this release cannot read",
                hint="pip install --upgrade bentotool",
            )
        entries = document.get("models", [])
        if not isinstance(entries, list):
            raise VerificationError("'models' in the config of the Bento is not a list")
        name, version = _checked(document.get("name"), document.get("version"), "the Bento")
        return cls(name, version, tuple(dict.fromkeys(map(_needed, entries))))


def _needed(entry: object) -> NeededModel:
    if not isinstance(entry, dict):
        raise VerificationError("'models' in the config of the Bento has a damaged entry")
    name, version = _checked(entry.get("name"), entry.get("version"), "a model of the Bento")
    repository = entry.get("repository")
    return NeededModel(
        name, version, check_digest(entry.get("digest")), repository if isinstance(repository, str) else ""
    )


def _checked(name: object, version: object, what: str) -> tuple[str, str]:
    if not isinstance(name, str) or not isinstance(version, str):
        raise VerificationError(f"{what} has no name or no version")
    try:
        return check_name(name), check_version(version)
    except UsageError as error:
        raise VerificationError(f"{what}: {error.message}") from None


def title_of(part: Descriptor) -> str:
    """What to call a blob on the screen: the file in it, or what kind of thing it is."""
    title = part.annotations.get("org.opencontainers.image.title", "")
    return title.removesuffix(".tar") or part.media_type.rpartition("/")[2]


def identity(manifest: Manifest, fallback: tuple[str, str] | None = None) -> tuple[str, str]:
    """Name and version of an artifact: its annotations, else ``fallback``.

    Raises:
        VerificationError: when there are none, or they are not valid names.
    """
    name, version = manifest.annotations.get(_NAME), manifest.annotations.get(_VERSION)
    if (name is None or version is None) and fallback is not None:
        return fallback
    return _checked(name, version, "the artifact")


def bento_index(bento: Descriptor, config: BentoConfig, models: Sequence[tuple[NeededModel, Descriptor]]) -> Index:
    """The index that a Bento's tag points to: a function of the Bento alone, so that every push gives the same digest.

    No ``artifactType`` stands on its entries: older releases of skopeo refuse to copy such an index.
    """
    entries = [Descriptor(MANIFEST, bento.digest, bento.size, {KIND: "bento"}, platform=_NO_PLATFORM)]
    for needed, descriptor in models:
        notes = {KIND: "model", "io.bentotool.model": needed.tag}
        entries.append(Descriptor(MANIFEST, descriptor.digest, descriptor.size, notes, platform=_NO_PLATFORM))
    annotations = {KIND: "bento", _NAME: config.name, _VERSION: config.version}
    return Index(tuple(entries), artifact_type=INDEX_TYPE, annotations=annotations)


@dataclass(frozen=True)
class VolumeView:
    """A model as a plain image, which container runtimes mount as a volume: the same blobs, another 2 KB of JSON."""

    config: bytes
    manifest: bytes

    @property
    def config_descriptor(self) -> Descriptor:
        return Descriptor(IMAGE_CONFIG, sha256_bytes(self.config), len(self.config))


def volume_view(model: Descriptor, manifest: Manifest) -> VolumeView:
    """Make the volume view of a model whose layers are uncompressed, so that their digests are also diff ids.

    Raises:
        BentotoolError: when a layer is not an uncompressed tar.
    """
    if not all(layer.media_type.endswith(".tar") for layer in manifest.layers):
        raise BentotoolError("a volume view needs layers that are uncompressed tar archives")
    digests = [layer.digest for layer in manifest.layers]
    # Containerd needs a platform; it does not compare it for a manifest that is asked for by name.
    config = canonical_json(
        {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": digests}}
    )
    view = Manifest(
        config=Descriptor(IMAGE_CONFIG, sha256_bytes(config), len(config)),
        layers=tuple(Descriptor(_IMAGE_LAYER, layer.digest, layer.size) for layer in manifest.layers),
        subject=Descriptor(MANIFEST, model.digest, model.size),
    )
    return VolumeView(config, view.to_bytes())
