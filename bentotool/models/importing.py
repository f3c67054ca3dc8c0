"""From files on this disk to a model in the store. Nothing in a file is executed, loaded or believed."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bentotool.errors import NotFoundError, UnsafeError, UsageError
from bentotool.models.detect import describe_model
from bentotool.models.intake import take_files
from bentotool.models.manifest import ModelDetails
from bentotool.models.store import ModelStore, StoredModel
from bentotool.oci.refs import check_name, check_version
from bentotool.oci.tar import DEPTH_LIMIT, check_entry_name, check_entry_names

if TYPE_CHECKING:
    from bentotool.interfaces import ModelInfo, SourceFile
    from bentotool.plugins import Plugins

__all__ = ["check_given", "import_files", "import_path", "local_files", "name_for", "valid_name"]

_IGNORED = {
    *(".git", ".cache", "__pycache__", ".DS_Store", ".ipynb_checkpoints"),
    *(".venv", ".pytest_cache", ".mypy_cache", ".ruff_cache"),
}
_SECRET = {  # credentials, which a push would hand to others
    *(".env", ".netrc", ".pypirc", ".git-credentials", ".ssh", ".aws"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"),
}
_MAX_FILES = 50_000
Advance = Callable[[int], None]


def _nothing(amount: int) -> None:
    """A progress that nobody watches."""


def _walk(folder: Path, left_out: list[str]) -> Iterator[tuple[Path, str]]:
    """All files below a folder, by name; a stack of our own, because folders may be nested deeper than calls."""
    open_folders = [iter(_entries(folder))]
    names: list[str] = []
    while open_folders:
        entry = next(open_folders[-1], None)
        if entry is None:
            open_folders.pop()
            del names[-1:]
        elif _left_out(entry.name):
            left_out.append("/".join((*names, entry.name)) + ("/" if entry.is_dir(follow_symlinks=False) else ""))
        elif entry.is_dir(follow_symlinks=False):
            names.append(entry.name)
            if len(names) > DEPTH_LIMIT:
                check_entry_name("/".join(names))
            open_folders.append(iter(_entries(Path(entry.path))))
        else:
            yield Path(entry.path), "/".join((*names, entry.name))


def _left_out(name: str) -> bool:
    """Whether a file or folder of this name is not of the model: caches, and what keeps secrets."""
    return name in _IGNORED or _secret(name)


def _secret(name: str) -> bool:
    return name.lower() in _SECRET or name.lower().startswith(".env.")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda item: item.name)


def _hub_blobs(root: Path) -> Path | None:
    """Where the files of a revision in a hub's cache lie, to which its folder has links.

    The layout is that of huggingface_hub: ``models--ORG--REPO/snapshots/REVISION`` beside ``models--ORG--REPO/blobs``.

    Raises:
        UsageError: ``root`` is the folder of the whole repository, which holds each file of each revision.
    """
    repository = root.parent.parent
    if root.parent.name == "snapshots" and repository.name.startswith("models--"):
        return repository / "blobs"
    snapshots = root / "snapshots"
    if root.name.startswith("models--") and snapshots.is_dir():
        address = root.name.removeprefix("models--").replace("--", "/")
        revisions = sorted(each.name for each in snapshots.iterdir())
        example = snapshots / revisions[-1] if revisions else snapshots / "REVISION"
        raise UsageError(
            f"{root} is a repository in a hub's cache, not one revision of it",
            hint=f"give the folder of one, {example}, or hf://{address}",
        )
    return None


def _contained(path: Path, root: Path, name: str, blobs: Path | None) -> None:
    """Refuse what is neither a regular file nor a link to one inside ``root``, or to one of a hub's ``blobs``."""
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError):
        raise UnsafeError(f"{name} is a link that leads nowhere", hint="replace it by the file itself") from None
    if path.is_symlink() and blobs is not None and real.parent == blobs and stat.S_ISREG(mode):
        return
    if path.is_symlink() and not real.is_relative_to(root):
        raise UnsafeError(f"{name} is a link to {real}, outside the model", hint="replace it by the file itself")
    if path.is_symlink() and any(_secret(part) for part in real.relative_to(root).parts):
        inside = real.relative_to(root).as_posix()
        raise UnsafeError(f"{name} is a link to {inside}, which may keep secrets", hint="remove the link")
    if not stat.S_ISREG(mode):
        raise UnsafeError(f"{name} is not a regular file", hint="a model consists of regular files")


