"""Where models come from: this disk, an HTTPS address, a registry, or whatever a plugin's scheme stands for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bentotool.errors import PluginError, UnsafeError, UsageError, VerificationError
from bentotool.interfaces import SourceFile, SourceModel, SourceRequest
from bentotool.models.choice import EVERYTHING, Choice
from bentotool.models.importing import import_files, local_files, name_for, valid_name
from bentotool.models.reader import asked_of
from bentotool.models.web import download, file_name, part_key, public_address
from bentotool.oci.blobs import DiskFullError, without_room
from bentotool.oci.digest import check_digest, hash_file
from bentotool.oci.layout import Layout
from bentotool.oci.partial import claim_folder
from bentotool.oci.tar import check_entry_names
from bentotool.sdk.wording import kind_of

if TYPE_CHECKING:
    from bentotool.models.oci_source import RegistryMaker
    from bentotool.models.store import ModelStore, StoredModel
    from bentotool.oci.tls import Tls
    from bentotool.plugins import Plugins
    from bentotool.protocols import Source

__all__ = ["DEFAULT_MAX_BYTES", "Fetched", "fetch", "import_fetched"]

DEFAULT_MAX_BYTES = 200 << 30
"""Most bytes a source may bring unless the user says otherwise: above the largest models, below most disks."""
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):(//)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Fetched:
    """A model on this disk that is not in the store yet.

    Attributes:
        owned: the files are the import's own: they become the blobs, without a second copy.
        linkable: the files lie in a cache that nothing rewrites, on the store's disk: they can be shared.
        left_out: names in a local folder that are not taken: caches, and what may keep secrets.
    """

    model: SourceModel
    owned: bool = False
    linkable: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.path.stat().st_size for file in self.model.files)


class _Web:
    """A single file behind an ``https://`` address; ``http://`` on this machine only."""

    def __init__(self, tls: Tls | None) -> None:
        self._tls = tls

    def fetch(self, request: SourceRequest) -> SourceModel:
        name = file_name(request.uri)
        target = request.folder / name
        download(
            request.uri,
            target,
            max_bytes=request.max_bytes,
            checksum=request.checksum,
            advance=request.advance,
            expect=request.expect,
            tls=self._tls,
        )
        with target.open("rb") as file:
            start = file.read(512).lstrip().lower()
        if start.startswith((b"<!doctype html", b"<html")):
            target.unlink()
            hint = "give the address of the file itself; for a repository of the hub: hf://ORG/REPO"
            raise UsageError(f"{public_address(request.uri)} is a web page, not a model", hint=hint)
        origin = {"source": public_address(request.uri)}
        return SourceModel((SourceFile(target, name),), PurePosixPath(name).stem, metadata=origin)


def _source(
    text: str, plugins: Plugins, open_registry: RegistryMaker | None, jobs: int, tls: Tls | None
) -> Source | None:
    """Who fetches ``text``; None when it is an ordinary path of this disk."""
    found = _SCHEME.match(text)
    scheme = found[1].lower() if found else ""
    if found and found[2] and scheme in ("https", "http"):
        return _Web(tls)
    if found and scheme == "oci" and (found[2] or not Path(text).exists()):
        from bentotool.models.oci_source import OciSource

        return OciSource(plugins, open_registry, jobs)
    declared = plugins.sources()
    if scheme in declared and ((found and found[2]) or not Path(text).exists()):
        return plugins.source(declared[scheme])
    if found and found[2]:
        known = ", ".join(sorted({"https", "oci", *declared}))
        raise UsageError(f"nothing here fetches {scheme}:// models", hint=f"known: {known}; others come with plugins")
    packages = (decl for decl in declared.values() if text.lower().endswith(decl.suffixes or ("\0",)))
    package = next(packages, None) if Path(text).is_file() else None
    return plugins.source(package) if package else None


