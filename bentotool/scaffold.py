"""Project templates: where they lie, and a new project made from one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bentotool.errors import ConflictError, NotFoundError, PluginError, UsageError

__all__ = ["DEFAULT_TEMPLATE", "Template", "available_templates", "create_project", "is_untouched", "template_root"]

DEFAULT_TEMPLATE = "quickstart"
_NOT_COPIED = frozenset({"__pycache__", ".pytest_cache", ".DS_Store"})


@dataclass(frozen=True)
class Template:
    """A folder that is copied as it is.

    Args:
        name: what the user types.
        summary: one line.
        path: the folder.
    """

    name: str
    summary: str
    path: Path


class _Declared(Protocol):
    """A plugin's template: the folder ``path`` inside the import package ``package``."""

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def package(self) -> str: ...
    @property
    def path(self) -> str: ...


def template_root(package: Path | None = None) -> Path:
    """The folder of our own templates.

    A wheel carries them inside the package; an editable install has no such copy and uses the checkout's folder.

    Args:
        package: folder of the ``bentotool`` package; default: the one running.

    Raises:
        NotFoundError: there are none, so the installation is broken.
    """
    package = package or Path(__file__).parent
    for candidate in (package / "_templates", package.parent / "templates"):
        if (candidate / DEFAULT_TEMPLATE).is_dir():
            return candidate
    raise NotFoundError(f"no templates beside {package}", hint="pip install --force-reinstall bentotool")


def available_templates(declared: Mapping[str, _Declared] | None = None) -> dict[str, Template]:
    """Our own templates and those declared by plugins, by name; a plugin never replaces one of ours."""
    found = {
        folder.name: Template(folder.name, _summary(folder), folder)
        for folder in sorted(template_root().iterdir())
        if folder.is_dir() and folder.name not in _NOT_COPIED
    }
    for name, declaration in sorted((declared or {}).items()):
        if name not in found:
            found[name] = Template(name, declaration.summary, _package_folder(declaration))
    return found


def _summary(folder: Path) -> str:
    """The first line of prose in the template's README."""
    lines = (line.strip() for line in (folder / "README.md").read_text(encoding="utf-8").splitlines())
    return next((line for line in lines if line and not line.startswith("#")), folder.name)


def _package_folder(declaration: _Declared) -> Path:
    try:
        spec = importlib.util.find_spec(declaration.package)
    except ImportError:
        spec = None
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        folder = Path(place) / declaration.path
        if folder.is_dir():
            return folder
    where = f"package {declaration.package!r} has no folder {declaration.path!r}"
    raise PluginError(f"template {declaration.name!r}: {where}")


def create_project(template: Template, directory: Path) -> list[Path]:
    """Copy ``template`` to ``directory``; no file that exists is ever touched.

    Returns:
        The files made, relative to ``directory``.

    Raises:
        UsageError: ``directory`` is a file.
        ConflictError: a file of the template is there already. Nothing has been written then.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{str(directory)!r} is a file", hint="name a folder")
    sources = {source.relative_to(template.path): source for source in _files(template.path)}
    taken = sorted(str(name) for name in sources if (directory / name).exists())
    if taken:
        what = f"{len(taken)} files would be overwritten, the first is" if len(taken) > 1 else "this would overwrite"
        raise ConflictError(f"{what} {str(directory / taken[0])!r}", hint="name another folder")
    made: list[Path] = []
    try:
        for name, source in sources.items():
            _make_parents(directory / name, made)
            with (directory / name).open("xb") as target:
                made.append(directory / name)
                target.write(source.read_bytes())
    except BaseException as error:
        _undo(made)
        if isinstance(error, OSError) and error.filename is None:  # of a write that fails: a full disk
            error.filename = str(directory)
        raise
    return sorted(sources)


def is_untouched(template: Template, directory: Path) -> bool:
    """Whether ``directory`` holds every file of the template as it is there; other files do not matter."""
    sources = {source.relative_to(template.path): source for source in _files(template.path)}
    return all(
        (directory / name).is_file() and (directory / name).read_bytes() == source.read_bytes()
        for name, source in sources.items()
    )


def _files(folder: Path) -> Iterator[Path]:
    for item in sorted(folder.iterdir()):
        if item.name in _NOT_COPIED or item.is_symlink():
            continue
        if item.is_dir():
            yield from _files(item)
        elif item.suffix != ".pyc":
            yield item


def _make_parents(path: Path, made: list[Path]) -> None:
    """Make the folders above ``path`` and note each new one, so that a failure can take them away again."""
    missing = [parent for parent in path.parents if not parent.exists()]
    for folder in reversed(missing):
        folder.mkdir()
        made.append(folder)


def _undo(made: list[Path]) -> None:
    for path in reversed(made):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)
