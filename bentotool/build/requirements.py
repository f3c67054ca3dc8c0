"""What a Bento requires: the configured packages, requirements files with nested ones, PEP 621, and the runtime's own.

A requirement here is a name with a version range, or an https archive. Whatever would bring a file of this machine or a
credential into the lock is refused with the line it stands on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from bentotool.build.configfile import ProjectConfig
from bentotool.build.contain import check_relative, read_inside
from bentotool.build.schema import Where, check_text
from bentotool.errors import ConfigError, UnsafeError

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
    "uvicorn>=0.34",
    "httptools>=0.6.4",
    "uvloop>=0.21; sys_platform != 'win32' and implementation_name == 'cpython'",
    "msgspec>=0.19",
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

_FILE_LIMIT = 1 << 20
_DEPTH_LIMIT = 16
# Builds of one package under several names, e.g. onnxruntime-gpu and tensorflow-cpu: two of them do not go together.
_OTHER_BUILD = re.compile(r"(.+)-(cpu|gpu|rocm|cuda|directml|openvino|metal|macos|intel)")
_OPTION = re.compile(r"(--?[a-z][a-z-]*)(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Indexes:
    """Where packages are looked for."""

    index_url: str | None = None
    extra_index_url: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_host: tuple[str, ...] = ()


@dataclass(frozen=True)
class Requirements:
    """Input of the resolution; lines as uv reads them."""

    lines: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    indexes: Indexes = field(default_factory=Indexes)
    lean_litestar: bool = True


def demanded_hashes(requirements: Requirements) -> dict[str, frozenset[str]]:
    """The hashes that requirements files pin, by normalised name. uv's resolution does not look at them."""
    found: dict[str, frozenset[str]] = {}
    for line in (*requirements.lines, *requirements.constraints):
        hashes = frozenset(re.findall(r"--hash[= ](sha256:[0-9a-f]{64})", line))
        if hashes:
            found[normal_name(line)] = hashes | found.get(normal_name(line), frozenset())
    return found


@dataclass
class _Gathering:
    """What has been read so far."""

    project: Path
    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    index_url: str | None = None
    extra_index_url: list[str] = field(default_factory=list)
    find_links: list[str] = field(default_factory=list)
    no_index: bool = False
    trusted_host: list[str] = field(default_factory=list)

    def requirement(self, line: str, where: Where, *, constraint: bool = False) -> None:
        if re.fullmatch(r"bentotool(-.*)?", normal_name(line)):
            return  # the embedded runtime and loaders are bentotool there; the distribution would lie on top of them
        (self.constraints if constraint else self.lines).append(_check_requirement(line, where))

    def file(self, name: str, where: Where, *, constraint: bool = False, depth: int = 0) -> None:
        if depth > _DEPTH_LIMIT:
            raise ConfigError(f"requirements files nested more than {_DEPTH_LIMIT} deep", path=where)
        path = check_relative(name, where)
        try:
            content = read_inside(self.project, path, where, limit=_FILE_LIMIT).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not UTF-8 text", path=where) from None
        for number, line in _logical_lines(content):
            self._file_line(line, (path, f"line {number}"), PurePosixPath(path).parent, constraint, depth)

    def _file_line(self, line: str, where: Where, folder: PurePosixPath, constraint: bool, depth: int) -> None:
        option = _OPTION.fullmatch(line) if line.startswith("-") else None
        if not line.startswith("-"):
            self.requirement(line, where, constraint=constraint)
            return
        name, value = (option.group(1), option.group(2).strip().strip("\"'")) if option else (line, "")
        if name in ("-r", "--requirement", "-c", "--constraint"):
            nested = check_relative(value, where)
            self.file(
                str(folder / nested), where, constraint=constraint or name in ("-c", "--constraint"), depth=depth + 1
            )
        elif name in ("-i", "--index-url"):
            self.index_url = _index(value, where)
        elif name == "--extra-index-url":
            self.extra_index_url.append(_index(value, where))
        elif name in ("-f", "--find-links"):
            self.find_links.append(_links(value, where, self.project, folder))
        elif name == "--no-index":
            self.no_index = True
        elif name == "--trusted-host":
            self.trusted_host.append(_host(value, where))
        else:
            raise ConfigError(f"not supported yet: {name[:40]}", path=where, hint="remove the line")


