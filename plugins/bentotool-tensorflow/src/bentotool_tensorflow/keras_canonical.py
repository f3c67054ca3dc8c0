"""Writes a Keras file again so that the same model gives the same bytes, and with them the same version."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

from bentotool_tensorflow.keras_loader import CONFIG, METADATA, tables

_EPOCH = (1980, 1, 1, 0, 0, 0)
_PIECE = 1 << 20


def rewrite(path: Path) -> None:
    """Take the time of saving, and the addresses of objects in memory, out of a file that Keras has just written."""
    other = path.with_name(path.name + ".new")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            with old.open(name) as source, new.open(entry, "w", force_zip64=True) as target:
                if name in (CONFIG, METADATA):
                    target.write(_plain(json.loads(source.read())))
                    continue
                while piece := source.read(_PIECE):
                    target.write(piece)
    os.replace(other, path)


def _plain(document: Any) -> bytes:
    numbers: dict[Any, int] = {}
    for table in tables(document):
        table.pop("date_saved", None)
        if "shared_object_id" in table:
            table["shared_object_id"] = numbers.setdefault(table["shared_object_id"], len(numbers) + 1)
    return json.dumps(document).encode()
