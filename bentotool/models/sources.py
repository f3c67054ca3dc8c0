"""Where models come from: this disk, an HTTPS address, or whatever a plugin's scheme stands for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bentotool.errors import UsageError
from bentotool.interfaces import SourceFile, SourceRequest
from bentotool.models.importing import local_files, name_for
from bentotool.models.web import download, file_name, part_key
from bentotool.oci.digest import check_digest
from bentotool.oci.layout import Layout
from bentotool.oci.tar import check_entry_names

if TYPE_CHECKING:
    from bentotool.plugins import Plugins
    from bentotool.protocols import Source

__all__ = ["DEFAULT_MAX_BYTES", "Fetched", "fetch"]

DEFAULT_MAX_BYTES = 200 << 30
"""Most bytes a source may bring unless the user says otherwise: above the largest models, below most disks."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Fetched:
    """Files of a model on this disk, and a name for it.

    Attributes:
        owned: the files are the import's own: they become the blobs, without a second copy.
        linkable: the files lie in a cache that nothing rewrites, on the store's disk: they can be shared.
    """

    files: Sequence[SourceFile]
    name: str
    owned: bool
    linkable: bool = False


class _Web:
    """A single file behind an ``https://`` address; ``http://`` on this machine only."""

    def name(self, uri: str) -> str:
        return name_for(Path(PurePosixPath(file_name(uri)).stem))

    def fetch(self, request: SourceRequest) -> Sequence[SourceFile]:
        name = file_name(request.uri)
        target = request.folder / name
        download(request.uri, target, max_bytes=request.max_bytes, checksum=request.checksum, advance=request.advance)
        return [SourceFile(target, name)]


def _source(scheme: str, plugins: Plugins) -> Source:
    if scheme in ("https", "http"):
        return _Web()
    declared = plugins.sources()
    if scheme not in declared:
        known = ", ".join(sorted({"https", *declared}))
        raise UsageError(f"nothing here fetches {scheme}:// models", hint=f"known: {known}; others come with plugins")
    return plugins.source(declared[scheme])


def _inside(files: Sequence[SourceFile], folder: Path) -> bool:
    return all(file.path.is_relative_to(folder) and not file.path.is_symlink() for file in files)


@contextmanager
def fetch(
    source: str,
    layout: Layout,
    plugins: Plugins,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    checksum: str | None = None,
    advance: Callable[[int], None] = lambda amount: None,
) -> Iterator[Fetched]:
    """Bring the files of a model to this disk for the length of a block.

    A path is used where it lies. Anything else is fetched into the store's temporary folder, and removed after the
    block. What a broken connection left there stays, until garbage is collected: the same command goes on with it.

    Raises:
        UsageError: no source answers to the scheme.
        BentotoolError: what the source says.
    """
    if checksum is not None:
        check_digest(checksum)
    found = _SCHEME.match(source)
    if not found:
        path = Path(source)
        yield Fetched(local_files(path), name_for(path), owned=False)
        return
    if urlsplit(source).password is not None:
        raise UsageError("the address holds a password", hint="leave it out: it would end in the shell's history")
    implementation = _source(found[1].lower(), plugins)
    folder = layout.temporary() / f"fetch-{part_key(source)}"
    folder.mkdir(mode=0o700, exist_ok=True)
    try:
        files = implementation.fetch(SourceRequest(source, folder, max_bytes, checksum, advance))
        check_entry_names(file.name for file in files)
    except BaseException:
        with suppress(OSError):  # not empty: there is a part to go on from
            folder.rmdir()
        raise
    owned = _inside(files, folder)
    linkable = not owned and all(file.path.stat().st_dev == folder.stat().st_dev for file in files)
    try:
        yield Fetched(files, implementation.name(source), owned, linkable)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
