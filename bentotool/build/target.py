"""The machine that a Bento is locked for: its marker environment and the wheels that install there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bentotool.errors import ConfigError

if TYPE_CHECKING:
    from packaging.tags import Tag

__all__ = ["PLATFORMS", "any_wheel_fits", "marker_environment", "marker_holds", "target_tags"]

PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_36", "linux/arm64": "aarch64-manylinux_2_36"}
"""Targets, and what uv calls them: the C library of Debian 12, the oldest base that images are made from."""

_GLIBC_MINOR = 36
_LEGACY = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


def _machine(platform: str) -> str:
    return PLATFORMS[platform].split("-")[0]


def marker_environment(python: str, platform: str) -> dict[str, str]:
    """The variables of environment markers (PEP 508) on the target.

    Args:
        python: ``X.Y``.
        platform: a key of :data:`PLATFORMS`.
    """
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": _machine(platform),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
        "extra": "",
    }


def marker_holds(marker: str, environment: dict[str, str], where: tuple[str, ...]) -> bool:
    """Whether an environment marker holds on the target; an empty one does.

    Raises:
        ConfigError: it is no marker.
    """
    from packaging.markers import InvalidMarker, Marker, UndefinedComparison, UndefinedEnvironmentName

    if not marker:
        return True
    try:
        return Marker(marker).evaluate(environment)
    except (InvalidMarker, UndefinedComparison, UndefinedEnvironmentName, RecursionError):
        raise ConfigError(f"not an environment marker: {marker[:120]!r}", path=where) from None


def target_tags(python: str, platform: str) -> frozenset[Tag]:
    """The tags (PEP 425) of the wheels that install on the target."""
    return frozenset(_tags(python, platform))


def any_wheel_fits(files: Iterable[str], environment: dict[str, str]) -> bool:
    """Whether one of some file names is a wheel that installs on the target."""
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    tags: frozenset[Tag] = frozenset()
    for file in sorted(files, key=lambda name: not name.endswith("-none-any.whl")):
        if not file.endswith(".whl") or re.search(r"-(win|macosx|musllinux|ios|android)[^-]*\.whl$", file):
            continue
        platform = next(name for name in PLATFORMS if _machine(name) == environment["platform_machine"])
        tags = tags or target_tags(environment["python_version"], platform)
        try:
            if parse_wheel_filename(file)[3] & tags:
                return True
        except InvalidWheelFilename:
            continue
    return False


def _tags(python: str, platform: str) -> Iterator[Tag]:
    from packaging.tags import compatible_tags, cpython_tags

    major, minor = (int(part) for part in python.split("."))
    machine = _machine(platform)
    platforms = [f"linux_{machine}"]
    for glibc in range(_GLIBC_MINOR, 4, -1):
        platforms += [f"manylinux_2_{glibc}_{machine}"]
        platforms += [f"{_LEGACY[glibc]}_{machine}"] if glibc in _LEGACY else []
    interpreter = f"cp{major}{minor}"
    yield from cpython_tags((major, minor), abis=[interpreter, "abi3"], platforms=platforms)
    yield from compatible_tags((major, minor), interpreter, platforms)
