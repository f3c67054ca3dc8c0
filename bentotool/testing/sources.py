"""What a source must do, checked against the plugin as it is installed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from bentotool.errors import BentotoolError
from bentotool.interfaces import SourceModel, SourceRequest
from bentotool.oci.digest import hash_file
from bentotool.oci.tar import check_entry_names
from bentotool.plugins import load_plugins
from bentotool.protocols import Source
from bentotool.sdk.wording import kind_of
from bentotool.testing.contract import ContractError

__all__ = ["check_source"]

_PLENTY = 200 << 30
_WRONG = f"sha256:{0:064}"


def check_source(source: str, uri: str, *, scratch: Path) -> SourceModel:
    """Check a source plugin with a model that is there, of at least one byte.

    It must bring files under portable names, in the folder it was given or as plain files of a cache; keep to
    ``max_bytes``; honour a checksum or refuse it; and tell ``advance`` of bytes from one thread at a time.

    Args:
        source: the name that it is declared by.
        uri: of the model.
        scratch: a folder to write into; made if it is not there.

    Returns:
        what the source brought; the files lie below ``scratch``, or in its cache.

    Raises:
        ContractError: it does something else.
    """
    plugins = load_plugins(warn=lambda _: None)
    declared = next((decl for decl in plugins.sources().values() if decl.name == source), None)
    if declared is None:
        known = ", ".join(sorted({decl.name for decl in plugins.sources().values()})) or "none"
        raise ContractError(f"no source {source!r} is declared (found: {known})")
    implementation = plugins.source(declared)
    model = _fetch(implementation, uri, scratch / "first")
    total = sum(file.path.stat().st_size for file in model.files)
    if not total:
        raise ContractError(f"{uri} has no bytes, so nothing can be checked with it")
    _refused(implementation, uri, scratch / "limit", "more than max_bytes", max_bytes=total - 1)
    if sum(path.stat().st_size for path in (scratch / "limit").rglob("*") if path.is_file()) >= total:
        raise ContractError(f"{source} refuses what is more than max_bytes after it has fetched it")
    _refused(implementation, uri, scratch / "wrong", "a file with another checksum", checksum=_WRONG)
    if len(model.files) == 1:
        right, _ = hash_file(model.files[0].path)
        try:
            _fetch(implementation, uri, scratch / "right", checksum=right)
        except BentotoolError as error:  # a source that takes no checksum says so
            if error.exit_status != 2:
                raise ContractError(f"{source} refuses the right checksum: {error}") from error
    return model


class _OneAtATime:
    """An ``advance`` that notices a second caller."""

    def __init__(self) -> None:
        self._busy = threading.Lock()
        self.wrong = ""

    def __call__(self, amount: int) -> None:
        if not self._busy.acquire(blocking=False):
            self.wrong = "two threads call advance at once"
            return
        try:
            if not isinstance(amount, int) or amount < 0:
                self.wrong = f"advance is told {amount!r}, no number of bytes"
        finally:
            self._busy.release()


def _fetch(
    source: Source, uri: str, folder: Path, *, max_bytes: int = _PLENTY, checksum: str | None = None
) -> SourceModel:
    folder.mkdir(parents=True)
    advance = _OneAtATime()
    model = source.fetch(SourceRequest(uri, folder, max_bytes, checksum, advance))
    if not isinstance(model, SourceModel):
        raise ContractError(f"fetch answers with {kind_of(model)}, not a SourceModel")
    if advance.wrong:
        raise ContractError(advance.wrong)
    if not model.files:
        raise ContractError("fetch answers with no files")
    _check(lambda: check_entry_names(file.name for file in model.files))
    for file in model.files:
        inside = file.path.is_relative_to(folder) and file.path.resolve().is_relative_to(folder.resolve())
        if file.path.is_symlink() or not file.path.is_file() or (file.path.is_relative_to(folder) and not inside):
            raise ContractError(f"{file.path} is no plain file: a link could lead out of the folder")
    return model


def _check(names: Callable[[], None]) -> None:
    try:
        names()
    except BentotoolError as error:
        raise ContractError(f"a name is not portable: {error}") from error


def _refused(
    source: Source, uri: str, folder: Path, what: str, *, max_bytes: int = _PLENTY, checksum: str | None = None
) -> None:
    try:
        _fetch(source, uri, folder, max_bytes=max_bytes, checksum=checksum)
    except BentotoolError as error:
        if "\n" in error.message:
            raise ContractError(f"{what} is refused with an error of several lines: {error.message!r}") from error
        return
    raise ContractError(f"{what} is taken")