def gather(
    project: ProjectConfig, runtime: Iterable[str] = RUNTIME_REQUIREMENTS, extra: Iterable[str] = ()
) -> Requirements:
    """Everything the Bento's environment is resolved from.

    Args:
        runtime: what the embedded runtime needs.
        extra: what models, the service's image and plugins need; left out where the project names the package itself,
            or another build of it.

    Raises:
        ConfigError: a line that is no requirement or cannot be honoured, with the file and line.
        UnsafeError: a file outside the project, or a URL with credentials.
        NotFoundError: a requirements file that is not there.
    """
    found, python = _Gathering(project.project), project.config.python
    where: Where = (project.origin or "defaults", "python")
    if python.requirements_txt is not None:
        found.file(python.requirements_txt, (*where, "requirements_txt"))
    else:
        for index, line in enumerate(python.packages):
            found.requirement(line, (*where, "packages", str(index)))
    for index, line in enumerate(project.dependencies):
        found.requirement(line, ("pyproject.toml", "project", "dependencies", str(index)))
    named = {normal_name(line) for line in found.lines}
    named |= {build[1] for name in named if (build := _OTHER_BUILD.fullmatch(name))}
    for line in extra:
        if normal_name(_check_requirement(line, ("requirements",))) not in named:
            found.requirement(line, ("requirements",))
    lean = not any(re.match(r"litestar\s*\[", line, re.IGNORECASE) for line in found.lines)
    runtime_lines = [_check_requirement(line, ("runtime",)) for line in runtime]
    indexes = Indexes(
        _index(python.index_url, (*where, "index_url")) if python.index_url else found.index_url,
        (*(_index(url, (*where, "extra_index_url")) for url in python.extra_index_url), *found.extra_index_url),
        (*(_links(link, (*where, "find_links"), project.project) for link in python.find_links), *found.find_links),
        python.no_index or found.no_index,
        (*(_host(host, (*where, "trusted_host")) for host in python.trusted_host), *found.trusted_host),
    )
    return Requirements(
        (*dict.fromkeys((*found.lines, *runtime_lines)),), (*dict.fromkeys(found.constraints),), indexes, lean
    )


def _logical_lines(content: str) -> Iterable[tuple[int, str]]:
    """Lines with comments removed and continuations joined, each with the number it starts on."""
    pending, start = "", 0
    for number, raw in enumerate([*content.splitlines(), ""], 1):
        line = "" if raw.lstrip().startswith("#") else re.sub(r"\s#.*$", "", raw).rstrip()
        start = start if pending else number
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        whole, pending = (pending + line).strip(), ""
        if whole:
            yield start, whole


def normal_name(line: str) -> str:
    """The normalised name (PEP 503) that a requirement or a pin starts with; empty when it starts with none."""
    match = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
    return re.sub(r"[-_.]+", "-", match.group()).lower() if match else ""


def _check_requirement(line: str, where: Where) -> str:
    from packaging.requirements import InvalidRequirement, Requirement

    check_text(line, where)
    if re.match(r"(git|hg|svn|bzr)\+|file:|https?:|[./~]|[A-Za-z]:[\\/]|-e\b|--editable", line) or "$" in line:
        raise ConfigError(
            f"not supported yet: {_shown(line)!r}", path=where, hint="name a released package, or NAME @ https://…"
        )
    spec, *hashes = re.split(r"\s+(?=--hash[= ])", line)
    if not all(re.fullmatch(r"--hash[= ]sha256:[0-9a-f]{64}\s*", item) for item in hashes):
        raise ConfigError(f"not a requirement: {_shown(line)!r}", path=where)
    try:
        parsed = Requirement(spec)
    except InvalidRequirement as error:
        reason = " ".join(str(error).split(":")[0].splitlines()[0].split())
        raise ConfigError(f"not a requirement: {_shown(spec)!r}: {reason}", path=where) from None
    if parsed.url is not None:
        parts = urlsplit(parsed.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"not supported yet: {_shown(line)!r}", path=where, hint="name a released package, or NAME @ https://…"
            )
        _no_credentials(parsed.url, where)
    return " ".join((str(parsed), *(item.strip() for item in hashes)))


def _shown(line: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", line)[:120]


def _no_credentials(url: str, where: Where) -> None:
    if "@" in urlsplit(url).netloc:
        raise UnsafeError(
            f"{' → '.join(where)}: the URL {_shown(url)!r} holds credentials",
            hint="keep them in ~/.netrc, a keyring or the environment (UV_INDEX_…), not in the project",
        )


def _index(url: str, where: Where) -> str:
    check_text(url, where)
    _no_credentials(url, where)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "file") or "$" in url or any(char.isspace() for char in url):
        raise ConfigError(f"expected the URL of a package index, got {_shown(url)!r}", path=where)
    return url


def _links(link: str, where: Where, project: Path, folder: PurePosixPath | None = None) -> str:
    """A page, or a folder: relative ones lie in the project, absolute ones anywhere: only hashes reach the lock."""
    check_text(link, where)
    if link.startswith(("http://", "https://", "file:")):
        return _index(link, where)
    if Path(link).is_absolute():
        if ".." in Path(link).parts:
            raise UnsafeError(f"{' → '.join(where)}: {link[:120]!r} is not a plain path")
        return link
    return str(project.absolute() / (folder or PurePosixPath()) / check_relative(link, where))


def _host(host: str, where: Where) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?", host):
        raise ConfigError(f"expected a host name, got {host[:80]!r}", path=where)
    return host
