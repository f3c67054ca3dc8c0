"""Virtual layers: tar archives that are described, not stored.

A layer with the annotation ``io.bentotool.files`` (a JSON list of ``{"path", "size", "sha256"}``) consists of those
files in that order; its bytes are made from theirs when somebody reads it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from bentotool.errors import VerificationError
from bentotool.oci.descriptor import Descriptor
from bentotool.oci.digest import check_digest
from bentotool.oci.tar import TarEntry, check_entry_names, tar_size

__all__ = ["FILES_ANNOTATION", "LayerFile", "layer_files"]

FILES_ANNOTATION = "io.bentotool.files"


@dataclass(frozen=True)
class LayerFile:
    """One file inside a virtual layer: its name in the archive, its size in bytes, the digest of its raw bytes."""

    path: str
    size: int
    sha256: str

    @property
    def entry(self) -> TarEntry:
        return TarEntry(self.path, self.size)


def _layer_file(item: object) -> LayerFile:
    if not isinstance(item, dict):
        raise VerificationError(f"annotation {FILES_ANNOTATION} must list objects")
    path, size = item.get("path"), item.get("size")
    if not isinstance(path, str) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise VerificationError(f"annotation {FILES_ANNOTATION} has a damaged entry")
    return LayerFile(path, size, check_digest(f"sha256:{item.get('sha256')}"))


def layer_files(descriptor: Descriptor) -> tuple[LayerFile, ...] | None:
    """The files of a virtual layer in archive order, or None for an ordinary blob.

    Raises:
        VerificationError: when the annotation is damaged or contradicts the descriptor's size.
        UnsafeError: when a file name could not be written safely on every platform.
    """
    text = descriptor.annotations.get(FILES_ANNOTATION)
    if text is None:
        return None
    try:
        items = json.loads(text)
    except (ValueError, RecursionError):
        raise VerificationError(f"annotation {FILES_ANNOTATION} of {descriptor.digest} is not JSON") from None
    if not isinstance(items, list) or not items:
        raise VerificationError(f"annotation {FILES_ANNOTATION} of {descriptor.digest} is not a list of files")
    files = tuple(_layer_file(item) for item in items)
    check_entry_names(file.path for file in files)
    if tar_size(file.entry for file in files) != descriptor.size:
        raise VerificationError(f"the files of layer {descriptor.digest} do not add up to its size")
    return files
