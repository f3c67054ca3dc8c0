"""Models that come in an OCI archive: which are let in, and under which name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bentotool.errors import UnsafeError, UsageError, VerificationError
from bentotool.models.manifest import ARTIFACT_TYPE
from bentotool.models.recheck import recheck_safety, require_stated_trust
from bentotool.oci.archive import KIND_NAME, REF_NAME
from bentotool.oci.attached import check_referrer, keep_index, keep_referrer
from bentotool.oci.descriptor import Manifest
from bentotool.oci.refs import check_name, check_version, split_reference
from bentotool.oci.unarchive import open_archive

if TYPE_CHECKING:
    from bentotool.models.store import ModelStore, StoredModel
    from bentotool.oci.descriptor import Descriptor
    from bentotool.oci.layout import Layout
    from bentotool.oci.unarchive import Archive

__all__ = [
    "adopt_archived",
    "archived_name",
    "check_attached",
    "check_kind",
    "check_taken",
    "check_trust",
    "import_archive",
    "keep_attached",
]


_WHAT = {"model": "a model", "bento": "a Bento", "files": "the files of a model"}


def check_kind(archive: Archive, kind: str) -> None:
    """Refuse an archive of another kind than ``"model"`` or ``"bento"``.

    Raises:
        VerificationError: saying which command takes it.
    """
    found = archive.roots[0].annotations.get(KIND_NAME, "")
    if found != kind:
        other = {"model": "model import-archive ", "bento": "import ", "files": "model import oci:"}.get(found)
        raise VerificationError(
            f"{archive.name} holds {_WHAT.get(found, 'something unknown')}, not {_WHAT[kind]}",
            hint=f"use: bentotool {other}{archive.name}" if other else None,
        )


def check_trust(archive: Archive, trust: bool) -> None:
    """Refuse pickles, unless the user trusts their origin.

    What a model says of itself decides here; :func:`check_taken` looks at its bytes.

    Raises:
        UnsafeError: naming the model.
    """
    for root, manifest in zip(archive.roots, archive.manifests, strict=True):
        if isinstance(manifest, Manifest) and manifest.artifact_type == ARTIFACT_TYPE:
            require_stated_trust(manifest, root.annotations.get(REF_NAME, root.digest), trust=trust)


def check_taken(archive: Archive, store: ModelStore, trust: bool) -> list[str]:
    """Refuse models that are more dangerous than they say, once their content is in the store and before it is named.

    Returns:
        notes for the user, of models that are and are taken all the same.

    Raises:
        UnsafeError: naming the model.
    """
    notes = []
    for root, manifest in zip(archive.roots, archive.manifests, strict=True):
        if isinstance(manifest, Manifest) and manifest.artifact_type == ARTIFACT_TYPE:
            title = root.annotations.get(REF_NAME, root.digest)
            notes.append(recheck_safety(store.layout, manifest, title, trust=trust, digest=root.digest))
    return [note for note in notes if note]


def check_attached(archive: Archive) -> None:
    """Refuse an archive with signatures and the like of something that it does not hold.

    Raises:
        VerificationError: naming the first.
    """
    held = {root.digest for root in archive.roots}
    for root in archive.roots:
        if root.annotations.get(KIND_NAME) == "referrer":
            found = check_referrer(archive.document(root))
            if found.subject not in held:
                raise VerificationError(
                    f"{archive.name} has {root.digest}, but not {found.subject}, which that refers to"
                )


def keep_attached(archive: Archive, layout: Layout) -> int:
    """Attach what came with an archive, once its content is in the store.

    Returns:
        how many signatures, SBOMs and the like there are.
    """
    count = 0
    for root in archive.roots:
        kind = root.annotations.get(KIND_NAME)
        if kind == "index":
            keep_index(layout, archive.document(root))
        elif kind == "referrer":
            keep_referrer(layout, archive.document(root))
            count += 1
    return count


def archived_name(root: Descriptor) -> tuple[str, str]:
    """Name and version that an archive gives to what it holds.

    Raises:
        VerificationError: when there are none, or they are not valid.
    """
    try:
        name, version, digest = split_reference(root.annotations.get(REF_NAME, ""))
        if version and not digest:
            return name, check_version(version)
    except (UsageError, UnsafeError) as error:
        raise VerificationError(f"the archive names {root.digest} wrongly: {error.message}") from None
    raise VerificationError(f"the archive gives {root.digest} no name and version")


def adopt_archived(
    store: ModelStore, root: Descriptor, *, name: str | None = None, version: str | None = None, replace: bool = False
) -> StoredModel:
    """Name a model whose content an archive brought."""
    own_name, own_version = archived_name(root)
    return store.adopt(name or own_name, version or own_version, root.digest, replace=replace)


def import_archive(
    store: ModelStore, source: Path, *, name: str | None = None, version: str | None = None, trust: bool = False
) -> StoredModel:
    """Take in a model that was exported.

    Args:
        source: the archive, plain or compressed.
        name: in place of its own; ``version`` likewise.
        trust: takes in a model of class ``pickle``.

    Raises:
        VerificationError: when it is damaged, or holds something else than a model.
        UnsafeError: when it is a pickle and ``trust`` is False.
        ConflictError: when the version stands for another model.
    """
    if name is not None:
        check_name(name)
    if version is not None:
        check_version(version)
    with open_archive(source, store.layout) as archive:
        check_kind(archive, "model")
        check_trust(archive, trust)
        check_attached(archive)
        archive.take(store.layout)
        check_taken(archive, store, trust)
        keep_attached(archive, store.layout)
        return adopt_archived(store, archive.roots[0], name=name, version=version)
