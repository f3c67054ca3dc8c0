"""What attempts to deploy have made that outlives a failure, such as images: noted before it is there.

A revision is recorded only once it is what counts. What an attempt before that makes would be nobody's if it fails, is
interrupted or killed. ``deployments/.made/NAME.HASH.json`` says whose it is: no deployment can have the folder's name.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bentotool.deploy.options import check_deployment_name
from bentotool.oci.digest import sha256_bytes
from bentotool.oci.layout import Layout, storage_error
from bentotool.paths import make_folder, write_atomic
from bentotool.targetspec import Deployment

__all__ = ["Leftovers"]

_FORMAT = 1
_KEPT = 200
_LIMIT = 1 << 20


class Leftovers:
    """The notes of a store on what was made, one for each thing and name.

    Args:
        layout: the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.root / "deployments" / ".made"

    def note(self, deployment: Deployment) -> None:
        """Note what is about to be made; what was noted before is new again. The oldest notes are dropped.

        Raises:
            BentotoolError: the disk refuses.
        """
        item = deployment.to_dict()
        mark = sha256_bytes(json.dumps([item["target"], item["facts"]], sort_keys=True).encode())[7:23]
        try:
            self._layout.prepare()
            folder = make_folder(self._folder)
            path = folder / f"{check_deployment_name(deployment.name)}.{mark}.json"
            write_atomic(path, json.dumps({"format": _FORMAT, "deployment": item}, indent=1).encode(), mode=0o600)
        except OSError as error:
            raise storage_error(error, self._folder) from None
        for old in self._files()[_KEPT:]:
            _remove(old)

    def known(self, target: str | None = None, name: str | None = None, *, older_s: float = 0.0) -> list[Deployment]:
        """What is noted, the newest first.

        Args:
            target, name: of these alone.
            older_s: for at least so many seconds.
        """
        found: list[Deployment] = []
        latest = time.time() - older_s
        for path in self._files(name):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                if older_s and path.stat().st_mtime > latest:
                    continue
                each = _parse(path)
                if target in (None, each.target):
                    found.append(each)
        return found

    def forget(self, name: str) -> None:
        """Remove the notes of a name."""
        for path in self._files(name):
            _remove(path)

    def _files(self, name: str | None = None) -> list[Path]:
        timed: list[tuple[float, Path]] = []
        for path in self._folder.glob(f"{check_deployment_name(name) if name is not None else '*'}.*.json"):
            with contextlib.suppress(OSError):
                timed.append((path.stat().st_mtime, path))
        return [path for _, path in sorted(timed, reverse=True)]


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _parse(path: Path) -> Deployment:
    with path.open("rb") as file:
        data = file.read(_LIMIT + 1)
    document = json.loads(data)
    item: Mapping[str, Any] = document["deployment"]
    texts = {key: item[key] for key in ("name", "target", "status", "url", "tag", "digest", "detail")}
    named = path.name.split(".", 1)[0] == texts["name"]
    if len(data) > _LIMIT or document["format"] != _FORMAT or not named:
        raise ValueError(path.name)
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(path.name)
    return Deployment(**texts, facts=dict(item["facts"]))
