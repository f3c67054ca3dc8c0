"""The files that make a folder an image layout, and names that can be taken from them when their own file is lost."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bentotool.errors import BentotoolError
from bentotool.oci.digest import check_digest, open_regular
from bentotool.oci.layout import Layout
from bentotool.oci.refs import Ref, RefStore, check_name, check_version

__all__ = ["index_fault", "layout_faults", "listed_names", "name_of_path", "place_in_time"]

_REF_NAME = "org.opencontainers.image.ref.name"
_LIMIT = 256 << 20


def name_of_path(layout: Layout, path: Path) -> tuple[str, str, str] | None:
    """Kind, name and version that a reference's path stands for; None for a path that is none."""
    try:
        kind, name, file = path.relative_to(layout.root / "refs").parts
        if kind not in ("models", "bentos") or not file.endswith(".json"):
            return None
        return kind, check_name(name), check_version(file.removesuffix(".json"))
    except (ValueError, BentotoolError):
        return None


def _document(path: Path) -> Any:
    with open_regular(path) as file:
        return json.loads(file.read(_LIMIT))


def listed_names(layout: Layout) -> dict[str, str]:
    """Digests by ``kind/name:version``, oldest first, as ``index.json`` lists them; empty when it cannot be read."""
    names: dict[str, str] = {}
    try:
        for entry in _document(layout.root / "index.json")["manifests"]:
            names[str(entry["annotations"][_REF_NAME])] = check_digest(entry["digest"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BentotoolError):
        return names
    return names


def place_in_time(refs: RefStore, kind: str, key: str, listed: dict[str, str]) -> str | None:
    """A time of creation that keeps the order of ``index.json``, so that ``latest`` does not move; None if unknown."""
    order = list(listed)
    times: dict[str, Ref] = {f"{kind}/{ref.ref}": ref for ref in refs.list(kind)}
    at = order.index(key)
    older = next((times[each].created for each in reversed(order[:at]) if each in times), None)
    newer = next((times[each].created for each in order[at + 1 :] if each in times), None)
    try:
        if older:
            return (datetime.fromisoformat(older) + timedelta(microseconds=1)).isoformat(timespec="microseconds")
        if newer:
            return (datetime.fromisoformat(newer) - timedelta(microseconds=1)).isoformat(timespec="microseconds")
    except ValueError:
        return older or newer
    return None


def index_fault(layout: Layout, *, named: bool) -> str | None:
    """What is wrong with ``index.json``, if anything.

    Args:
        named: whether the store has names, so that there must be an index.
    """
    try:
        document = _document(layout.root / "index.json")
    except FileNotFoundError:
        return "is missing" if named else None
    except (OSError, ValueError, RecursionError):
        return "cannot be read"
    return None if isinstance(document, dict) and isinstance(document.get("manifests"), list) else "is no image index"


def layout_faults(layout: Layout, *, named: bool) -> dict[Path, str]:
    """Reasons by path: ``oci-layout`` and ``index.json`` where they are damaged, or missing from a store in use."""
    faults: dict[Path, str] = {}
    marker = layout.root / "oci-layout"
    try:
        document = _document(marker)
        if not isinstance(document, dict) or document.get("imageLayoutVersion") != "1.0.0":
            faults[marker] = "is no image layout's marker"
    except FileNotFoundError:
        if named:
            faults[marker] = "is missing"
    except (OSError, ValueError, RecursionError):
        faults[marker] = "cannot be read"
    if reason := index_fault(layout, named=named):
        faults[layout.root / "index.json"] = reason
    return faults