def local_files(source: Path, left_out: list[str] | None = None) -> list[SourceFile]:
    """The files of a model: one file, or all below a folder but caches and files that keep secrets, such as ``.env``.

    Args:
        left_out: gets the names of those; a folder's ends in ``/``.

    Raises:
        NotFoundError: when there is nothing.
        UnsafeError: for a link out of the folder, a device, or names that are not portable.
    """
    from bentotool.interfaces import SourceFile

    if source.is_file():
        check_entry_names([source.name])
        return [SourceFile(source.resolve(), source.name)]
    if source.exists() and not source.is_dir():
        raise UnsafeError(f"{source} is not a regular file or folder", hint="give the path of a model file or folder")
    if not source.is_dir():
        raise NotFoundError(f"{source} does not exist", hint="give the path of a model file or folder")
    root = source.resolve()
    files = []
    try:
        blobs = _hub_blobs(root)
        for path, name in _walk(root, [] if left_out is None else left_out):
            _contained(path, root, name, blobs)
            files.append(SourceFile(path.resolve(), name))
            if len(files) > _MAX_FILES:
                raise UsageError(
                    f"{source} holds more than {_MAX_FILES} files, and no manifest can list them",
                    hint="give the folder of one model, or pack its small files into one",
                )
    except OSError as error:
        raise UsageError(f"{str(error.filename or source)[:200]} cannot be read: {error.strerror}") from None
    if not files:
        raise UsageError(f"{source} holds no files", hint="give the path of a model file or folder")
    check_entry_names(file.name for file in files)
    return files


def _details(info: ModelInfo, labels: Mapping[str, str], metadata: Mapping[str, Any]) -> ModelDetails:
    def tensors(specs: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in specs]

    return ModelDetails(
        framework=info.framework,
        format=info.format,
        safety=info.safety,
        main_file=info.main_file,
        signature={"inputs": tensors(info.inputs), "outputs": tensors(info.outputs)},
        requirements=info.requirements,
        labels=dict(labels),
        metadata={**info.metadata, **metadata},
    )


def _check_text(labels: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
    """Refuse what could not be written into the manifest, before anything is copied."""
    for key in (*labels, *metadata):
        if not key or not key.isprintable():
            raise UsageError(f"{key[:80]!r} is not a name for a label or a fact", hint="use printable characters")
    try:
        json.dumps([dict(labels), dict(metadata)], ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"a label or fact cannot be written as JSON: {type(error).__name__}") from None


def check_given(
    plugins: Plugins,
    *,
    name: str | None = None,
    version: str | None = None,
    framework: str | None = None,
    labels: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Refuse what no import could use, before hours of fetching.

    Raises:
        UsageError: for a name, version, framework, label or fact that cannot be.
    """
    if name is not None:
        check_name(name)
    if version is not None:
        check_version(version)
    if framework is not None:
        plugins.framework(framework)
    _check_text(labels or {}, metadata or {})


def import_files(
    store: ModelStore,
    files: Sequence[SourceFile],
    *,
    name: str,
    plugins: Plugins,
    version: str | None = None,
    framework: str | None = None,
    labels: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    trust: bool = False,
    replace: bool = False,
    link: bool = False,
    owned: bool = False,
    advance: Advance = _nothing,
) -> StoredModel:
    """Detect, describe and store a model.

    Args:
        framework: skips the choice among frameworks, not the check of the files.
        trust: takes in a model of class ``pickle``.
        replace: whether another model under this name and version is replaced.
        link: whether the store shares the files themselves instead of copying them; they become read-only.
        owned: the files are scratch on the store's disk and become the blobs.
        advance: told the bytes of each piece copied.

    Raises:
        UsageError: when no installed framework knows the files, they are damaged, or are too many to list.
        UnsafeError: when loading the model would run code it carries, and ``trust`` is False.
        ConflictError: when the version stands for another model and ``replace`` is False.
    """
    name = check_name(name)
    check_given(plugins, version=version, labels=labels, metadata=metadata)
    info = describe_model(files, plugins, framework, trust=trust)
    taken = take_files(store.layout, name, files, advance, link=link, owned=owned)
    details = _details(info, labels or {}, metadata or {})
    return store.add(name, version, taken.files, details, replace=replace, layers=taken.layers)


def import_path(store: ModelStore, source: Path, *, name: str | None = None, **options: Any) -> StoredModel:
    """Import a file or folder of this disk; options as for :func:`import_files`.

    Args:
        name: the name of the file or folder, without its suffix, when absent.
    """
    files = local_files(source)
    return import_files(store, files, name=name or name_for(source), **options)


def name_for(source: Path) -> str:
    """A valid model name made from the name of a file (without its suffix) or folder, as ``hf://`` would name it."""
    resolved = source.resolve()
    repository = resolved.parent.parent.name
    if resolved.parent.name == "snapshots" and repository.startswith("models--"):  # a revision in a hub's cache
        return valid_name(repository.removeprefix("models--"))
    given = Path(os.path.abspath(source))  # as the user calls it: a link in a hub's cache leads to a digest
    return valid_name(given.stem if resolved.is_file() else given.name)


def valid_name(text: str) -> str:
    """A valid model name as near to ``text`` as can be."""
    cleaned = "".join(char if char.isascii() and (char.isalnum() or char in "-._") else "-" for char in text.lower())
    return cleaned.strip("-._")[:63].strip("-._") or "model"
