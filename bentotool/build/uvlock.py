"""``uv.lock``: the packages that a project's dependencies come to on the target.

Format: uv's lock, version 1. The file holds the graph for all platforms; it is walked from the project's own entry, and
the markers of each edge are evaluated for the target.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from bentotool.build.contain import check_relative
from bentotool.build.localsource import LocalSource, git_source, path_source
from bentotool.build.requirement_line import normal_name, shown_url
from bentotool.build.schema import Where
from bentotool.build.target import marker_holds
from bentotool.build.tomlfile import read_toml, table_at, tables_at, text_at, texts_at
from bentotool.build.userlock import Pinned, UserLock, check_python, file_name, is_ours, make_pin
from bentotool.errors import ConfigError

__all__ = ["outdated", "read_uv_lock", "uv_lock_document"]

_LIMIT = 32 << 20
Entry = Mapping[str, Any]


def uv_lock_document(project: Path, file: str) -> Entry:
    """The lock as a document.

    Raises:
        ConfigError: no TOML, or another version of the format.
    """
    document = read_toml(project, file, limit=_LIMIT)
    if document.get("version") != 1:
        raise ConfigError(f"{file} is of format {document.get('version')!r}, not 1", hint="uv lock makes it again")
    return document


@dataclass
class _Walk:
    """The walk under way."""

    project: Path
    file: str
    environment: dict[str, str]
    by_name: dict[str, list[Entry]]
    pins: dict[str, Pinned] = field(default_factory=dict)
    sources: dict[str, LocalSource] = field(default_factory=dict)
    seen: set[tuple[str, str, str]] = field(default_factory=set)

    def edges(self, edges: tuple[Entry, ...], where: Where) -> None:
        """Follow the dependencies of one entry, without recursion: a chain may be long."""
        waiting = [(edge, where) for edge in edges]
        while waiting:
            edge, place = waiting.pop()
            name = normal_name(text_at(edge, "name", place))
            if is_ours(name) or not marker_holds(text_at(edge, "marker", place), self.environment, place):
                continue
            entry = self.find(edge, name, place)
            inner = (self.file, name)
            for extra in ("", *(normal_name(item) for item in texts_at(edge, "extra", place))):
                key = (name, text_at(entry, "version", inner), extra)
                if key not in self.seen:
                    self.seen.add(key)
                    waiting += [(item, inner) for item in _edges(entry, extra, inner)]
            self.take(entry, name, inner)

    def find(self, edge: Entry, name: str, where: Where) -> Entry:
        wanted = {key: edge[key] for key in ("version", "source") if key in edge}
        found = [entry for entry in self.by_name.get(name, []) if all(entry.get(k) == v for k, v in wanted.items())]
        if len(found) != 1:
            raise ConfigError(f"{len(found)} entries for {name[:80]!r}, not one", path=where, hint="uv lock")
        return found[0]

    def take(self, entry: Entry, name: str, where: Where) -> None:
        source = table_at(entry, "source", where)
        if "virtual" in source:
            return
        for kind in ("editable", "directory", "path"):
            if kind in source:
                path = text_at(source, kind, where)
                place = posixpath.normpath(posixpath.join(PurePosixPath(self.file).parent, path))
                if place != ".":
                    self.sources[name] = path_source(self.project, check_relative(place, where), where, name=name)
                return
        if "git" in source:
            self.sources[name] = _git(text_at(source, "git", where), name, where)
            return
        pin = _pin(entry, name, source, self.environment, where)
        if self.pins.setdefault(name, pin).version != pin.version:
            raise ConfigError(
                f"{name} stands for {pin.version} and {self.pins[name].version} on the target", path=(self.file,)
            )


def read_uv_lock(
    project: Path,
    file: str,
    document: Entry,
    name: str,
    environment: dict[str, str],
    *,
    extras: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
) -> UserLock:
    """What the lock holds for the target.

    Args:
        name: of the project.
        environment: of the target; see :func:`bentotool.build.target.marker_environment`.
        extras, groups: of the project, beside its main dependencies.

    Raises:
        ConfigError: the file is not of the form, does not know the project, the extra or the group, or does not
            allow the Python.
        UnsafeError, NotFoundError: a package's folder is outside the project, or not there.
    """
    check_python(text_at(document, "requires-python", (file,)), environment["python_version"], (file,))
    by_name: dict[str, list[Entry]] = {}
    for entry in tables_at(document, "package", (file,)):
        by_name.setdefault(normal_name(text_at(entry, "name", (file, "package"))), []).append(entry)
    root = _root(by_name, name, file)
    where = (file, name)
    walk = _Walk(project, file, environment, by_name)
    walk.edges(_edges(root, "", where), where)
    for extra in extras:
        _known(table_at(root, "optional-dependencies", where), extra, "extra", where)
        walk.edges(_edges(root, normal_name(extra), where), where)
    for group in groups:
        table = table_at(root, "dev-dependencies", where)
        walk.edges(tables_at(table, _known(table, group, "group", where), where), where)
    pins = tuple(pin for label, pin in sorted(walk.pins.items()) if label not in walk.sources)
    return UserLock(file, pins, tuple(source for _, source in sorted(walk.sources.items())))


def _root(by_name: dict[str, list[Entry]], name: str, file: str) -> Entry:
    for entry in by_name.get(name, []):
        source = table_at(entry, "source", (file, name))
        if any(source.get(kind) == "." for kind in ("virtual", "editable", "directory")):
            return entry
    raise ConfigError(
        f"{file} does not lock the project {name or 'in pyproject.toml, which has no name'!r}", hint="uv lock"
    )


def _known(table: Entry, name: str, kind: str, where: Where) -> str:
    found = next((key for key in table if normal_name(key) == normal_name(name)), None)
    if found is None:
        raise ConfigError(f"the project has no {kind} {name[:80]!r}", path=where, hint="uv lock, where it is new")
    return found


def _edges(entry: Entry, extra: str, where: Where) -> tuple[Entry, ...]:
    if not extra:
        return tables_at(entry, "dependencies", where)
    optional = table_at(entry, "optional-dependencies", where)
    found = next((key for key in optional if normal_name(key) == extra), None)
    return tables_at(optional, found, where) if found is not None else ()


def _git(url: str, name: str, where: Where) -> LocalSource:
    """``https://host/repository?rev=main&subdirectory=x#COMMIT``."""
    bare, _, commit = url.partition("#")
    if not re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit):
        raise ConfigError(f"no commit in {shown_url(url)!r}", path=where, hint="uv lock")
    options = dict(item.partition("=")[::2] for item in bare.partition("?")[2].split("&") if item)
    place = bare.split("?")[0]
    return git_source(place, name, (), where, ref=commit, subdirectory=options.get("subdirectory", ""))


