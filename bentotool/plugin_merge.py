"""What several plugins say of one Bento, put together; where they do not agree, an error that names both."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING

from bentotool.errors import PluginError
from bentotool.interfaces import PlanAddition
from bentotool.plugin_scan import FoundPlugin

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["base_image", "clash", "merge_additions"]

_TABLES = ("files", "env", "labels")
_NAMES = {
    "env": re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}"),
    "labels": re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}"),
}
_IMAGE = re.compile(r"[A-Za-z0-9][\w./:@-]{0,499}", re.ASCII)


def clash(what: str, plugins: Iterable[FoundPlugin]) -> PluginError:
    """The error for two plugins that declare the same."""
    claims = list(plugins)
    return PluginError(
        f"{what} is declared by {' and '.join(_named(plugin) for plugin in claims)}",
        hint=f"bentotool --disable-plugin {claims[-1].name} …",
        details={"plugins": [plugin.name for plugin in claims]},
    )


def merge_additions(answers: Iterable[tuple[FoundPlugin, object]]) -> PlanAddition:
    """What all plugins add to a Bento, as one addition.

    Raises:
        PluginError: two give one file, variable or label different values, or ask for versions of a package that no
            release can satisfy together; or one asks for what is no requirement.
    """
    merged: dict[str, dict[str, object]] = {table: {} for table in _TABLES}
    owners: dict[tuple[str, str], tuple[FoundPlugin, str]] = {}
    requirements: list[tuple[FoundPlugin, str]] = []
    for plugin, addition in answers:
        for table in _TABLES:
            for key, content in getattr(addition, table).items():
                _check_said(plugin, table, key, content)
                # A file system may take names for one that differ in case only.
                owner, standing = owners.setdefault((table, key.casefold() if table == "files" else key), (plugin, key))
                if standing != key or merged[table].setdefault(key, content) != content:
                    raise clash(f"{table} {key!r} of the Bento", [owner, plugin])
        for text in getattr(addition, "requirements", ()):
            if text not in (known for _, known in requirements):
                _check_agrees(plugin, text, requirements)
                requirements.append((plugin, text))
    return PlanAddition(requirements=tuple(text for _, text in requirements), **merged)  # type: ignore[arg-type]


def base_image(answers: Iterable[tuple[FoundPlugin, object]]) -> str | None:
    """The one base image that plugins name.

    Raises:
        PluginError: one names what is no image reference, or two name different ones.
    """
    chosen: tuple[FoundPlugin, str] | None = None
    for plugin, image in answers:
        if not isinstance(image, str) or not _IMAGE.fullmatch(image):
            raise PluginError(f"{_named(plugin)}: base image {str(image)[:100]!r} is no image reference")
        if chosen is not None and chosen[1] != image:
            raise clash(f"base image of the Bento ({chosen[1]!r}, {image!r})", [chosen[0], plugin])
        chosen = chosen or (plugin, image)
    return chosen[1] if chosen else None


def _named(plugin: FoundPlugin) -> str:
    return f"plugin {plugin.name!r} ({plugin.origin})"


def _check_said(plugin: FoundPlugin, table: str, key: str, content: object) -> None:
    """The rules of the configuration for names and texts, where the plugin can still be named."""
    if table in _NAMES and not _NAMES[table].fullmatch(key):
        raise PluginError(f"{_named(plugin)}: {table}: {key[:100]!r} is no name that a Bento can have there")
    if isinstance(content, str) and any(ord(char) < 32 or 127 <= ord(char) < 160 for char in content):
        raise PluginError(f"{_named(plugin)}: {table}: {key} holds a control character")


def _check_agrees(plugin: FoundPlugin, text: str, others: Iterable[tuple[FoundPlugin, str]]) -> None:
    wanted = _parsed(plugin, text)
    for other, standing in others:
        known = _parsed(other, standing)
        if _name(known) == _name(wanted) and not _agree(known, wanted):
            what = f"requirement {_name(wanted)!r} of the Bento ({standing!r}, {text!r})"
            raise clash(what[:500], [other, plugin])


def _parsed(plugin: FoundPlugin, text: str) -> Requirement:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement:
        raise PluginError(f"{_named(plugin)} adds {text[:100]!r}, which is no requirement") from None


def _name(requirement: Requirement) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(requirement.name)


def _agree(one: Requirement, other: Requirement) -> bool:
    """Whether some version satisfies both. Where markers differ they may never meet, and the resolution decides."""
    from packaging.version import InvalidVersion, Version

    if one.marker != other.marker:
        return True
    if one.url or other.url:
        return one.url == other.url
    try:
        named = [Version(specifier.version.removesuffix(".*")) for specifier in chain(one.specifier, other.specifier)]
    except InvalidVersion:  # of ===, which compares texts
        return one.specifier == other.specifier
    # Where the two meet at all, they meet at a version that one of them names, or next to it.
    near = (f"{version.public}{ending}" for version in named for ending in ("", ".0.0.1", ".dev0") if _plain(version))
    both = one.specifier & other.specifier
    return not named or any(both.contains(version, prereleases=True) for version in chain(near, map(str, named)))


def _plain(version: object) -> bool:
    """Whether endings can be put to a version: it is a release, not a pre-, post- or development release."""
    return re.fullmatch(r"(\d+!)?\d+(\.\d+)*", str(version)) is not None
