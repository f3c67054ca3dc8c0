"""Finds plugins: reads ``entry_points.txt`` of every distribution on ``sys.path``.

``importlib.metadata.entry_points`` gives the same answer (a test compares them) and costs forty milliseconds where
reading the few files that matter costs three. It is still there for import paths that are not folders:
``BENTOTOOL_PLUGIN_SCAN=metadata``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["GROUP", "FoundPlugin", "scan"]

GROUP = "bentotool"

_MAX_BYTES = 1024 * 1024  # an entry_points.txt is a few hundred bytes; a larger one is no reason to fill memory


@dataclass(frozen=True)
class FoundPlugin:
    """An entry point of the group ``bentotool``.

    Args:
        name: the entry point's name, by which a plugin is listed and disabled.
        target: ``"package.module"`` or ``"package.module:attribute"``.
        distribution, version: who ships it; empty where the metadata does not say.
    """

    name: str
    target: str
    distribution: str = ""
    version: str = ""

    @property
    def origin(self) -> str:
        """For messages: ``bentotool-onnx 0.1.0``."""
        return f"{self.distribution} {self.version}".strip() or self.target


def scan(path: Iterable[str] | None = None) -> list[FoundPlugin]:
    """All plugins of the import path, sorted by name then distribution.

    Args:
        path: folders to look in, in order; default ``sys.path``. Of two copies of one distribution the first counts,
            as it is the one that an import would find.
    """
    entries = list(sys.path if path is None else path)
    find = _scan_metadata if os.environ.get("BENTOTOOL_PLUGIN_SCAN") == "metadata" else _scan_folders
    return sorted(set(find(entries)), key=lambda plugin: (plugin.name, plugin.distribution, plugin.target))


def _scan_folders(entries: Iterable[str]) -> Iterator[FoundPlugin]:
    marker = f"[{GROUP}]".encode()
    seen: set[str] = set()
    for info in _metadata_folders(entries):
        key = _normalised(os.path.basename(info))
        if key in seen:
            continue
        seen.add(key)
        text = _read(os.path.join(info, "entry_points.txt"))
        if marker in text:
            distribution, version = _identity(info)
            for name, target in _entries(text.decode("utf-8", "replace")):
                yield FoundPlugin(name, target, distribution, version)


def _metadata_folders(entries: Iterable[str]) -> Iterator[str]:
    for entry in dict.fromkeys(entries):
        folder = entry or "."
        try:
            names = os.listdir(folder)
        except (OSError, ValueError):  # a zip file, a folder that is gone, a NUL in the path
            continue
        if folder.lower().endswith(".egg"):
            names = [name for name in names if name.lower() != "egg-info"]
            yield os.path.join(folder, "EGG-INFO")
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                yield os.path.join(folder, name)


def _normalised(folder: str) -> str:
    """The distribution part of ``My.Dist-1.0.dist-info`` as importlib.metadata compares it: ``my_dist``."""
    name = folder.rpartition(".")[0].partition("-")[0].lower()
    return "_".join(part for part in name.replace(".", "_").replace("-", "_").split("_") if part) or folder


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is not needed at start-up
            return file.read(_MAX_BYTES)
    except (OSError, ValueError):
        return b""


def _entries(text: str) -> Iterator[tuple[str, str]]:
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            section = line.strip("[]")
        elif section == GROUP and "=" in line:
            name, _, target = line.partition("=")
            yield name.strip(), target.partition("[")[0].replace(" ", "")


def _identity(info: str) -> tuple[str, str]:
    """Name and version: from METADATA's (or an egg's PKG-INFO's) header, else from the folder's own name."""
    stem = os.path.basename(info).rpartition(".")[0]
    name, _, version = stem.partition("-")
    for raw in (_read(os.path.join(info, "METADATA")) or _read(os.path.join(info, "PKG-INFO"))).splitlines():
        if not raw:
            break  # end of the header
        key, _, value = raw.partition(b":")
        if key == b"Name":
            name = value.strip().decode("utf-8", "replace")
        elif key == b"Version":
            version = value.strip().decode("utf-8", "replace")
    return name, version


def _scan_metadata(entries: list[str]) -> Iterator[FoundPlugin]:
    from importlib import metadata  # forty milliseconds: only where it is asked for

    seen: set[str] = set()
    for distribution in metadata.distributions(path=entries):
        name = distribution.metadata["Name"] if "Name" in distribution.metadata else ""  # noqa: SIM401 - it has no get
        key = name.lower().replace("-", "_").replace(".", "_")
        if key in seen:
            continue
        seen.add(key)
        for entry in distribution.entry_points:
            if entry.group == GROUP:
                yield FoundPlugin(entry.name, entry.value.replace(" ", ""), name, distribution.version or "")
