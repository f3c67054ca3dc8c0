"""What a project says to uv and in ``[project]``: sources, indexes, constraints, extras and groups. Read, never run.

Format: ``[tool.uv]`` of uv's project settings; ``[dependency-groups]`` of PEP 735; ``[project]`` of PEP 621.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bentotool.build.contain import check_relative
from bentotool.build.indexes import Index, check_index, parse_index
from bentotool.build.localsource import LocalSource, git_source, package_name, path_source
from bentotool.build.moment import moment
from bentotool.build.requirement_line import check_requirement, no_credentials, normal_name
from bentotool.build.schema import Where, boolean
from bentotool.build.target import marker_holds
from bentotool.build.tomlfile import table_at, tables_at, text_at, texts_at
from bentotool.errors import ConfigError

__all__ = ["Source", "UvSettings", "chosen_index", "extra_lines", "find_source", "group_lines", "read_settings"]

_GROUP_DEPTH = 16


@dataclass(frozen=True)
class UvSettings:
    """What counts for a resolution.

    Args:
        where: file and table, for messages.
        folder: of the file, relative to the project; paths in it start there.
        sources: the raw ``[tool.uv.sources]`` tables by normalised package name.
        members: patterns of the workspace's folders.
    """

    where: Where = ("pyproject.toml", "tool.uv")
    folder: str = "."
    sources: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    indexes: tuple[Index, ...] = ()
    constraints: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    exclude_newer: str = ""
    prerelease: str = ""
    members: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False


@dataclass(frozen=True)
class Source:
    """Where one package comes from: an archive, or a package to be packed."""

    url: str = ""
    local: LocalSource | None = None


def read_settings(document: Mapping[str, Any], where: Where, folder: str = ".") -> UvSettings:
    """The settings in a document that has a ``[tool.uv]`` table, or none.

    Raises:
        ConfigError, UnsafeError: a wrong value.
    """
    raw = table_at(table_at(document, "tool", where), "uv", (*where, "tool"))
    place = (*where, "tool.uv")
    sources: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for name, value in table_at(raw, "sources", place).items():
        listed = {"x": value if isinstance(value, list) else [value]}
        sources[normal_name(name)] = tables_at(listed, "x", (*place, "sources", name[:80]))
    newer = moment(raw["exclude-newer"], (*place, "exclude-newer")) if "exclude-newer" in raw else ""
    prerelease = text_at(raw, "prerelease", place)
    if prerelease not in ("", "allow", "disallow", "if-necessary", "explicit", "if-necessary-or-explicit"):
        raise ConfigError(f"unknown value {prerelease[:40]!r}", path=(*place, "prerelease"))
    lists = {
        key: tuple(check_requirement(line, (*place, key)) for line in texts_at(raw, key, place))
        for key in ("constraint-dependencies", "override-dependencies")
    }
    indexes = [parse_index(item, (*place, "index", str(n))) for n, item in enumerate(tables_at(raw, "index", place))]
    # The older keys, which uv asks after the tables.
    indexes += [Index("", check_index(url, place)) for url in texts_at(raw, "extra-index-url", place)]
    if (url := text_at(raw, "index-url", place)) and not any(item.default for item in indexes):
        indexes.append(Index("", check_index(url, (*place, "index-url")), default=True))
    return UvSettings(
        place,
        folder,
        sources,
        tuple(indexes),
        lists["constraint-dependencies"],
        lists["override-dependencies"],
        newer,
        prerelease,
        texts_at(table_at(raw, "workspace", place), "members", (*place, "workspace")),
        texts_at(raw, "find-links", place),
        boolean(raw.get("no-index", False), (*place, "no-index")),
    )


def chosen_index(settings: UvSettings, name: str, environment: dict[str, str]) -> str:
    """The index that a package is pinned to on the target, or ""."""
    where = (*settings.where, "sources", name)
    for raw in settings.sources.get(name, ()):
        if marker_holds(text_at(raw, "marker", where), environment, where):
            return text_at(raw, "index", where)
    return ""


def find_source(
    project: Path, settings: UvSettings, name: str, environment: dict[str, str], root: UvSettings
) -> Source | None:
    """The source of a package under ``[tool.uv.sources]`` on the target, or None when it comes from an index.

    Args:
        settings: of the package that depends on it.
        root: of the project, which knows the members of the workspace.

    Raises:
        ConfigError: a source that is not of a known form.
    """
    where = (*settings.where, "sources", name)
    for raw in settings.sources.get(name, ()):
        if not marker_holds(text_at(raw, "marker", where), environment, where):
            continue
        if "index" in raw:
            return None
        if "url" in raw:
            url = text_at(raw, "url", where)
            no_credentials(url, where)
            return Source(url=url)
        if "git" in raw:
            ref = next((text_at(raw, key, where) for key in ("rev", "tag", "branch") if key in raw), "")
            inner = text_at(raw, "subdirectory", where)
            url = text_at(raw, "git", where).removeprefix("git+")
            return Source(local=git_source(url, name, (), where, ref=ref, subdirectory=inner))
        if "path" in raw:
            # `..` may lead from a member of a workspace to another one, and not out of the project.
            joined = posixpath.normpath(posixpath.join(settings.folder, text_at(raw, "path", where)))
            place = check_relative(joined, where)
            return Source(local=path_source(project, place, where, name=name))
        if raw.get("workspace") is True:
            return Source(local=path_source(project, _member(project, root, name, where), where, name=name))
        raise ConfigError("expected index, url, git, path or workspace", path=where)
    return None


def _member(project: Path, root: UvSettings, name: str, where: Where) -> str:
    for pattern in root.members:
        check_relative(pattern, (*root.where, "workspace", "members"))
        for folder in sorted(project.glob(pattern)):
            place = folder.relative_to(project).as_posix()
            if (folder / "pyproject.toml").is_file() and package_name(project, place) == name:
                return place
    raise ConfigError(
        f"{name} is no member of the workspace", path=where, hint="members below the project's folder can be packed"
    )


def extra_lines(document: Mapping[str, Any], extra: str, where: Where) -> tuple[str, ...]:
    """The requirements of an extra in a ``[project]`` table. ConfigError where it has no such extra."""
    return _named(table_at(document, "optional-dependencies", where), extra, "extra", (*where, "optional-dependencies"))


def _named(table: Mapping[str, Any], name: str, kind: str, where: Where) -> tuple[str, ...]:
    found = next((key for key in table if normal_name(key) == normal_name(name)), None)
    if found is None:
        raise ConfigError(
            f"the project has no {kind} {name[:80]!r}", path=where, hint=f"it has: {', '.join(sorted(table)) or 'none'}"
        )
    return texts_at(table, found, where)


def group_lines(document: Mapping[str, Any], group: str, where: Where, depth: int = 0) -> Iterator[str]:
    """The requirements of a dependency group, with the groups it includes.

    Raises:
        ConfigError: no such group, or groups that include themselves.
    """
    table = table_at(document, "dependency-groups", where)
    place = (*where, "dependency-groups", group[:80])
    found = next((key for key in table if normal_name(key) == normal_name(group)), None)
    if found is None:
        _named(table, group, "group", place)
        return
    if depth > _GROUP_DEPTH:
        raise ConfigError("groups that include themselves", path=place)
    items = table[found]
    if not isinstance(items, list):
        raise ConfigError("expected a list", path=place)
    for item in items:
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping) and list(item) == ["include-group"]:
            yield from group_lines(document, text_at(item, "include-group", place), where, depth + 1)
        else:
            raise ConfigError("expected a requirement or {include-group = …}", path=place)
