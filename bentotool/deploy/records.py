"""What is known of deployments: one document for each revision in the store, and no server.

``deployments/NAME/N.json`` holds what was deployed the Nth time and with which options, so that it can be listed,
repeated and taken back. A document is written once, whole or not at all, and never changed: of two who record at the
same time each gets a number of its own, and nobody waits for a lock. It never holds a secret: targets take those from
files, and the record has the file's path.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bentotool.deploy.options import check_deployment_name
from bentotool.errors import BentotoolError, ConflictError, NotFoundError, VerificationError
from bentotool.oci.layout import Layout, storage_error
from bentotool.paths import make_folder, remove_folder, write_atomic
from bentotool.targetspec import Deployment

__all__ = ["Record", "Records", "Revision"]

_FORMAT = 1
_KEPT = 20
_LIMIT = 1 << 20
_DRAFT_S = 3600.0
_TRIES = 100


@dataclass(frozen=True)
class Revision:
    """One deployment that was applied.

    Args:
        number: counted from 1.
        created: RFC 3339, UTC.
        options: values of the target's options.
        env: environment variables of the service.
        reason: why, where it was more than a deployment, such as ``rollback to 3``.
    """

    number: int
    created: str
    deployment: Deployment
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "format": _FORMAT, "revision": self.number, "created": self.created, "reason": self.reason,
            "deployment": self.deployment.to_dict(), "options": dict(self.options), "env": dict(self.env),
        }  # fmt: skip


@dataclass(frozen=True)
class Record:
    """A deployment by name; ``revisions`` has the newest first and at least one."""

    name: str
    revisions: tuple[Revision, ...]

    @property
    def current(self) -> Revision:
        return self.revisions[0]

    @property
    def deployment(self) -> Deployment:
        return self.current.deployment

    @property
    def target(self) -> str:
        return self.deployment.target

    def revision(self, number: int) -> Revision:
        """One of its revisions.

        Raises:
            NotFoundError: there is none of that number, or none any more.
        """
        for each in self.revisions:
            if each.number == number:
                return each
        known = ", ".join(str(each.number) for each in reversed(self.revisions))
        raise NotFoundError(f"{self.name} has no revision {number}", hint=f"there are: {known}")


class Records:
    """The records of a store.

    Args:
        layout: the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._folder = layout.root / "deployments"
        self.damaged: list[Path] = []
        """Documents that the last :meth:`list` could not read and left out."""

    def _place(self, name: str) -> Path:
        return self._folder / check_deployment_name(name)

    def _numbered(self, name: str) -> list[tuple[int, Path]]:
        """The documents of a name, the newest first."""
        try:
            found = [path for path in self._place(name).iterdir() if path.suffix == ".json" and path.stem.isdecimal()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(((int(path.stem), path) for path in found), reverse=True)

    def find(self, name: str) -> Record | None:
        """The record of a name, or None. An earlier revision that cannot be read is left out.

        Raises:
            VerificationError: the newest document is damaged: nobody knows any more what runs, and whose it is.
        """
        revisions: list[Revision] = []
        for number, path in self._numbered(name):
            try:
                revisions.append(_parse(name, number, path))
            except FileNotFoundError:  # taken away just now
                continue
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
                self.damaged.append(path)
                if not revisions:
                    raise VerificationError(
                        f"the record {path} is damaged", hint=f"remove it, and deploy {name} again"
                    ) from None
        return Record(name, tuple(revisions)) if revisions else None

    def get(self, name: str) -> Record:
        """The record of a name.

        Raises:
            NotFoundError: there is none.
        """
        found = self.find(name)
        if found is None:
            raise NotFoundError(
                f"no deployment {name!r} is recorded here",
                hint="bentotool deployment list; --target TARGET asks that for what is not recorded here",
            )
        return found

    def list(self) -> list[Record]:
        """All records, by name."""
        self.damaged = []
        found = []
        for path in sorted(self._folder.glob("*")):
            with contextlib.suppress(BentotoolError):
                record = self.find(path.name)
                if record is not None:
                    found.append(record)
        return found

    def keep(
        self, deployment: Deployment, options: Mapping[str, Any], env: Mapping[str, str], reason: str = ""
    ) -> Record:
        """Note that something was deployed; the oldest revisions are dropped.

        Raises:
            ConflictError: others note so much under this name that no number is free.
        """
        try:
            return self._keep(deployment, options, env, reason)
        except OSError as error:
            raise storage_error(error, self._place(deployment.name)) from None

    def _keep(self, deployment: Deployment, options: Mapping[str, Any], env: Mapping[str, str], reason: str) -> Record:
        name = deployment.name
        created = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self._layout.prepare()
        folder = make_folder(self._place(name))
        for _ in range(_TRIES):
            newest = next(iter(self._numbered(name)), (0, folder))[0]
            revision = Revision(newest + 1, created, deployment, options, env, reason)
            if _write_new(folder / f"{revision.number}.json", json.dumps(revision.to_dict(), indent=1).encode()):
                break
        else:
            raise ConflictError(f"{name} is recorded by others at the same time", hint="deploy it again")
        _tidy(folder, [path for _, path in self._numbered(name)[_KEPT:]])
        return self.get(name)

    def forget(self, name: str) -> None:
        """Remove the record of a name, if there is one."""
        remove_folder(self._place(name))


def _write_new(path: Path, data: bytes) -> bool:
    """Write a document that is not there yet; False where another was quicker."""
    draft = path.with_name(f".{path.stem}.{os.urandom(8).hex()}.draft")
    write_atomic(draft, data, mode=0o600)
    try:
        os.link(draft, path)
    except FileExistsError:
        return False
    except OSError:  # a disk without hard links: of two at the very same time one may then be lost, never half written
        if path.exists():
            return False
        os.replace(draft, path)
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
    return True


def _tidy(folder: Path, old: list[Path]) -> None:
    """Remove what is too old, and drafts of a process that was killed."""
    with contextlib.suppress(OSError):
        late = time.time() - _DRAFT_S
        drafts = [path for path in folder.glob(".*") if path.stat().st_mtime < late]
        for path in (*old, *drafts):
            path.unlink(missing_ok=True)


def _parse(name: str, number: int, path: Path) -> Revision:
    with path.open("rb") as file:
        data = file.read(_LIMIT + 1)
    item = json.loads(data)
    if len(data) > _LIMIT or item["format"] != _FORMAT or item["revision"] != number:
        raise ValueError(name)
    return Revision(
        number, str(item["created"]), _deployment(name, item["deployment"]), dict(item["options"]), dict(item["env"]),
        str(item["reason"]),
    )  # fmt: skip


def _deployment(name: str, item: Mapping[str, Any]) -> Deployment:
    texts = {key: item[key] for key in ("target", "status", "url", "tag", "digest", "detail")}
    if item["name"] != name or not all(isinstance(text, str) for text in texts.values()):
        raise ValueError(name)
    return Deployment(name=name, facts=dict(item["facts"]), **texts)
