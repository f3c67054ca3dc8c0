"""What a Bento requires: the configured packages, requirements files, PEP 621, PEP 723, the project's own lock, and the
runtime's own.

A requirement is a name with a version range, an https archive, or a package of the project or of a git repository, and
that is packed. Whatever would bring a file of this machine or a credential into the lock is refused with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bentotool.build.configfile import ProjectConfig
from bentotool.build.contain import check_relative
from bentotool.build.gathering import Gathering
from bentotool.build.indexes import (
    Index,
    Indexes,
    check_host,
    check_index,
    check_links,
    merge_indexes,
    pinned_packages,
)
from bentotool.build.localsource import LocalSource, path_source
from bentotool.build.lockfiles import choose_lock
from bentotool.build.requirement_line import check_requirement, normal_name
from bentotool.build.schema import Where
from bentotool.build.script import Script, read_script
from bentotool.build.sourcetable import find_sources
from bentotool.build.target import marker_environment
from bentotool.build.tomlfile import read_toml, table_at, texts_at
from bentotool.build.userlock import Pinned, UserLock, check_python
from bentotool.build.uvsettings import UvSettings, extra_lines, group_lines, read_settings
from bentotool.errors import BuildError, ConfigError

__all__ = [
    "LITESTAR_NEEDS",
    "RUNTIME_REQUIREMENTS",
    "Indexes",
    "Requirements",
    "demanded_hashes",
    "gather",
    "normal_name",
]

RUNTIME_REQUIREMENTS = (
    "litestar>=2.18,<3",
    "uvicorn>=0.53",
    "httptools>=0.6.4",
    "uvloop>=0.21; sys_platform != 'win32' and implementation_name == 'cpython'",
    "msgspec>=0.19",
    "h11>=0.14",
    "prometheus-client>=0.21",
)
"""What the embedded runtime imports; the same lines stand in the project's own metadata, which a test compares."""

LITESTAR_NEEDS = (
    "anyio>=3",
    "exceptiongroup>=1.2.2; python_version < '3.11'",
    "msgspec>=0.18.2",
    "multidict>=6.0.2",
    "multipart>=1.2.0",
    "pyyaml",
    "sniffio>=1.3.1",
    "typing-extensions",
)
"""What litestar 2 imports while it serves.

Its metadata also names click, httpx, litestar-htmx, polyfactory, rich and rich-click, which its command line, test
client and examples use: 11 more distributions and 30 MB. The reduced list is given to uv as litestar's metadata, so
whoever else requires one of those packages still gets it.
"""

# Builds of one package under several names, e.g. onnxruntime-gpu and tensorflow-cpu: two of them do not go together.
_OTHER_BUILD = re.compile(r"(.+)-(cpu|gpu|rocm|cuda|directml|openvino|metal|macos|intel)")


@dataclass(frozen=True)
class Requirements:
    """Input of the resolution; lines as uv reads them.

    Args:
        pinned: packages of the project's own lock: their versions and files stand.
        extended: names among them of which an extra is asked that the lock may not hold.
        sources: packages to be packed.
        exclude_newer: leave out what was published later.
        prerelease: uv's mode, "" for its default.
        only_binary, no_binary: names, or ``:all:``.
    """

    lines: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    indexes: Indexes = field(default_factory=Indexes)
    lean_litestar: bool = True
    pinned: tuple[Pinned, ...] = ()
    extended: tuple[str, ...] = ()
    sources: tuple[LocalSource, ...] = ()
    overrides: tuple[str, ...] = ()
    exclude_newer: str = ""
    prerelease: str = ""
    only_binary: tuple[str, ...] = ()
    no_binary: tuple[str, ...] = ()


def demanded_hashes(requirements: Requirements) -> dict[str, frozenset[str]]:
    """The hashes that requirements files pin, by normalised name. uv's resolution does not look at them."""
    found: dict[str, frozenset[str]] = {}
    for line in (*requirements.lines, *requirements.constraints):
        hashes = frozenset(re.findall(r"--hash[= ]\s*(sha256:[0-9a-f]{64})", line))
        if hashes:
            found[normal_name(line)] = hashes | found.get(normal_name(line), frozenset())
    return found


