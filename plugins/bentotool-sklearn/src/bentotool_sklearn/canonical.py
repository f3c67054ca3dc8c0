"""Makes a skops archive a function of the model: the same estimator saved twice gives the same bytes.

skops names members and objects after memory addresses and stamps members with the clock; here both are numbered in
the order of the object tree, and the clock is that of the oldest zip archive.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import BinaryIO

_EPOCH = (1980, 1, 1, 0, 0, 0)


def rewrite(source: BinaryIO, target: Path) -> None:
    """Write the archive ``source``, made by skops just now, to ``target`` in canonical form."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        numbers: dict[object, int] = {}
        members: dict[str, str] = {}
        schema = _renamed(json.loads(old.read("schema.json")), numbers, members)
        for name, renamed in members.items():
            new.writestr(_entry(renamed), old.read(name))
        new.writestr(_entry("schema.json"), json.dumps(schema, indent=1, sort_keys=True))


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = 3  # what Unix writes, on Windows too
    entry.external_attr = 0o644 << 16
    return entry


def _renamed(value: object, numbers: dict[object, int], members: dict[str, str]) -> object:
    if isinstance(value, list):
        return [_renamed(item, numbers, members) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {}
    for key, item in value.items():
        if key == "__id__":
            renamed[key] = numbers.setdefault(item, len(numbers) + 1)
        elif key == "file" and isinstance(item, str):
            renamed[key] = members.setdefault(item, f"{len(members) + 1}{Path(item).suffix}")
        else:
            renamed[key] = _renamed(item, numbers, members)
    return renamed