@contextmanager
def fetch(
    source: str,
    layout: Layout,
    plugins: Plugins,
    *,
    max_bytes: int = DEFAULT_MAX_BYTES,
    checksum: str | None = None,
    open_registry: RegistryMaker | None = None,
    jobs: int = 4,
    tls: Tls | None = None,
    choice: Choice = EVERYTHING,
    advance: Callable[[int], None] = lambda amount: None,
    expect: Callable[[int], None] = lambda total: None,
) -> Iterator[Fetched]:
    """Bring the files of a model to this disk for the length of a block.

    A path is used where it lies. Anything else is fetched into the store's temporary folder, and removed after the
    block. What a broken connection left there stays, until garbage is collected: the same command goes on with it.

    Args:
        max_bytes: the most that is fetched; one that is not the default holds for a path as well.
        checksum: ``sha256:<hex>`` that a single file, or the manifest of a model in a registry, must have.
        open_registry: makes the client for the registry of an ``oci://`` source.
        jobs: layers fetched from it at once.
        tls: how certificates of an ``https://`` source are judged, and which one is shown to it.
        choice: which files to take.
        advance: told the bytes of each piece fetched.
        expect: told how many bytes there will be in all, where the source says so.

    Raises:
        UsageError: no source answers to the scheme; a checksum for a folder.
        UnsafeError: larger than ``max_bytes``.
        VerificationError: another checksum.
        BentotoolError: what the source says.
    """
    if not source:
        raise UsageError("SOURCE is empty", hint="give the path of a model file or folder; . is the current folder")
    if checksum is not None:
        try:
            check_digest(checksum)
        except VerificationError as error:  # of the option, not of the file
            raise UsageError(f"checksum {error.message}", hint=error.hint) from None
    if "://" in source and urlsplit(source).password is not None:
        raise UsageError("the address holds a password", hint="leave it out: it would end in the shell's history")
    implementation = _source(source, plugins, open_registry, jobs, tls)
    if implementation is None:
        path = Path(source)
        _check_local(path, max_bytes, checksum)
        left_out: list[str] = []
        model = SourceModel(tuple(local_files(path, left_out)), name_for(path))
        yield Fetched(choice.of(model), left_out=tuple(left_out))
        return
    whole = False
    seen = _Seen(advance, expect)
    with claim_folder(layout.temporary(), f"fetch-{part_key(source)}") as folder:
        try:
            request = SourceRequest(source, folder, max_bytes, checksum, seen.advance, choice, seen.expect)
            try:
                model = implementation.fetch(request)
            except DiskFullError as error:
                whole = True  # a full disk needs the room
                raise without_room(error, seen.done, seen.total, "model", layout.root) from None
            if not isinstance(model, SourceModel):
                raise PluginError(f"the source of {source} answers with {kind_of(model)}, not a SourceModel")
            check_entry_names(file.name for file in model.files)
            whole = True
            yield _fetched(_chosen(model, choice), folder)
        finally:
            if whole or not _has_parts(folder):
                shutil.rmtree(folder, ignore_errors=True)


class _Seen:
    """Notes what is told of a transfer, for when the disk is full."""

    def __init__(self, advance: Callable[[int], None], expect: Callable[[int], None]) -> None:
        self._advance, self._expect = advance, expect
        self.done = self.total = 0

    def advance(self, amount: int) -> None:
        self.done += amount
        self._advance(amount)

    def expect(self, total: int) -> None:
        self.total = total
        self._expect(total)


def _check_local(path: Path, max_bytes: int, checksum: str | None) -> None:
    """What the user asks of what is fetched holds for what lies here too; the limit only when there is one of theirs.

    Raises:
        UnsafeError: it is larger.
        UsageError: a checksum for a folder.
        VerificationError: the file has another checksum.
    """
    if max_bytes != DEFAULT_MAX_BYTES and sum(file.path.stat().st_size for file in local_files(path)) > max_bytes:
        hint = "raise the limit with --max-size if that is right"
        raise UnsafeError(f"{path} is larger than {max_bytes} bytes", hint=hint)
    if checksum is None:
        return
    if path.is_dir():
        raise UsageError("a folder has many files, so --checksum cannot be checked", hint="leave it out")
    if path.is_file():
        try:
            actual, _ = hash_file(path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror}") from None
        if actual != checksum:
            raise VerificationError(f"{path} has {actual}, not {checksum}", hint="ask its publisher which one is right")


def _fetched(model: SourceModel, folder: Path) -> Fetched:
    owned = all(file.path.is_relative_to(folder) and not file.path.is_symlink() for file in model.files)
    linkable = (
        model.shared and not owned and all(file.path.stat().st_dev == folder.stat().st_dev for file in model.files)
    )
    return Fetched(model, owned, linkable)


def _chosen(model: SourceModel, choice: Choice) -> SourceModel:
    """The wanted part of a model; what was asked for then names the choice as well."""
    part = choice.of(model)
    if choice.everything or "source_request" not in part.metadata:
        return part
    asked = asked_of(str(part.metadata["source_request"]), choice.include, choice.exclude)
    return replace(part, metadata={**part.metadata, "source_request": asked})


def _has_parts(folder: Path) -> bool:
    """Whether there is something that the same command can go on from."""
    return any(path.is_file() and path.stat().st_size for path in folder.rglob("*"))


def import_fetched(
    store: ModelStore,
    fetched: Fetched,
    *,
    plugins: Plugins,
    name: str | None = None,
    version: str | None = None,
    framework: str | None = None,
    labels: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    link: bool = False,
    **options: Any,
) -> StoredModel:
    """Store what :func:`fetch` brought; what the caller says goes before what the source says.

    Args:
        options: the others of :func:`bentotool.models.importing.import_files`.
    """
    model = fetched.model
    if framework is None and model.framework in plugins.frameworks():
        framework = model.framework
    return import_files(
        store,
        model.files,
        name=valid_name(model.name) if name is None else name,
        plugins=plugins,
        version=version or model.version,
        framework=framework,
        labels={**model.labels, **(labels or {})},
        metadata={**model.metadata, **(metadata or {})},
        link=link or fetched.linkable,
        owned=fetched.owned,
        **options,
    )
