"""Reading requirements files: pip's format, with nested files, continuations and options. What it says is collected.

Format: https://pip.pypa.io/en/stable/reference/requirements-file-format/. An option is honoured or refused by name.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from bentotool.build.contain import check_relative, read_inside
from bentotool.build.indexes import check_host, check_index, check_links
from bentotool.build.localsource import LocalSource, is_local, parse_local
from bentotool.build.requirement_line import check_requirement, normal_name
from bentotool.build.schema import Where
from bentotool.build.target import marker_holds
from bentotool.build.userlock import is_ours
from bentotool.errors import ConfigError

__all__ = ["Gathering"]

_TOP = PurePosixPath()
_FILE_LIMIT = 1 << 20
_DEPTH_LIMIT = 16
_OPTION = re.compile(r"(--?[A-Za-z][a-z-]*)(?:\s*=\s*|\s+|$)(.*)", re.DOTALL)
_ITSELF = re.compile(r"(?:-e|--editable)?[\s=]*(?:file:)?\.(?:/)?(?:\[([\w.,\s-]*)\])?", re.ASCII)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CODING = re.compile(rb"coding[:=]\s*([-\w.]+)")
_ENCODINGS = ("utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252")
_REFUSED = {
    "--prefer-binary": "name the packages: --only-binary NAME",
    "--use-feature": "remove the line: pip's features do not touch the lock",
    "--use-deprecated": "remove the line: pip's features do not touch the lock",
    "--config-settings": "build the wheel with it yourself, and name the file under python.wheels",
    "-C": "build the wheel with it yourself, and name the file under python.wheels",
    "--global-option": "build the wheel with it yourself, and name the file under python.wheels",
    "--install-option": "build the wheel with it yourself, and name the file under python.wheels",
    "--build-option": "build the wheel with it yourself, and name the file under python.wheels",
    "--no-build-isolation": "state what it is built with in its pyproject.toml",
    "--no-deps": "remove the line: a lock holds everything that is needed",
    "--process-dependency-links": "name the package: NAME @ https://…",
    "--platform": "bentotool build --platform linux/arm64",
    "--python-version": "set python.version in the configuration",
    "--client-cert": "set SSL_CLIENT_CERT in the environment",
    "--cert": "set SSL_CERT_FILE in the environment",
    "--proxy": "set HTTPS_PROXY in the environment",
    "--keyring-provider": "set UV_KEYRING_PROVIDER in the environment",
    "--uploaded-prior-to": "set python.exclude_newer in the configuration",
}


@dataclass
class Gathering:
    """What has been read so far.

    Args:
        environment: of the target, for markers of packages that are packed.
        itself: the extras that ``-e .`` asked for; None where the project is not named.
    """

    project: Path
    environment: dict[str, str]
    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    sources: list[LocalSource] = field(default_factory=list)
    index_url: str | None = None
    extra_index_url: list[str] = field(default_factory=list)
    find_links: list[str] = field(default_factory=list)
    no_index: bool = False
    trusted_host: list[str] = field(default_factory=list)
    prerelease: bool = False
    only_binary: list[str] = field(default_factory=list)
    no_binary: list[str] = field(default_factory=list)
    itself: set[str] | None = None
    hashes_required: Where | None = None

    def requirement(self, line: str, where: Where, *, constraint: bool = False, folder: PurePosixPath = _TOP) -> None:
        """Take one requirement.

        Raises:
            ConfigError, UnsafeError, NotFoundError: it cannot be honoured.
        """
        itself = _ITSELF.fullmatch(line.strip())
        if itself and not constraint:
            self.itself = (self.itself or set()) | {
                item.strip() for item in (itself[1] or "").split(",") if item.strip()
            }
        elif is_local(line) and not constraint:
            source, marker = parse_local(self.project, line, where, folder)
            if marker_holds(marker, self.environment, where):
                self.sources.append(source)
        elif not is_ours(normal_name(line)):
            # The embedded runtime and loaders are bentotool there; the distribution would lie on top of them.
            (self.constraints if constraint else self.lines).append(check_requirement(line, where))

    def file(self, name: str, where: Where, *, constraint: bool = False, depth: int = 0) -> None:
        """Take a requirements file of the project with those it names.

        Raises:
            ConfigError, UnsafeError, NotFoundError: with the file and line.
        """
        if depth > _DEPTH_LIMIT:
            raise ConfigError(f"requirements files nested more than {_DEPTH_LIMIT} deep", path=where)
        path = check_relative(name, where)
        content = _decode(read_inside(self.project, path, where, limit=_FILE_LIMIT), path, where)
        first = len(self.lines)
        for number, line in _logical_lines(content):
            self._line(line, (path, f"line {number}"), PurePosixPath(path).parent, constraint, depth)
        if self.hashes_required:
            bare = next((line for line in self.lines[first:] if "--hash" not in line), None)
            if bare:
                raise ConfigError(f"--require-hashes is set and {bare!r} has no hash", path=self.hashes_required)

    def _line(self, line: str, where: Where, folder: PurePosixPath, constraint: bool, depth: int) -> None:
        option = _OPTION.fullmatch(line) if line.startswith("-") else None
        name, value = (option.group(1), option.group(2).strip().strip("\"'")) if option else ("", "")
        if not line.startswith("-") or name in ("-e", "--editable"):
            self.requirement(line, where, constraint=constraint, folder=folder)
        elif name in ("-r", "--requirement", "-c", "--constraint"):
            nested = str(folder / check_relative(value, where))
            self.file(nested, where, constraint=constraint or name in ("-c", "--constraint"), depth=depth + 1)
        elif not self._place(name, value, where, folder) and not self._choice(name, value, where):
            name = name or line.split(maxsplit=1)[0]
            raise ConfigError(
                f"{name[:40]} is not supported in a requirements file",
                path=where,
                hint=_REFUSED.get(name, "remove the line"),
            )

    def _place(self, name: str, value: str, where: Where, folder: PurePosixPath) -> bool:
        """Take an option that says where packages come from."""
        if name in ("-i", "--index-url", "--pypi-url"):
            self.index_url = check_index(value, where)
        elif name == "--extra-index-url":
            self.extra_index_url.append(check_index(value, where))
        elif name in ("-f", "--find-links"):
            self.find_links.append(check_links(value, where, self.project, folder))
        elif name == "--no-index":
            self.no_index = True
        elif name == "--trusted-host":
            self.trusted_host.append(check_host(value, where))
        else:
            return False
        return True

    def _choice(self, name: str, value: str, where: Where) -> bool:
        """Take an option that says which files of a package are taken."""
        if name == "--pre":
            self.prerelease = True
        elif name == "--require-hashes":
            self.hashes_required = where
        elif name in ("--only-binary", "--no-binary"):
            chosen = self.only_binary if name == "--only-binary" else self.no_binary
            for item in filter(None, re.split(r"[,\s]+", value)):
                if item == ":none:":
                    chosen.clear()
                elif item == ":all:" or normal_name(item) == re.sub(r"[-_.]+", "-", item).lower():
                    chosen.append(item if item == ":all:" else normal_name(item))
                else:
                    raise ConfigError(f"expected a package's name, got {item[:80]!r}", path=where)
        else:
            return False
        return True


def _decode(content: bytes, path: str, where: Where) -> str:
    """The text: by its byte order mark, else as a ``coding:`` comment in the first two lines says, else UTF-8."""
    encoding = next((encoding for bom, encoding in _BOMS if content.startswith(bom)), "")
    if not encoding:
        head = [line for line in content.split(b"\n")[:2] if line.startswith(b"#")]
        stated = next(
            (found[1].decode("ascii", "replace") for line in head if (found := _CODING.search(line))), "utf-8"
        )
        try:
            encoding = codecs.lookup(stated).name
        except LookupError:
            encoding = ""
        if encoding not in _ENCODINGS:
            raise ConfigError(f"{path} states the encoding {stated[:40]!r}", path=where, hint="save it as UTF-8")
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not {encoding.upper()} text", path=where, hint="save it as UTF-8") from None


def _logical_lines(content: str) -> Iterator[tuple[int, str]]:
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
