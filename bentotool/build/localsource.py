"""Packages that come from no index: wheels and folders of the project, and git repositories.

They are packed into the Bento as wheels, so that nothing but the Bento is needed where it is installed. Paths stay in
the project.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from bentotool.build.collect import CodeFile, collect
from bentotool.build.contain import check_relative, open_inside
from bentotool.build.requirement_line import no_credentials, normal_name, shown_url
from bentotool.build.schema import Where, check_text
from bentotool.build.tomlfile import read_toml, table_at, text_at
from bentotool.errors import ConfigError, NotFoundError, UnsafeError
from bentotool.oci.descriptor import canonical_json
from bentotool.oci.digest import CHUNK, sha256_bytes

__all__ = [
    "IGNORED",
    "LocalSource",
    "git_source",
    "is_local",
    "package_name",
    "parse_local",
    "path_source",
    "tree_digest",
]

IGNORED = ("build/", "dist/", "*.egg-info/", ".tox/", ".nox/", ".*_cache/")
"""What of a package's folder is a result of building or checking it, and not its source."""

_TOP = PurePosixPath()
_GIT_SCHEMES = ("https", "http", "ssh")
_REF = re.compile(r"[A-Za-z0-9][\w./+-]{0,254}", re.ASCII)


@dataclass(frozen=True)
class LocalSource:
    """A package to be packed.

    Args:
        kind: ``wheel``, ``path`` or ``git``.
        place: path in the project, or the repository's URL.
        name: normalised; "" where only building it tells.
        ref: branch, tag or commit of a git repository; "" for its default branch.
        subdirectory: where the package lies in the repository.
        extras: extras asked for.
        digest: of the file or of the folder's content; "" for git.
    """

    kind: str
    place: str
    name: str = ""
    ref: str = ""
    subdirectory: str = ""
    extras: tuple[str, ...] = ()
    digest: str = ""

    @property
    def shown(self) -> str:
        """How messages name it."""
        return f"{self.place}@{self.ref}" if self.ref else self.place

    def inputs(self) -> list[Any]:
        """What a lock depends on."""
        return [self.kind, self.place, self.name, self.ref, self.subdirectory, list(self.extras), self.digest]


def is_local(line: str) -> bool:
    """Whether a line of a requirements file names a path or a git repository instead of a released package."""
    if re.match(r"-e\b|--editable\b|git\+|file:|\.{1,2}(/|$|\[)", line) or re.match(r"\S+\.whl(\s|$)", line):
        return not re.match(r"https?:", line)
    found = re.match(r"[A-Za-z0-9][\w.-]*\s*(?:\[[^\]]*\])?\s*@\s*(\S+)", line)
    if found:
        return bool(re.match(r"git\+|file:|\.{1,2}/", found[1])) or "://" not in found[1]
    return bool(re.match(r"[\w.-]+(/[\w.-]+)+(\[[^\]]*\])?(\s*;|$)", line))


def parse_local(project: Path, line: str, where: Where, folder: PurePosixPath = _TOP) -> tuple[LocalSource, str]:
    """A line that :func:`is_local`, with the environment marker after it.

    Args:
        folder: that of the requirements file; a path is looked for in the project first, as pip does, then there.

    Raises:
        ConfigError: not such a line.
        UnsafeError: a path out of the project, or a URL with credentials.
        NotFoundError: nothing is there.
    """
    check_text(line, where)
    if "$" in line:
        raise ConfigError(f"variables are not expanded: {shown_url(line)!r}", path=where, hint="write the value")
    line = re.sub(r"^(-e\b|--editable\b)[\s=]*", "", line).strip()
    line = line.strip("\"'") if line[:1] in ("'", '"') else line
    line, *options = re.split(r"\s+(?=--?[A-Za-z])", line)
    if options:
        raise ConfigError(f"{options[0].split('=')[0][:40]} is not supported for a packed package", path=where)
    body, _, marker = re.sub(r"\s;|;\s", "\0", line, count=1).partition("\0")
    body, marker = body.strip(), marker.strip()
    named = re.fullmatch(r"([A-Za-z0-9][\w.-]*)\s*(\[[^\]]*\])?\s*@\s*(\S+)", body)
    name, extras, target = (normal_name(named[1]), named[2] or "", named[3]) if named else ("", "", body)
    if target.startswith("git+"):
        return git_source(target[4:], name, _extras(extras, where), where), marker
    tail = re.fullmatch(r"(.*[^\]])(\[[\w.,\s-]*\])", target)
    target, extras = (tail[1], tail[2]) if tail and not extras else (target, extras)
    place = _place(project, target, where, folder)
    return path_source(project, place, where, name=name, extras=_extras(extras, where)), marker


def _extras(text: str, where: Where) -> tuple[str, ...]:
    extras = tuple(sorted({normal_name(item.strip()) for item in text.strip("[]").split(",") if item.strip()}))
    if "" in extras:
        raise ConfigError(f"not extras: {text[:80]!r}", path=where)
    return extras


