"""Which lock of its own a project has, and whether it still belongs to the project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from bentotool.build.configfile import ProjectConfig
from bentotool.build.contain import check_relative
from bentotool.build.pylock import read_pylock
from bentotool.build.requirement_line import normal_name
from bentotool.build.tomlfile import table_at, text_at, texts_at
from bentotool.build.userlock import UserLock
from bentotool.build.uvlock import outdated, read_uv_lock, uv_lock_document
from bentotool.build.uvsettings import extra_lines, group_lines
from bentotool.errors import UsageError

__all__ = ["choose_lock"]


def choose_lock(
    project: ProjectConfig,
    document: Mapping[str, Any],
    environment: dict[str, str],
    locked: bool,
    note: Callable[[str], None],
) -> UserLock | None:
    """The project's own lock for the target, or None where it has none.

    ``python.lock_file`` names it. Without that key ``uv.lock``, then ``pylock.toml`` is taken where the dependencies of
    ``pyproject.toml`` count, or where the configuration names no packages.

    Args:
        document: ``pyproject.toml``.

    Raises:
        ConfigError, UnsafeError, NotFoundError: the lock cannot be taken.
        UsageError: ``locked``, and it is out of date.
    """
    python = project.config.python
    file = _file(project, document)
    if file is None:
        return None
    where = ("pyproject.toml",)
    if not PurePosixPath(file).name.startswith("uv."):
        found = read_pylock(project.project, file, environment, extras=python.extras, groups=python.groups)
    else:
        meta = table_at(document, "project", where)
        name = normal_name(text_at(meta, "name", (*where, "project")))
        lock = uv_lock_document(project.project, file)
        declared = {"": texts_at(meta, "dependencies", (*where, "project"))}
        declared |= {normal_name(item): extra_lines(meta, item, (*where, "project")) for item in python.extras}
        groups = {item: tuple(group_lines(document, item, where)) for item in python.groups}
        changed = outdated(lock, file, name, declared, groups, environment)
        if changed and locked:
            raise UsageError(
                f"{file} is out of date and --locked was given: {changed} differs from pyproject.toml", hint="uv lock"
            )
        if changed:
            note(f"{file} is out of date: {changed} differs from pyproject.toml; uv lock brings it up to date")
        found = read_uv_lock(project.project, file, lock, name, environment, extras=python.extras, groups=python.groups)
    return found


def _file(project: ProjectConfig, document: Mapping[str, Any]) -> str | None:
    python = project.config.python
    where = (project.origin or "defaults", "python", "lock_file")
    if python.lock_file is not None:
        return check_relative(python.lock_file, where) if python.lock_file != "none" else None
    if not project.origin.endswith("pyproject.toml") and (python.packages or python.requirements_txt):
        return None
    if (project.project / "uv.lock").is_file() and "name" in table_at(document, "project", ("pyproject.toml",)):
        return "uv.lock"
    return "pylock.toml" if (project.project / "pylock.toml").is_file() else None
