"""What lies in a registry, told from manifests and small configs alone: nothing is pulled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from bentotool.errors import NotFoundError, UnsafeError, VerificationError
from bentotool.models.manifest import model_files, read_details
from bentotool.oci.descriptor import Descriptor, Index, Manifest
from bentotool.oci.layers import FILES_ANNOTATION
from bentotool.oci.reference import RemoteReference
from bentotool.oci.workers import run_all
from bentotool.transfer.formats import BENTO_TYPE, IMAGE_CONFIG, INDEX_TYPE, MODEL_TYPE, BentoConfig
from bentotool.transfer.platforms import platform_of
from bentotool.transfer.push import VOLUME
from bentotool.transfer.tree import Node, read_tree

if TYPE_CHECKING:
    from bentotool.oci.registry import Registry

__all__ = ["RemoteArtifact", "inspect", "list_remote"]

_REFERRERS_TAG = re.compile(r"sha256-[0-9a-f]{64}")


@dataclass(frozen=True)
class RemoteArtifact:
    """An artifact of a registry.

    Attributes:
        reference: where it is.
        digest: what the tag points to.
        kind: ``bento``, ``model``, ``image`` or ``artifact``; ``damaged`` for a tag that cannot be read.
        name: its own name and version; empty for what is not ours.
        size: bytes of all its blobs, each counted once.
        artifact_type: as OCI has it, else the type of its config.
        manifests: what it lists, and itself last: kind, digest and size of the manifest in bytes.
        models: the models of a Bento, with their digests.
        files: the files of a model.
        platforms: of the images in an index.
        referrers: what refers to it or to a part of it: signatures, SBOMs; not a model's view as a volume.
        notes: which of those were left out, and why; or why it cannot be read.
    """

    reference: str
    digest: str
    kind: str
    name: str
    version: str
    size: int
    artifact_type: str
    details: dict[str, Any]
    manifests: tuple[dict[str, Any], ...] = ()
    models: tuple[dict[str, Any], ...] = ()
    files: tuple[dict[str, Any], ...] = ()
    platforms: tuple[str, ...] = ()
    referrers: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        document = {
            "reference": self.reference,
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "tag": f"{self.name}:{self.version}" if self.name else "",
            "digest": self.digest,
            "size": self.size,
            "artifact_type": self.artifact_type,
        }
        lists = {key: getattr(self, key) for key in ("manifests", "models", "files", "platforms", "referrers", "notes")}
        return {**document, **self.details, **{key: list(value) for key, value in lists.items() if value}}


def inspect(registry: Registry, remote: RemoteReference, *, referrers: bool = True) -> RemoteArtifact:
    """Describe what a reference points to.

    Args:
        remote: without tag and digest, ``latest``.
        referrers: whether to ask for signatures and the like.

    Raises:
        NotFoundError: when the registry does not have it.
        VerificationError: when it is damaged.
    """
    asked, notes = remote.digest or remote.tag or "latest", list[str]()
    nodes = read_tree(registry, remote.repository, asked, referrers=referrers, notes=notes)
    own = [node for node in nodes if not node.referrer]
    top = own[-1]
    blobs = {blob.digest: blob.size for node in own for blob in node.blobs}
    main = next((node for node in own if _type(node) == BENTO_TYPE), top)
    kind = _kind(main, top)
    name = main.content.annotations.get("io.bentotool.name", "") if kind in ("bento", "model") else ""
    return RemoteArtifact(
        reference=str(remote),
        digest=top.descriptor.digest,
        kind=kind,
        name=name,
        version=main.content.annotations.get("org.opencontainers.image.version", "") if name else "",
        size=sum(blobs.values()),
        artifact_type=_type(top),
        details=_model_details(main) if kind == "model" else {},
        manifests=tuple(map(_manifest, own)) if len(own) > 1 else (),
        models=_models(registry, remote, main) if kind == "bento" else (),
        files=_files(main) if kind == "model" else (),
        platforms=_platforms(top),
        referrers=tuple(_referrer(node) for node in nodes if node.referrer and _type(node) != IMAGE_CONFIG),
        notes=tuple(notes),
    )


def _type(node: Node) -> str:
    content = node.content
    config = "" if isinstance(content, Index) else content.config.media_type
    return content.artifact_type or config or node.descriptor.media_type


def _manifest(node: Node) -> dict[str, Any]:
    kind = "index" if isinstance(node.content, Index) else _kind(node, node)
    return {"kind": kind, "digest": node.descriptor.digest, "size": node.descriptor.size}


def _kind(main: Node, top: Node) -> str:
    kinds = {BENTO_TYPE: "bento", INDEX_TYPE: "bento", MODEL_TYPE: "model"}
    found = kinds.get(_type(main)) or kinds.get(_type(top))
    return found or ("image" if "image" in _type(top) else "artifact")


def _model_details(node: Node) -> dict[str, Any]:
    if not isinstance(node.content, Manifest) or "io.bentotool.framework" not in node.content.annotations:
        return {}
    details = read_details(node.content)
    return {
        "framework": details.framework,
        "format": details.format,
        "safety": details.safety,
        "labels": dict(details.labels),
        "signature": dict(details.signature),
    }


def _files(node: Node) -> tuple[dict[str, Any], ...]:
    if not isinstance(node.content, Manifest):
        return ()
    if any(FILES_ANNOTATION in layer.annotations for layer in node.content.layers):
        name = node.content.annotations.get("io.bentotool.name", "")
        found = model_files(node.content, name)
        return tuple({"path": file.path, "size": file.size, "digest": file.sha256} for file in found)
    return tuple(map(_layer, node.content.layers))


def _layer(layer: Descriptor) -> dict[str, Any]:
    notes = layer.annotations
    path = notes.get("org.cncf.model.filepath") or notes.get("org.opencontainers.image.title") or layer.media_type
    return {"path": path, "size": layer.size, "digest": layer.digest}


def _models(registry: Registry, remote: RemoteReference, bento: Node) -> tuple[dict[str, Any], ...]:
    if not isinstance(bento.content, Manifest):
        return ()
    config = BentoConfig.from_bytes(registry.read_blob(remote.repository, bento.content.config))
    return tuple({"tag": model.tag, "digest": model.digest} for model in config.models)


def _platforms(top: Node) -> tuple[str, ...]:
    if not isinstance(top.content, Index):
        return ()
    return tuple(filter(None, map(platform_of, top.content.manifests)))


def _referrer(node: Node) -> dict[str, Any]:
    subject = node.content.subject
    return {
        "digest": node.descriptor.digest,
        "artifact_type": _type(node),
        "subject": subject.digest if subject else "",
        "annotations": dict(node.content.annotations),
    }


def list_remote(registry: Registry, repository: str, *, every: bool = False, jobs: int = 4) -> Sequence[RemoteArtifact]:
    """The tags of a repository by name, each with what it points to; one that cannot be read is of kind ``damaged``.

    Args:
        every: also tags that only belong to others: a model's volume view, lists of referrers.
    """
    tags = sorted(registry.get_tags(repository))
    if not every:
        views = {tag for tag in tags if tag.endswith(VOLUME) and tag.removesuffix(VOLUME) in tags}
        tags = [tag for tag in tags if tag not in views and not _REFERRERS_TAG.fullmatch(tag)]
    found: dict[str, RemoteArtifact] = {}

    def look(tag: str) -> None:
        reference = RemoteReference(registry.registry, repository, tag)
        try:
            found[tag] = inspect(registry, reference)
        except (NotFoundError, VerificationError, UnsafeError) as error:  # of the others there is something to tell
            found[tag] = RemoteArtifact(str(reference), "", "damaged", "", "", 0, "", {}, notes=(error.message,))

    run_all([partial(look, tag) for tag in tags], jobs, registry.stop)
    return [found[tag] for tag in tags]