def gather(
    project: ProjectConfig,
    runtime: Iterable[str] = RUNTIME_REQUIREMENTS,
    extra: Iterable[str] = (),
    *,
    platform: str = "linux/amd64",
    locked: bool = False,
    note: Callable[[str], None] = lambda text: None,
) -> Requirements:
    """Everything the Bento's environment is resolved from.

    Args:
        runtime: what the embedded runtime needs.
        extra: what models, the service's image and plugins need; left out where the project names the package itself,
            or another build of it.
        platform: of the target; markers are evaluated for it.
        locked: refuse a lock of the project that is out of date.
        note: told of such a lock otherwise.

    Raises:
        ConfigError: a line that is no requirement or cannot be honoured, with the file and line.
        UnsafeError: a file outside the project, or a URL with credentials.
        NotFoundError: a requirements file that is not there.
        UsageError: ``locked``, and the project's lock is out of date.
        BuildError: the project's lock and another requirement exclude each other.
    """
    environment = marker_environment(project.python, platform)
    document, script = _pyproject(project), read_script(project.project, project.config.service or "service")
    settings, more = read_settings(document, ("pyproject.toml",)), UvSettings()
    if script is not None:
        check_python(script.requires_python, project.python, (script.file, "script"))
        more = read_settings(script.document, (script.file, "script"))
    found = _configured(project, document, script, environment)
    own = list(found.lines)
    lock = choose_lock(project, document, environment, locked, note) or UserLock("", ())
    pins = {pin.name: pin for pin in lock.pins}
    named = (
        {normal_name(line) for line in own} | set(pins) | {source.name for source in (*found.sources, *lock.sources)}
    )
    named |= {build[1] for name in named if (build := _OTHER_BUILD.fullmatch(name))}
    for line in extra:
        if normal_name(check_requirement(line, ("requirements",))) not in named:
            found.requirement(line, ("requirements",))
    runtime_lines = [check_requirement(line, ("runtime",)) for line in runtime]
    _check_conflicts(lock, [(line, "the project") for line in own], environment)
    _check_conflicts(lock, [(line, "the Bento's runtime") for line in runtime_lines], environment)
    lines = (*dict.fromkeys((*found.lines, *runtime_lines)),)
    lines, sources, index_of = find_sources(
        project.project, (settings, more), lines, (*lock.sources, *found.sources), environment
    )
    if not project.config.python.pack_git_packages and any(source.kind == "git" for source in sources):
        raise ConfigError(
            "python.pack_git_packages is false, and a dependency comes from a git repository",
            path=(project.origin or "defaults", "python"),
            hint="pack it, or name a released package: an image has neither git nor the repository's credentials",
        )
    lean = not any(re.match(r"litestar\s*\[", line, re.IGNORECASE) for line in found.lines)
    beyond = {normal_name(line) for line in lines if re.match(r"[\w.-]+\s*\[", line)} & set(pins)
    inside = {normal_name(line) for line in project.dependencies}
    return Requirements(
        lines,
        (*dict.fromkeys((*found.constraints, *settings.constraints, *more.constraints)),),
        _indexes(project, found, (settings, more), index_of),
        lean,
        lock.pins,
        tuple(sorted(beyond - inside)),
        sources,
        (*settings.overrides, *more.overrides),
        project.config.python.exclude_newer or settings.exclude_newer or more.exclude_newer,
        "allow" if found.prerelease else settings.prerelease or more.prerelease,
        tuple(sorted(set(found.only_binary))),
        tuple(sorted(set(found.no_binary))),
    )


def _pyproject(project: ProjectConfig) -> Mapping[str, Any]:
    path = project.project / "pyproject.toml"
    return read_toml(project.project, "pyproject.toml") if path.is_file() else {}


def _configured(
    project: ProjectConfig, document: Mapping[str, Any], script: Script | None, environment: dict[str, str]
) -> Gathering:
    """The requirements that the project states."""
    found, python = Gathering(project.project, environment), project.config.python
    where: Where = (project.origin or "defaults", "python")
    if python.requirements_txt is not None:
        found.file(python.requirements_txt, (*where, "requirements_txt"))
    else:
        for index, line in enumerate(python.packages):
            found.requirement(line, (*where, "packages", str(index)))
    for index, line in enumerate(project.config.conda.pip):
        found.requirement(line, (where[0], "conda", "pip", str(index)))
    for index, path in enumerate(python.wheels):
        place = (*where, "wheels", str(index))
        found.sources.append(path_source(project.project, _wheel_path(path, place), place))
    for index, line in enumerate(script.dependencies if script else ()):
        found.requirement(line, (script.file if script else "", "script", "dependencies", str(index)))
    _declared(project, document, found)
    for index, (kind, value) in enumerate(project.of_image):
        _of_image(project, kind, value, ("service", "image", "python", str(index)), found)
    return found


