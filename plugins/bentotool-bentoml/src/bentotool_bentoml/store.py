"""Where BentoML keeps a model: ``$BENTOML_HOME/models/NAME/VERSION``, and ``NAME/latest`` with the newest version.

The layout is that of BentoML 1.4 (``_internal/store.py``, ``_internal/tag.py``).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from bentotool.errors import NotFoundError, UsageError

__all__ = ["find"]

_PART = re.compile(r"[a-z0-9](?:[-._a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_MAX_LATEST = 256  # bytes
_MAX_LISTED = 5


def find(tag: str) -> Path:
    """The folder of ``NAME``, ``NAME:latest``, ``NAME:VERSION`` or a unique prefix of a version.

    Raises:
        NotFoundError: the store has no such model.
        UsageError: it is no tag, or a prefix of several versions.
    """
    name, _, version = tag.lower().partition(":")
    if not _PART.fullmatch(name) or (version and not _PART.fullmatch(version)):
        raise UsageError(
            f"{tag!r:.100} is neither a path nor a tag of BentoML", hint="write bentoml:NAME:VERSION or bentoml:FOLDER"
        )
    models = Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml") / "models"
    folder = models / name
    if not folder.is_dir():
        hint = _known(_folders(models)) if models.is_dir() else "set BENTOML_HOME, or give the folder itself"
        raise NotFoundError(f"BentoML's store {models} has no model {name}", hint=hint)
    versions = _folders(folder)
    if version in ("", "latest"):
        version = _latest(folder, versions)
    found = [version] if version in versions else [each for each in versions if each.startswith(version)]
    if len(found) > 1:
        raise UsageError(f"{tag} could be any of {', '.join(found[:_MAX_LISTED])}", hint="write more of the version")
    if not found:
        raise NotFoundError(f"BentoML's store has no version {version} of {name}", hint=_known(versions))
    return folder / found[0]


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _PART.fullmatch(entry.name))


def _known(names: list[str]) -> str:
    more = ", …" if len(names) > _MAX_LISTED else ""
    return f"it has: {', '.join(names[:_MAX_LISTED]) or 'none'}{more}"


def _latest(folder: Path, versions: list[str]) -> str:
    try:
        with (folder / "latest").open("rb") as file:
            version = file.read(_MAX_LATEST).decode("ascii", "replace").strip()
    except OSError:
        version = ""
    if version not in versions:
        raise NotFoundError(f"{folder / 'latest'} names no version of {folder.name}", hint=_known(versions))
    return version