def _pin(entry: Entry, name: str, source: Entry, environment: dict[str, str], where: Where) -> Pinned:
    files = []
    sdist = [table_at(entry, "sdist", where)] if "sdist" in entry else []
    for item in (*sdist, *tables_at(entry, "wheels", where)):
        place = text_at(item, "url", where) or text_at(item, "path", where) or text_at(item, "filename", where)
        files.append((file_name(place), text_at(item, "hash", where)))
    version = text_at(entry, "version", where)
    url = text_at(source, "url", where)
    if not url and "registry" not in source:
        raise ConfigError("a source that is not known", path=(*where, "source"))
    return make_pin(name, version, files, environment, where, url)


def outdated(
    document: Entry,
    file: str,
    name: str,
    declared: Mapping[str, tuple[str, ...]],
    groups: Mapping[str, tuple[str, ...]],
    environment: dict[str, str],
) -> str:
    """Why the lock no longer belongs to ``pyproject.toml``: the first requirement that differs; "" where none does.

    Markers are compared by what they come to on the target, because uv writes them in another form.

    Args:
        declared: the project's requirements by extra, "" for the main ones.
        groups: those of the chosen groups, by name.
    """
    by_name: dict[str, list[Entry]] = {}
    for entry in tables_at(document, "package", (file,)):
        by_name.setdefault(normal_name(text_at(entry, "name", (file, "package"))), []).append(entry)
    metadata = table_at(_root(by_name, name, file), "metadata", (file, name))
    where = (file, name, "metadata")
    locked = set()
    for item in tables_at(metadata, "requires-dist", where):
        marker = text_at(item, "marker", where)
        for extra in declared:
            belongs = (
                re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", marker) if extra else "extra ==" not in marker
            )
            if belongs and marker_holds(marker, {**environment, "extra": extra}, where):
                locked.add((extra, *_signature(item, where)))
    table = table_at(metadata, "requires-dev", where)
    for group in groups:
        found = next((key for key in table if normal_name(key) == normal_name(group)), "")
        for item in tables_at(table, found, where) if found else ():
            if marker_holds(text_at(item, "marker", where), environment, where):
                locked.add((f"group {group}", *_signature(item, where)))
    labelled = {**declared, **{f"group {group}": lines for group, lines in groups.items()}}
    wanted = {(label, *found) for label, lines in labelled.items() for found in _declared(lines, environment)}
    changed = sorted({item[1] for item in wanted ^ locked})
    return changed[0] if changed else ""


def _signature(item: Entry, where: Where) -> tuple[str, tuple[str, ...], str]:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        specifier = str(SpecifierSet(text_at(item, "specifier", where)))
    except InvalidSpecifier:
        raise ConfigError("not a range of versions", path=where) from None
    extras = tuple(sorted(normal_name(extra) for extra in texts_at(item, "extras", where)))
    return normal_name(text_at(item, "name", where)), extras, specifier


def _declared(lines: tuple[str, ...], environment: dict[str, str]) -> list[tuple[str, tuple[str, ...], str]]:
    from packaging.requirements import InvalidRequirement, Requirement

    found = []
    for line in lines:
        try:
            item = Requirement(line)
        except InvalidRequirement:
            continue  # reported where the requirements are gathered
        if item.marker is None or marker_holds(str(item.marker), environment, ("pyproject.toml",)):
            extras = tuple(sorted(normal_name(extra) for extra in item.extras))
            found.append((normal_name(item.name), extras, "" if item.url else str(item.specifier)))
    return found
