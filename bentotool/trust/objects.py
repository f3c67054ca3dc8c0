"""What of a Bento or model is signed: everything that somebody may meet alone.

An admission controller sees the index or one image, a pull the index and the Bento, an import the model. Each is an
object with a signature of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from bentotool.errors import UsageError
from bentotool.oci.descriptor import INDEX, MANIFEST, Descriptor, Index, Manifest
from bentotool.oci.digest import sha256_bytes
from bentotool.transfer.formats import BENTO_TYPE, IMAGE_CONFIG, MODEL_TYPE, BentoConfig
from bentotool.transfer.images import tag_index
from bentotool.transfer.platforms import platform_of
from bentotool.transfer.tree import Node, read_tree
from bentotool.trust.evidence import Kind, Object
from bentotool.trust.modelsigning import files_digest_of

if TYPE_CHECKING:
    from bentotool.oci.layout import Layout
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.registry import Registry

__all__ = ["moved_tag", "remote_objects", "stored_bento_objects", "stored_model_object"]

_KINDS: dict[str, Kind] = {BENTO_TYPE: "bento", MODEL_TYPE: "model", IMAGE_CONFIG: "image"}


def stored_model_object(layout: Layout, digest: str) -> Object:
    """A model of the store.

    Raises:
        NotFoundError, VerificationError: it is not there, or damaged.
    """
    data = layout.read(digest)
    return _object(Manifest.from_bytes(data), Descriptor("", digest, len(data)), "model")


def stored_bento_objects(layout: Layout, digest: str, index: str | None = None) -> tuple[Object, ...]:
    """A Bento of the store: the index that its tag will point to, itself, its images and its models.

    Args:
        index: digest of the index that is meant, where the store has several; None: the one that a push sends.

    Raises:
        NotFoundError, VerificationError: part of it is not there, or damaged.
    """
    data, images = tag_index(layout, digest, index)
    bento = Manifest.from_bytes(own := layout.read(digest))
    config = BentoConfig.from_bytes(layout.read(bento.config.digest))
    tag = f"{config.name}:{config.version}"
    return (
        Object("index", tag, sha256_bytes(data), INDEX, len(data)),
        _object(bento, Descriptor("", digest, len(own)), "bento", tag),
        *(_object(_manifest(layout, each), each, "image", platform_of(each)) for each in images),
        *(stored_model_object(layout, needed.digest) for needed in config.needed),
    )


def remote_objects(registry: Registry, remote: RemoteReference) -> tuple[Object, ...]:
    """An artifact of a registry: what the reference points to first, then all of it that can be met alone.

    Args:
        remote: without tag and digest, ``latest``.

    Raises:
        NotFoundError: the registry does not have it.
        VerificationError: it is damaged.
    """
    nodes = read_tree(registry, remote.repository, remote.digest or remote.tag or "latest", referrers=False)
    top = nodes[-1]
    found = list(_nodes(nodes[:-1], top))
    bento = next((each.name for each in found if each.kind == "bento"), "")
    if isinstance(top.content, Index):
        size = len(top.data)
        return (Object("index", bento or str(remote), top.descriptor.digest, INDEX, size), *_by_kind(found))
    kind = _KINDS.get(_type(top.content))
    if kind is None:
        raise UsageError(
            f"{remote} is neither a Bento nor a model nor an image but {_type(top.content)[:100]!r}",
            hint=f"bentotool show {remote} says what it is",
        )
    return (_object(top.content, top.descriptor, kind, _own_name(top.content) or str(remote)),)


def moved_tag(remote: RemoteReference, signed: str) -> str:
    """The tag of a reference, where it is not the version that is signed; empty where it is, or none is stated.

    A signature is good for ever, and says nothing of tags: whoever may move one can lead to an older version, whose
    faults are known by now.

    Args:
        remote: without tag and digest, ``latest``; with a digest, no tag matters.
        signed: name of the first object, ``name:version`` where it states them.
    """
    version = signed.partition(":")[2]
    tag = remote.tag or "latest"
    if remote.digest or not version or tag == version or signed.startswith(f"{remote.registry}/{remote.repository}"):
        return ""
    return tag


def _by_kind(found: Sequence[Object]) -> list[Object]:
    order = ("index", "bento", "image", "model")
    return sorted(found, key=lambda each: order.index(each.kind))


def _nodes(nodes: Sequence[Node], top: Node) -> Iterator[Object]:
    entries = {each.digest: each for node in (*nodes, top) if isinstance(node.content, Index)
               for each in node.content.manifests}  # fmt: skip
    for node in nodes:
        entry = entries.get(node.descriptor.digest, node.descriptor)
        if isinstance(node.content, Index):
            yield Object("index", platform_of(entry), node.descriptor.digest, INDEX, len(node.data))
            continue
        # What is of no known kind is judged like an image: nothing in an index goes unlooked at.
        kind = _KINDS.get(_type(node.content), "image")
        name = platform_of(entry) if kind == "image" else _own_name(node.content)
        yield _object(node.content, node.descriptor, kind, name)


def _type(manifest: Manifest) -> str:
    return manifest.artifact_type or manifest.config.media_type


def _own_name(manifest: Manifest) -> str:
    notes = manifest.annotations
    name, version = notes.get("io.bentotool.name", ""), notes.get("org.opencontainers.image.version", "")
    return f"{name}:{version}" if name and version else name


def _manifest(layout: Layout, entry: Descriptor) -> Manifest:
    return Manifest.from_bytes(layout.read(entry.digest))


def _object(manifest: Manifest, descriptor: Descriptor, kind: Kind, name: str = "") -> Object:
    files = files_digest_of(manifest) if kind == "model" else ""
    return Object(kind, name or _own_name(manifest), descriptor.digest, MANIFEST, descriptor.size, files)
