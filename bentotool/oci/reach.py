"""What belongs to an artifact: the blobs that must stay as long as somebody names it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bentotool.errors import BentotoolError
from bentotool.oci.descriptor import MANIFEST_LIMIT, Index, Manifest, parse_json_object
from bentotool.oci.digest import check_digest, open_regular
from bentotool.oci.layers import layer_files
from bentotool.oci.layout import Layout

__all__ = ["FILES_OF", "NAMED_MODELS", "Reach", "bento_of", "reach", "subject_of"]

FILES_OF = "io.bentotool.files-of"
"""Annotation of a file view (see :mod:`bentotool.oci.fileview`): the digest of the model's own manifest."""
NAMED_MODELS = "application/vnd.bentotool.bento.config.v1+json"
"""The one config that names other artifacts of the store: its ``models`` are kept with the Bento."""
_KIND = "io.bentotool.kind"


@dataclass
class Reach:
    """The outcome of a walk.

    Attributes:
        blobs: digest and size in bytes of everything that belongs to the artifact and should be stored; -1 for
            a size that nothing states.
        manifests: digests of its manifests and indexes.
        virtual: digests of layers that are not stored because their files are; an image may list the same ones.
        damaged: digest and reason of manifests and configs that could not be read, whose content is thus unknown.
    """

    blobs: dict[str, int] = field(default_factory=dict)
    manifests: set[str] = field(default_factory=set)
    virtual: set[str] = field(default_factory=set)
    damaged: dict[str, str] = field(default_factory=dict)


def reach(layout: Layout, digest: str, found: Reach | None = None) -> Reach:
    """Walk from a manifest or index to all that belongs to it.

    Args:
        found: a walk to go on with; what it has seen is not read again.
    """
    found = found if found is not None else Reach()
    waiting = [digest]
    while waiting:
        current = waiting.pop()
        if current in found.manifests:
            continue
        found.manifests.add(current)
        found.blobs.setdefault(current, -1)
        try:
            waiting += _children(layout, current, found)
        except (BentotoolError, OSError) as error:
            found.damaged[current] = getattr(error, "message", str(error))
    for layer in found.virtual & found.blobs.keys():
        if not layout.has(layer):
            del found.blobs[layer]
    return found


def _children(layout: Layout, digest: str, found: Reach) -> Iterator[str]:
    data = layout.read(digest)
    found.blobs[digest] = len(data)
    body = parse_json_object(data, f"manifest {digest}")
    if "manifests" in body:
        # An index names platforms and artifacts that need not all have been pulled.
        return iter([each.digest for each in Index.from_bytes(data).manifests if layout.has(each.digest)])
    manifest = Manifest.from_bytes(data)
    for part in manifest.layers:
        files = layer_files(part)
        if files is None or layout.has(part.digest):
            found.blobs[part.digest] = part.size
        else:
            found.virtual.add(part.digest)
        found.blobs.update({file.sha256: file.size for file in files or ()})
    found.blobs[manifest.config.digest] = manifest.config.size
    if manifest.config.media_type != NAMED_MODELS:
        return iter(())
    config = manifest.config.digest
    try:
        return iter([_model_digest(item) for item in json.loads(layout.read(config))["models"]])
    except (BentotoolError, OSError) as error:
        reason = getattr(error, "message", str(error))
    except (ValueError, KeyError, TypeError, RecursionError):
        reason = "does not list a Bento's models"
    found.damaged[config] = reason  # the manifest itself is sound
    return iter(())


def _model_digest(item: Any) -> str:
    return check_digest(item["digest"])


def bento_of(index: Mapping[str, Any]) -> str | None:
    """The one Bento that an index lists, as the tag of a Bento points to; None for other indexes.

    Raises:
        VerificationError: when its digest is none.
    """
    entries = index.get("manifests")
    if not isinstance(entries, list):
        return None
    found = [each.get("digest") for each in entries if isinstance(each, dict) and _kind(each) == "bento"]
    return check_digest(found[0]) if len(found) == 1 else None


def _kind(entry: Mapping[str, Any]) -> object:
    notes = entry.get("annotations")
    return notes.get(_KIND) if isinstance(notes, dict) else None


def subject_of(layout: Layout, digest: str) -> str | None:
    """What a manifest stays with: its ``subject`` (a signature's), the model of a file view, the Bento of an index."""
    try:
        with open_regular(layout.blob_path(digest)) as file:
            data = file.read(1)
            if data != b"{":
                return None
            data += file.read(MANIFEST_LIMIT)
        body = parse_json_object(data, "a blob")
        subject, notes = body.get("subject"), body.get("annotations")
        if isinstance(notes, dict) and FILES_OF in notes:
            return check_digest(notes[FILES_OF])
        return check_digest(subject.get("digest")) if isinstance(subject, dict) else bento_of(body)
    except (BentotoolError, OSError):
        return None
