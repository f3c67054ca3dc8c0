"""The documents of a Bento in a registry, read without pulling it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bentotool.errors import BentotoolError, NotFoundError
from bentotool.oci.descriptor import Manifest
from bentotool.transfer.formats import BENTO_TYPE
from bentotool.transfer.tree import Node, read_tree
from bentotool.trust.attached import KIND, LIMIT, Document, is_document

if TYPE_CHECKING:
    from bentotool.oci.descriptor import Descriptor
    from bentotool.oci.reference import RemoteReference
    from bentotool.oci.registry import Registry

__all__ = ["remote_document"]


def remote_document(
    registry: Registry, remote: RemoteReference, artifact_type: str, what: str
) -> tuple[Descriptor, Document]:
    """A document that is attached to a Bento in a registry, and the Bento's descriptor.

    Args:
        remote: without tag and digest, ``latest``.
        what: the document, as a person calls it.

    Raises:
        NotFoundError: the registry does not have the Bento, or nothing of that type is attached to it.
        RemoteError: the registry does not answer as it should.
    """
    nodes = read_tree(registry, remote.repository, remote.digest or remote.tag or "latest", notes=[])
    bento = next((node.descriptor for node in nodes if _is(node, BENTO_TYPE) and not node.referrer), None)
    if bento is None:
        raise NotFoundError(f"{remote} is no Bento", hint=f"bentotool show {remote} says what it is")
    fitting = [node for node in nodes if node.referrer and _is(node, artifact_type) and _subject(node) == bento.digest]
    for node in sorted(fitting, key=lambda each: KIND not in each.content.annotations):
        for layer in node.content.layers if isinstance(node.content, Manifest) else ():
            try:
                data = registry.read_blob(remote.repository, layer, LIMIT)
            except BentotoolError:
                continue
            if is_document(artifact_type, bento.digest, data):
                return bento, Document(data, artifact_type, node.descriptor.digest)
    raise NotFoundError(
        f"no {what} is attached to {remote}", hint=f"bentotool show {remote} lists what is; a pull brings the Bento"
    )


def _is(node: Node, artifact_type: str) -> bool:
    return isinstance(node.content, Manifest) and node.content.artifact_type == artifact_type


def _subject(node: Node) -> str:
    subject = node.content.subject
    return subject.digest if subject else ""