def _of_image(project: ProjectConfig, kind: str, value: str, where: Where, found: Gathering) -> None:
    """Take what the service's image says of Python packages."""
    if kind == "package":
        found.requirement(value, where)
    elif kind == "file":
        found.file(value, where)
    else:
        meta = table_at(read_toml(project.project, value), "project", (value,))
        for line in texts_at(meta, "dependencies", (value, "project")):
            found.requirement(line, (value, "project", "dependencies"))


def _declared(project: ProjectConfig, document: Mapping[str, Any], found: Gathering) -> None:
    """Take the dependencies of ``pyproject.toml``, with the chosen extras and groups."""
    python = project.config.python
    meta = table_at(document, "project", ("pyproject.toml",))
    dependencies, extras = project.dependencies, set(python.extras)
    if found.itself is not None:
        extras |= found.itself
        dependencies = dependencies or texts_at(meta, "dependencies", ("pyproject.toml", "project"))
    for index, line in enumerate(dependencies):
        found.requirement(line, ("pyproject.toml", "project", "dependencies", str(index)))
    for name in sorted(extras):
        for line in extra_lines(meta, name, ("pyproject.toml", "project")):
            found.requirement(line, ("pyproject.toml", "project", "optional-dependencies", name))
    for name in python.groups:
        for line in group_lines(document, name, ("pyproject.toml",)):
            found.requirement(line, ("pyproject.toml", "dependency-groups", name))


def _wheel_path(path: str, where: Where) -> str:
    if not path.endswith(".whl"):
        raise ConfigError(f"not a wheel: {path[:120]!r}", path=where, hint="make one: uv build --wheel")
    return check_relative(path, where)


def _indexes(
    project: ProjectConfig, found: Gathering, settings: tuple[UvSettings, ...], index_of: Mapping[str, str]
) -> Indexes:
    python = project.config.python
    where: Where = (project.origin or "defaults", "python")
    own = tuple(
        Index(
            item.name,
            check_index(item.url, (*where, "indexes", item.name)),
            item.default,
            item.explicit,
            packages=tuple(normal_name(name) for name in item.packages),
        )
        for item in python.indexes
    )
    for part in settings:
        own = merge_indexes(own, part.indexes, (*where, "indexes"))
    links = [(link, (*where, "find_links")) for link in python.find_links]
    links += [(link, (*part.where, "find-links")) for part in settings for link in part.find_links]
    return Indexes(
        check_index(python.index_url, (*where, "index_url")) if python.index_url else found.index_url,
        (*(check_index(url, (*where, "extra_index_url")) for url in python.extra_index_url), *found.extra_index_url),
        (*(check_links(link, place, project.project) for link, place in links), *found.find_links),
        python.no_index or found.no_index or any(part.no_index for part in settings),
        (*(check_host(host, (*where, "trusted_host")) for host in python.trusted_host), *found.trusted_host),
        own,
        pinned_packages(own, index_of, (*where, "indexes")),
    )


def _check_conflicts(lock: UserLock, lines: list[tuple[str, str]], environment: dict[str, str]) -> None:
    """Raise BuildError where a requirement excludes the version that the project's own lock pins."""
    from packaging.requirements import Requirement

    pins = {pin.name: pin for pin in lock.pins if not pin.url}
    for line, asker in lines:
        pin = pins.get(normal_name(line))
        if pin is None:
            continue
        parsed = Requirement(re.split(r"\s+--hash", line)[0])
        if parsed.marker is not None and not parsed.marker.evaluate(environment):
            continue
        if not parsed.specifier.contains(pin.version, prereleases=True):
            raise BuildError(
                f"{lock.file} pins {pin.name}=={pin.version}, and {asker} needs {parsed.name}{parsed.specifier}",
                hint=f"uv lock --upgrade-package {pin.name}"
                if lock.file.endswith("uv.lock")
                else "make the lock again",
            )
