"""``pylock.toml`` (PEP 751): the packages that it installs on the target."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bentotool.build.contain import check_relative
from bentotool.build.localsource import LocalSource, git_source, path_source
from bentotool.build.requirement_line import normal_name
from bentotool.build.schema import Where
from bentotool.build.target import marker_holds
from bentotool.build.tomlfile import read_toml, table_at, tables_at, text_at, texts_at
from bentotool.build.userlock import Pinned, UserLock, check_python, file_name, is_ours, make_pin
from bentotool.errors import ConfigError

__all__ = ["read_pylock"]

_LIMIT = 32 << 20
Entry = Mapping[str, Any]


def read_pylock(
    project: Path,
    file: str,
    environment: dict[str, str],
    *,
    extras: tuple[str, ...] = (),
    groups: tuple[str, ...] = (),
) -> UserLock:
    """What the lock installs on the target.

    Args:
        environment: of the target; see :func:`bentotool.build.target.marker_environment`.
        groups: instead of the lock's default groups.

    Raises:
        ConfigError: the file is not of the form, or is not made for the target.
        UnsafeError, NotFoundError: a package's folder is outside the project, or not there.
    """
    document = read_toml(project, file, limit=_LIMIT)
    _check(document, file, environment, {"extras": extras, "dependency-groups": groups})
    chosen = groups or texts_at(document, "default-groups", (file,))
    pins: dict[str, Pinned] = {}
    sources: dict[str, LocalSource] = {}
    for number, entry in enumerate(tables_at(document, "packages", (file,))):
        name = normal_name(text_at(entry, "name", (file, "packages", str(number))))
        where = (file, name or f"package {number}")
        if not name:
            raise ConfigError("a package without a name", path=where)
        if is_ours(name) or not _holds(text_at(entry, "marker", where), environment, extras, chosen, where):
            continue
        if name in pins or name in sources:
            raise ConfigError("two entries hold on the target", path=where)
        local = _local(project, file, entry, name, where)
        if local is not None:
            sources[name] = local
        elif "directory" not in entry:
            pins[name] = _pin(entry, name, environment, where)
    return UserLock(file, tuple(pins[name] for name in sorted(pins)), tuple(sources[name] for name in sorted(sources)))


def _check(document: Entry, file: str, environment: dict[str, str], asked: Mapping[str, tuple[str, ...]]) -> None:
    """Raise ConfigError where the lock is of another form, for another target, or lacks an extra or a group."""
    version = text_at(document, "lock-version", (file,))
    if version.split(".")[0] != "1":
        raise ConfigError(f"lock-version is {version[:20]!r}, not 1.0", path=(file,))
    check_python(text_at(document, "requires-python", (file,)), environment["python_version"], (file,))
    made_for = texts_at(document, "environments", (file,))
    if made_for and not any(marker_holds(marker, environment, (file, "environments")) for marker in made_for):
        raise ConfigError("the lock is not made for the target's platform and Python", path=(file, "environments"))
    for key, names in asked.items():
        known = {normal_name(name) for name in texts_at(document, key, (file,))}
        for name in names:
            if normal_name(name) not in known:
                raise ConfigError(f"the lock has none named {name[:80]!r}", path=(file, key))


def _holds(
    marker: str, environment: dict[str, str], extras: tuple[str, ...], groups: tuple[str, ...], where: Where
) -> bool:
    """Whether a package's marker holds; it may ask for ``extras`` and ``dependency_groups``, which PEP 751 adds."""
    if "extras" not in marker and "dependency_groups" not in marker:
        return marker_holds(marker, environment, where)
    from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName

    chosen: dict[str, Any] = {
        **environment,
        "extras": frozenset(map(normal_name, extras)),
        "dependency_groups": frozenset(map(normal_name, groups)),
    }
    try:
        return bool(Marker(marker).evaluate(chosen, context="lock_file"))
    except TypeError:
        raise ConfigError(
            "markers of extras and groups need a newer packaging", path=where, hint="pip install 'packaging>=25'"
        ) from None
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName, RecursionError):
        raise ConfigError(f"not an environment marker: {marker[:120]!r}", path=where) from None


def _local(project: Path, file: str, entry: Entry, name: str, where: Where) -> LocalSource | None:
    if "vcs" in entry:
        vcs = table_at(entry, "vcs", where)
        if text_at(vcs, "type", where) != "git":
            raise ConfigError("only git repositories can be packed", path=where)
        commit, url = text_at(vcs, "commit-id", where), text_at(vcs, "url", where)
        return git_source(url, name, (), where, ref=commit, subdirectory=text_at(vcs, "subdirectory", where))
    if "directory" in entry:
        path = text_at(table_at(entry, "directory", where), "path", where)
    else:
        files = [table_at(entry, "archive", where), *tables_at(entry, "wheels", where)]
        path = next((text_at(item, "path", where) for item in files if "path" in item and "url" not in item), "")
        if not path:
            return None
    place = posixpath.normpath(posixpath.join(PurePosixPath(file).parent, path))
    if place == ".":
        return None  # the project itself: its files travel as the Bento's code
    return path_source(project, check_relative(place, where), where, name=name)


def _pin(entry: Entry, name: str, environment: dict[str, str], where: Where) -> Pinned:
    files, url = [], ""
    archives = [table_at(entry, key, where) for key in ("sdist", "archive") if key in entry]
    for item in (*archives, *tables_at(entry, "wheels", where)):
        place = text_at(item, "name", where) or text_at(item, "url", where)
        files.append((file_name(place), f"sha256:{text_at(table_at(item, 'hashes', where), 'sha256', where)}"))
    if "archive" in entry:
        url = text_at(table_at(entry, "archive", where), "url", where)
    version = text_at(entry, "version", where)
    return make_pin(name, version or ("0" if url else ""), files, environment, where, url)
