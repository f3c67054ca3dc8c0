"""Applying ``[tool.uv.sources]``: what each required package comes from, packed packages' own dependencies included."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bentotool.build.localsource import LocalSource
from bentotool.build.requirement_line import check_requirement, normal_name
from bentotool.build.tomlfile import read_toml, table_at, texts_at
from bentotool.build.uvsettings import UvSettings, chosen_index, find_source, read_settings
from bentotool.errors import ConfigError

__all__ = ["find_sources"]

_LIMIT = 1000


def find_sources(
    project: Path,
    settings: Sequence[UvSettings],
    lines: Sequence[str],
    local: Sequence[LocalSource],
    environment: dict[str, str],
) -> tuple[tuple[str, ...], tuple[LocalSource, ...], dict[str, str]]:
    """The requirements with archives written into them, the packages to be packed, and the index of pinned packages.

    Args:
        settings: of the project first.
        lines: requirements.
        local: packages that are packed anyway; they win over the table.

    Raises:
        ConfigError: two places for one package, or a source that is not of a known form.
        UnsafeError, NotFoundError: a path out of the project, or to nothing.
    """
    known: dict[str, LocalSource] = {}
    for source in local:
        _add(known, source)
    index_of: dict[str, str] = {}
    result = []
    for part in settings:
        for name in part.sources:
            index = chosen_index(part, name, environment)
            if index and name not in known:
                index_of.setdefault(name, index)
    for line in lines:
        name = normal_name(line)
        found = None
        for part in settings:
            if found is None and name not in known and "@" not in line:
                found = find_source(project, part, name, environment, settings[0])
        if found is not None and found.local is not None:
            _add(known, replace(found.local, extras=_extras(line)))
        elif found is not None and found.url:
            line = _with_url(line, found.url, settings[0])
        result.append(line)
    _follow(project, known, environment, settings[0])
    unnamed = [source for source in local if not source.name]
    return tuple(result), (*(known[name] for name in sorted(known)), *unnamed), index_of


def _add(known: dict[str, LocalSource], source: LocalSource) -> None:
    if not source.name:
        return
    other = known.get(source.name)
    if other is not None and (other.kind, other.place, other.ref) != (source.kind, source.place, source.ref):
        raise ConfigError(f"{source.name} comes from two places: {other.shown} and {source.shown}")
    extras = {*source.extras, *(other.extras if other else ())}
    known[source.name] = replace(source, extras=tuple(sorted(extras)))


def _extras(line: str) -> tuple[str, ...]:
    found = re.match(r"[\w.-]+\s*\[([^\]]*)\]", line)
    return tuple(sorted({normal_name(item.strip()) for item in found[1].split(",")} - {""})) if found else ()


def _with_url(line: str, url: str, settings: UvSettings) -> str:
    from packaging.requirements import Requirement

    parsed = Requirement(re.split(r"\s+--hash", line)[0])
    extras = f"[{','.join(sorted(parsed.extras))}]" if parsed.extras else ""
    marker = f" ; {parsed.marker}" if parsed.marker else ""
    return check_requirement(f"{parsed.name}{extras} @ {url}{marker}", (*settings.where, "sources", parsed.name))


def _follow(project: Path, known: dict[str, LocalSource], environment: dict[str, str], root: UvSettings) -> None:
    """Add what the packed folders of the project name in their own tables."""
    waiting = [source for source in known.values() if source.kind == "path"]
    while waiting:
        source = waiting.pop()
        file = posixpath.join(source.place, "pyproject.toml")
        if not (project / file).is_file():
            continue
        document = read_toml(project, file)
        own = read_settings(document, (file,), source.place)
        meta = table_at(document, "project", (file,))
        for line in texts_at(meta, "dependencies", (file, "project", "dependencies")):
            name = normal_name(line)
            if name in known:
                continue
            tables = [part for part in (own, root) if name in part.sources]
            found = find_source(project, tables[0], name, environment, root) if tables else None
            if found is not None and found.local is not None:
                added = replace(found.local, extras=_extras(line))
                _add(known, added)
                waiting += [added] if added.kind == "path" else []
        if len(known) > _LIMIT:
            raise ConfigError(f"more than {_LIMIT} packages to be packed")
