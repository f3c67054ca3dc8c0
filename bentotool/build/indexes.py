"""Where packages are looked for: indexes by name, and which package is asked of which alone.

Credentials never stand here. uv finds them by the name of an index (``UV_INDEX_NAME_USERNAME``, ``_PASSWORD``), in
``.netrc`` or in a keyring.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from bentotool.build.config import INDEX_PATTERN
from bentotool.build.contain import check_relative
from bentotool.build.requirement_line import no_credentials, normal_name, shown_url
from bentotool.build.schema import Where, boolean, check_text
from bentotool.build.tomlfile import text_at
from bentotool.errors import ConfigError, UnsafeError

__all__ = [
    "Index",
    "Indexes",
    "check_host",
    "check_index",
    "check_links",
    "merge_indexes",
    "parse_index",
    "pinned_packages",
]


@dataclass(frozen=True)
class Index:
    """A package index.

    Args:
        default: asked after all others, in place of the public one.
        explicit: asked only for the packages that are pinned to it.
        flat: a page or folder of files, not a simple index (PEP 503).
        packages: normalised names of those that are asked of this index and of no other.
    """

    name: str
    url: str
    default: bool = False
    explicit: bool = False
    flat: bool = False
    packages: tuple[str, ...] = ()


@dataclass(frozen=True)
class Indexes:
    """All places that packages come from.

    Args:
        named: indexes by name, in the order they are asked.
        pinned: index name by normalised package name.
    """

    index_url: str | None = None
    extra_index_url: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_host: tuple[str, ...] = ()
    named: tuple[Index, ...] = ()
    pinned: Mapping[str, str] = field(default_factory=dict)

    def used(self) -> tuple[Index, ...]:
        """All indexes as uv is given them: unnamed ones first, as pip's extra indexes are asked."""
        extra = tuple(Index("", url) for url in self.extra_index_url)
        has_default = self.index_url is not None
        named = tuple(
            Index(item.name, item.url, item.default and not has_default, item.explicit, item.flat)
            for item in self.named
        )
        return (*extra, *named, *((Index("", self.index_url, default=True),) if self.index_url else ()))


def parse_index(raw: Mapping[str, Any], where: Where) -> Index:
    """One ``[[tool.uv.index]]`` table.

    Raises:
        ConfigError, UnsafeError: a wrong value, or a URL with credentials.
    """
    name = text_at(raw, "name", where)
    if name and not re.fullmatch(INDEX_PATTERN, name):
        raise ConfigError(f"not the name of an index: {name[:80]!r}", path=(*where, "name"))
    flat = text_at(raw, "format", where)
    if flat not in ("", "simple", "flat"):
        raise ConfigError(f"unknown format {flat[:40]!r}", path=(*where, "format"), hint="simple or flat")
    explicit = boolean(raw.get("explicit", False), (*where, "explicit"))
    if explicit and not name:
        raise ConfigError("an explicit index needs a name", path=where)
    return Index(
        name,
        check_index(text_at(raw, "url", where), (*where, "url")),
        boolean(raw.get("default", False), (*where, "default")),
        explicit,
        flat == "flat",
    )


def merge_indexes(first: tuple[Index, ...], second: tuple[Index, ...], where: Where) -> tuple[Index, ...]:
    """Indexes of two places; the first wins where both define a name, and only one is the default.

    Raises:
        ConfigError: one place defines a name twice, or two defaults.
    """
    for group in (first, second):
        names = [item.name for item in group if item.name]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise ConfigError(f"index {twice!r} is defined twice", path=where)
        if sum(item.default for item in group) > 1:
            raise ConfigError("two indexes are the default", path=where)
    known = {item.name for item in first if item.name}
    default = any(item.default for item in first)
    return (*first, *(item for item in second if item.name not in known and not (item.default and default)))


def pinned_packages(indexes: tuple[Index, ...], sources: Mapping[str, str], where: Where) -> dict[str, str]:
    """Index name by package, from ``packages`` of the indexes and from ``tool.uv.sources``.

    Raises:
        ConfigError: an index that is not defined, or a package of two indexes.
    """
    known = {item.name for item in indexes if item.name}
    pinned = {normal_name(name): index for name, index in sources.items()}
    for item in indexes:
        for name in item.packages:
            if pinned.setdefault(name, item.name) != item.name:
                raise ConfigError(f"{name} is pinned to {pinned[name]!r} and to {item.name!r}", path=where)
    for name, index in pinned.items():
        if index not in known:
            hint = f"defined are: {', '.join(sorted(known))}" if known else "define it under [[tool.uv.index]]"
            raise ConfigError(f"{name} is pinned to index {index[:80]!r}, which is not defined", path=where, hint=hint)
    return pinned


def check_index(url: str, where: Where) -> str:
    """The URL of a package index, without credentials.

    Raises:
        ConfigError, UnsafeError: it is none, or holds credentials.
    """
    check_text(url, where)
    no_credentials(url, where)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "file") or "$" in url or any(char.isspace() for char in url):
        raise ConfigError(f"expected the URL of a package index, got {shown_url(url)!r}", path=where)
    return url


def check_links(link: str, where: Where, project: Path, folder: PurePosixPath | None = None) -> str:
    """A page, or a folder: relative ones lie in the project, absolute ones anywhere: only hashes reach the lock."""
    check_text(link, where)
    if link.startswith(("http://", "https://", "file:")):
        return check_index(link, where)
    if Path(link).is_absolute():
        if ".." in Path(link).parts:
            raise UnsafeError(f"{' → '.join(where)}: {link[:120]!r} is not a plain path")
        return link
    return str(project.absolute() / (folder or PurePosixPath()) / check_relative(link, where))


def check_host(host: str, where: Where) -> str:
    """A host name with an optional port. ConfigError for anything else."""
    if not re.fullmatch(r"[A-Za-z0-9.-]+(:\d{1,5})?|\[[0-9a-fA-F:]+\](:\d{1,5})?", host):
        raise ConfigError(f"expected a host name, got {host[:80]!r}", path=where)
    return host
