"""A lock that the project keeps itself: ``uv.lock`` or ``pylock.toml``, taken as it is for the target."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bentotool.build.localsource import LocalSource
from bentotool.build.requirement_line import no_credentials, normal_name
from bentotool.build.schema import Where
from bentotool.build.target import any_wheel_fits
from bentotool.errors import ConfigError

__all__ = ["Pinned", "UserLock", "check_python", "file_name", "is_ours", "make_pin"]


@dataclass(frozen=True)
class Pinned:
    """One package of such a lock.

    Args:
        name: normalised.
        hashes: ``sha256:…`` of its files, sorted.
        url: of an archive that it is taken from; "" for a package of an index.
        has_wheel: whether one of its files is a wheel for the target; without one it is built where it is installed.
    """

    name: str
    version: str
    hashes: tuple[str, ...]
    url: str = ""
    has_wheel: bool = True

    @property
    def line(self) -> str:
        """The pin as it stands in bento.lock."""
        return f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"


@dataclass(frozen=True)
class UserLock:
    """What the lock says for the target.

    Args:
        file: its path in the project.
        sources: packages of the project and of git repositories, to be packed.
    """

    file: str
    pins: tuple[Pinned, ...]
    sources: tuple[LocalSource, ...] = ()


def file_name(place: str) -> str:
    """The last part of a URL or path; a lock may say anything there, and urllib does not take everything."""
    return re.split(r"[?#]", place)[0].replace("\\", "/").rpartition("/")[2]


def is_ours(name: str) -> bool:
    """Whether a distribution is a part of bentotool: the Bento carries its own runtime instead."""
    return re.fullmatch(r"bentotool(-.*)?", name) is not None


def make_pin(
    name: str, version: str, files: list[tuple[str, str]], environment: dict[str, str], where: Where, url: str = ""
) -> Pinned:
    """A pin, checked.

    Args:
        files: file name and ``sha256:…`` of each of its files.
        environment: of the target.

    Raises:
        ConfigError: it has no version or no file with a SHA-256.
    """
    from packaging.version import InvalidVersion, Version

    try:
        Version(version)
    except InvalidVersion:
        raise ConfigError(f"{name} has no valid version: {version[:80]!r}", path=where) from None
    hashes = sorted({digest for _, digest in files if re.fullmatch(r"sha256:[0-9a-f]{64}", digest)})
    if not hashes:
        raise ConfigError(
            f"{name}=={version} has no file with a sha256", path=where, hint="make the lock from an index with hashes"
        )
    if url and not re.fullmatch(r"https?://[^\s@\\]+", url):
        no_credentials(url, where)
        raise ConfigError(f"{name} comes from {url[:120]!r}, which is no https archive", path=where)
    return Pinned(
        normal_name(name), version, tuple(hashes), url, any_wheel_fits((file for file, _ in files), environment)
    )


def check_python(requires: str, python: str, where: Where) -> None:
    """Raise ConfigError where ``requires-python`` leaves the target's Python out."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        fits = not requires or SpecifierSet(requires).contains(f"{python}.99", prereleases=True)
    except InvalidSpecifier:
        raise ConfigError(f"not a range of versions: {requires[:80]!r}", path=(*where, "requires-python")) from None
    if not fits:
        raise ConfigError(
            f"requires-python is {requires!r}, and the Bento's Python is {python}",
            path=where,
            hint="set python.version in the configuration",
        )