def _place(project: Path, target: str, where: Where, folder: PurePosixPath) -> str:
    """A path as written, as a path of the project."""
    if target.startswith("file:"):
        path = unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", target))
        if path.startswith("/"):
            base, real = os.path.realpath(project), os.path.realpath(path)
            if not Path(real).is_relative_to(base):
                raise UnsafeError(
                    f"{' → '.join(where)}: {target[:120]!r} leads outside the project",
                    hint="copy the package into the project, or build its wheel and name that under python.wheels",
                )
            return check_relative(Path(real).relative_to(base).as_posix(), where)
        target = path
    target = target.split("#")[0]
    try:
        plain = check_relative(target, where)
        if folder == _TOP or (project / plain).exists():
            return plain
    except UnsafeError:
        if folder == _TOP or not target.startswith("../"):
            raise
    return check_relative(posixpath.normpath(str(folder / target)), where)


def git_source(
    url: str, name: str, extras: tuple[str, ...], where: Where, *, ref: str = "", subdirectory: str = ""
) -> LocalSource:
    """A git repository, from the URL as pip writes it without ``git+``.

    Raises:
        ConfigError, UnsafeError: not a URL of one, or one with credentials.
    """
    bare, _, fragment = url.partition("#")
    for part in filter(None, fragment.split("&")):
        key, _, value = part.partition("=")
        if key == "egg":
            name = name or normal_name(value)
        elif key == "subdirectory":
            subdirectory = value
        else:
            raise ConfigError(f"unknown part {part[:80]!r} in {shown_url(url)!r}", path=where)
    try:
        parts = urlsplit(bare)
        host = parts.hostname
    except ValueError:
        host = None
    if host is None or parts.scheme not in _GIT_SCHEMES or parts.query or host.startswith("-"):
        raise ConfigError(
            f"not a git repository: {shown_url(url)!r}",
            path=where,
            hint="git+https://HOST/REPOSITORY@TAG; for a folder of this machine, copy it into the project",
        )
    if not (parts.scheme == "ssh" and parts.username and parts.password is None):
        no_credentials(bare, where)
    head, at, last = parts.path.rpartition("@")
    path, ref = (head, last) if at and not ref else (parts.path, ref)
    if ref and (not _REF.fullmatch(ref) or ".." in ref):
        raise ConfigError(f"not a branch, tag or commit: {ref[:80]!r}", path=where)
    place = f"{parts.scheme}://{parts.netloc}{path}"
    if subdirectory:
        subdirectory = check_relative(subdirectory, where)
    return LocalSource("git", place, name, ref, subdirectory, extras)


def path_source(
    project: Path, place: str, where: Where, *, name: str = "", extras: tuple[str, ...] = ()
) -> LocalSource:
    """A wheel or a package's folder in the project.

    Args:
        place: relative, checked.

    Raises:
        NotFoundError: nothing is there.
        UnsafeError: it lies outside the project.
        ConfigError: it is neither.
    """
    base, real = os.path.realpath(project), os.path.realpath(project / place)
    if not Path(real).is_relative_to(base):
        raise UnsafeError(f"{' → '.join(where)}: {place!r} leads outside the project", hint="copy it into the project")
    if place.endswith(".whl"):
        try:
            with open_inside(project, place) as file:
                digest = _digest(file)
        except NotFoundError as error:
            raise NotFoundError(f"{' → '.join(where)}: {error.message}", hint=error.hint) from None
        found = normal_name(PurePosixPath(place).name.split("-")[0])
        return LocalSource("wheel", place, _same_name(name, found, place, where), extras=extras, digest=digest)
    folder = Path(real)
    if not folder.is_dir():
        if folder.exists():
            raise ConfigError(
                f"{place!r} is neither a wheel nor a folder", path=where, hint="make a wheel of it: uv build --wheel"
            )
        raise NotFoundError(f"{' → '.join(where)}: no file or folder {place!r} in the project")
    if not any((folder / file).is_file() for file in ("pyproject.toml", "setup.py")):
        raise ConfigError(f"{place!r} holds neither pyproject.toml nor setup.py", path=where)
    digest = tree_digest(collect(folder, ("*",), IGNORED, where=place))
    found = package_name(project, place)
    return LocalSource("path", place, _same_name(name, found, place, where), extras=extras, digest=digest)


def tree_digest(files: Iterable[CodeFile]) -> str:
    """Digest of a folder's content."""
    return sha256_bytes(canonical_json([[file.name, file.digest] for file in files]))


def _digest(file: BinaryIO) -> str:
    found = hashlib.sha256()
    while piece := file.read(CHUNK):
        found.update(piece)
    return f"sha256:{found.hexdigest()}"


def _same_name(asked: str, found: str, place: str, where: Where) -> str:
    if asked and found and asked != found:
        raise ConfigError(f"{place!r} holds {found}, not {asked}", path=where)
    return found or asked


def package_name(project: Path, place: str) -> str:
    """The normalised name that a package's ``pyproject.toml`` states, or "" where only building it tells."""
    return normal_name(text_at(package_table(project, place), "name", (place, "pyproject.toml", "project")))


def package_table(project: Path, place: str) -> Mapping[str, Any]:
    """The ``[project]`` table of a package in the project; empty without one."""
    file = posixpath.normpath(posixpath.join(place, "pyproject.toml"))
    if not (project / file).is_file():
        return {}
    return table_at(read_toml(project, file), "project", (file,))
